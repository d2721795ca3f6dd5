"""What a dialect of preference data is, and how rows are recognised as one.

A dialect is known by its columns and by whether each holds a text, a list or an object; rows that fit none, or more
than one, are refused in a sentence that lists what was found.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coala_lib.corpora.files import Row
from coala_lib.corpora.triplets import BadRow, Triplet, TripletError

KINDS = {str: "text", list: "a list", dict: "an object"}
Numbered = tuple[int, Any, Row | BadRow]


class LeftOut(Exception):
    """A sound row that states no preference under the chosen rule (a tie, a weak vote): counted, not quarantined."""


@dataclass(frozen=True)
class Dialect:
    """One way of writing preference data.

    Attributes:
        name: how it is called in `read_triplets(..., dialect=name)`.
        kinds: the columns it needs, and the type of each, as `isinstance` takes it.
        read: a row -> the columns of a triplet; raises `BadRow` or `LeftOut`.
        write: a triplet -> its rows; raises `BadRow` where the dialect has no place for it.
        without: columns that rule it out.
        marks: what else a row must show.
        gather: joins rows into pairs first, where one row is one rated reply; bad rows pass through.
    """

    name: str
    kinds: Mapping[str, Any]
    read: Callable[[Row], dict[str, Any]]
    write: Callable[[Triplet], list[dict[str, Any]]]
    without: tuple[str, ...] = ()
    marks: Callable[[Row], bool] = lambda row: True
    gather: Callable[[Iterable[Numbered]], Iterator[tuple[int, Any, Row | BadRow | LeftOut]]] | None = None

    def has_columns(self, row: Row) -> bool:
        """Whether a row has the columns, whatever they hold."""
        return self.kinds.keys() <= row.keys() and not any(name in row for name in self.without)

    def fits(self, row: Row) -> bool:
        """Whether a row has the columns and what they hold has the right types."""
        return self.has_columns(row) and self.agreement(row) == len(self.kinds) and self.marks(row)

    def agreement(self, row: Row) -> int:
        """How many of the columns hold the right type."""
        return sum(isinstance(row.get(name), kind) for name, kind in self.kinds.items())


def text(row: Row, field: str) -> str:
    """The text in a column, or `BadRow`."""
    if not isinstance(row.get(field), str):
        kind = type(row.get(field))
        held = "missing or null" if row.get(field) is None else KINDS.get(kind, f"of type {kind.__name__}")
        raise BadRow(field, f"is {held}, not text")
    return row[field]


def extras(row: Row, *used: str) -> dict[str, Any]:
    """The columns that a dialect does not use, less the empty ones."""
    return {name: value for name, value in row.items() if name not in used and value is not None}


def single(triplet: Triplet, name: str, system: bool = False) -> tuple[str | None, str, str, str]:
    """(system, prompt, chosen, rejected) as texts, for dialects without room for a longer conversation."""
    before = triplet["prompt"][:-1]
    parts = [triplet["prompt"][-1]["content"], triplet["chosen"][0]["content"], triplet["rejected"][0]["content"]]
    if [message["role"] for message in before] == ["system"] and system:
        return before[0]["content"], *parts
    if before or len(triplet["chosen"]) > 1 or len(triplet["rejected"]) > 1:
        raise BadRow("prompt", f"is a conversation, for which dialect {name!r} has no place; write 'trl' instead")
    return None, *parts


def detect(rows: Sequence[Row], dialects: Sequence[Dialect]) -> Dialect:
    """The dialect of some rows, by their columns and what they hold.

    Args:
        rows: a few rows; the first that fits exactly one dialect settles it.
        dialects: those to choose from.

    Returns:
        The dialect; where no row fits but columns do, the nearest one, so that each row can be blamed.

    Raises:
        TripletError: where the columns fit none, or a row fits several.
    """
    for row in rows:
        fitting = [dialect for dialect in dialects if dialect.fits(row)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = ", ".join(dialect.name for dialect in fitting)
            raise TripletError(f"columns {names_of(row)} fit several dialects ({names}); name one with dialect=")
    near = [
        (dialect.agreement(row), len(dialect.kinds), dialect)
        for row in rows
        for dialect in dialects
        if dialect.has_columns(row)
    ]
    if near:
        return max(near, key=lambda found: found[:2])[-1]
    known = "; ".join(f"{dialect.name}: {', '.join(dialect.kinds)}" for dialect in dialects)
    found = names_of(rows[0] if rows else {})
    raise TripletError(f"columns {found} fit no dialect; rename them with columns=, or write one of: {known}")


def names_of(row: Row) -> str:
    """The columns of a row, in order, cut to a length that fits a sentence."""
    names = sorted(f"{name:.40}" for name in map(str, row))
    return (", ".join(names[:20]) or "none") + (f", and {len(names) - 20} more" if len(names) > 20 else "")
