"""Reading preference data from anywhere: strictly, or leniently with a report and a quarantine.

Every row read ends in exactly one of three places: the good rows, the bad rows (named by number, field and reason, and
written to a quarantine file on request), or the rows left out by a rule that is counted by name.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from coala_lib._files import replacing
from coala_lib.corpora.dialect import Dialect, LeftOut, detect, names_of
from coala_lib.corpora.dialects import DIALECTS, named
from coala_lib.corpora.files import Row, read_rows
from coala_lib.corpora.report import Problem, Report, make_report
from coala_lib.corpora.triplets import MAX_CHARS, BadRow, Triplet, TripletError, check_triplet

Source = str | os.PathLike[str] | Iterable[Any]
_LOOK = 20  # rows read to tell the dialect


Outcome = tuple[int, Any, Triplet | BadRow | LeftOut]


def _outcomes(
    source: Source,
    dialect: str | Dialect | None,
    columns: Mapping[str, str],
    max_chars: int,
    name: str | None,
    tally: Counter[str],
) -> tuple[Dialect, Iterator[Outcome]]:
    """The dialect of a source, and what becomes of each row; `tally["rows"]` counts the rows read."""
    rows = ((tally.update(rows=1), number, raw, _rename(row, columns)) for number, raw, row in read_rows(source))
    start = list(islice(rows, _LOOK))
    if dialect is None:
        sound = [row for *_, row in start if isinstance(row, Mapping)]
        broken = next((f"row {number}: {row}" for _, number, _, row in start if isinstance(row, BadRow)), None)
        try:
            dialect = detect(sound, DIALECTS)
        except TripletError:
            if broken:  # a line that is no row explains more than columns that fit nothing
                raise TripletError(broken) from None
            raise
    chosen = named(dialect) if isinstance(dialect, str) else dialect
    name = name or (Path(source).name if isinstance(source, str | os.PathLike) else "rows")
    fitting = ((number, raw, _fitting(row, chosen)) for _, number, raw, row in chain(start, rows))
    return chosen, _read(chosen.gather(fitting) if chosen.gather else fitting, chosen, name, max_chars)


def _rename(row: Row | BadRow, columns: Mapping[str, str]) -> Row | BadRow:
    if isinstance(row, BadRow) or not columns:
        return row
    ours = {theirs: our for our, theirs in columns.items()}
    return {ours.get(name, name): value for name, value in row.items() if name in ours or name not in columns}


def _fitting(row: Row | BadRow, dialect: Dialect) -> Row | BadRow:
    if isinstance(row, BadRow) or dialect.has_columns(row):
        return row
    return BadRow("", f"has the columns {names_of(row)}; dialect {dialect.name!r} needs {', '.join(dialect.kinds)}")


def _read(
    rows: Iterable[tuple[int, Any, Row | BadRow | LeftOut]], dialect: Dialect, name: str, max_chars: int
) -> Iterator[Outcome]:
    for number, raw, row in rows:
        try:
            if isinstance(row, Exception):
                raise row
            found = {"conversation_id": str(number), "turn_index": 0, "source": name} | dialect.read(row)
            if type(found["conversation_id"]) is int:
                found["conversation_id"] = str(found["conversation_id"])
            check_triplet(found, max_chars)
        except (BadRow, LeftOut) as error:
            yield number, raw, error
        else:
            yield number, raw, found


def read_triplets(
    source: Source,
    *,
    dialect: str | Dialect | None = None,
    columns: Mapping[str, str] | None = None,
    max_chars: int = MAX_CHARS,
) -> list[Triplet]:
    """Read preference data strictly: the first bad row stops.

    Args:
        source: a JSONL, JSON or parquet file, a `datasets.Dataset`, or any iterable of mappings.
        dialect: how the pairs are written, by name or as an object; None tells it from the columns.
        columns: our name -> the file's name, for columns called otherwise, as {"prompt": "input"}.
        max_chars: longest message accepted, in characters.

    Returns:
        The triplets, in order. Absent columns are filled: the row number as `conversation_id`, 0 as `turn_index`,
        the file's name as `source`.

    Raises:
        TripletError: naming the file, and the row and field where one is at fault.
        FileNotFoundError: where there is no such file.

    Example:
        >>> rows = [{"question": "Why?", "chosen": "Because.", "rejected": "So."}]
        >>> read_triplets(rows)[0]["prompt"]
        [{'role': 'user', 'content': 'Why?'}]
    """
    triplets = []
    try:
        _, outcomes = _outcomes(source, dialect, columns or {}, max_chars, None, Counter())
        for number, _, outcome in outcomes:
            if isinstance(outcome, BadRow):
                raise TripletError(f"row {number}: {outcome}")
            if not isinstance(outcome, LeftOut):
                triplets.append(outcome)
        if not triplets:
            raise TripletError("no row states a preference; see the rules of the dialect")
    except TripletError as error:
        raise _named(error, source) from None
    return triplets


def _named(error: TripletError, source: Source) -> TripletError:
    """The error with its file, in one line."""
    name = f"{source}: " if isinstance(source, str | os.PathLike) else ""
    line = " ".join(str(error).split())
    return TripletError(line if line.startswith(name) else name + line)


def read_jsonl(path: str | os.PathLike[str]) -> list[Triplet]:
    """Read triplets from a file, strictly; `read_triplets` with nothing to choose."""
    return read_triplets(path)


def sift(
    source: Source,
    *,
    dialect: str | Dialect | None = None,
    columns: Mapping[str, str] | None = None,
    max_chars: int = MAX_CHARS,
    quarantine: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> tuple[list[Triplet], Report]:
    """Read preference data leniently: bad rows are reported, and nothing is dropped silently.

    Args:
        source, dialect, columns, max_chars: see `read_triplets`.
        quarantine: JSONL file for the bad rows (`row`, `field`, `reason`, `raw`); empty where none is bad.
        name: what report and triplets call the source; None takes the file.

    Returns:
        (good triplets, report).

    Raises:
        TripletError: where the source as a whole cannot be read, or its columns fit no dialect.
        FileNotFoundError: where there is no such file.

    Example:
        >>> rows = [{"question": "Why?", "chosen": "Because.", "rejected": r} for r in ("So.", "", "So.")]
        >>> good, report = sift(rows)
        >>> len(good), report.duplicates, str(report.problems[0])
        (2, 1, "row 1: field 'rejected' holds an empty message; remove or mend the row")
    """
    good: list[Triplet] = []
    problems: list[Problem] = []
    raws: list[Any] = []
    left_out: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    try:
        found, outcomes = _outcomes(source, dialect, columns or {}, max_chars, name, tally)
        for number, raw, outcome in outcomes:
            if isinstance(outcome, LeftOut):
                left_out[str(outcome)] += 1
            elif isinstance(outcome, BadRow):
                problems.append(Problem(number, outcome.field, outcome.what))
                raws.append(raw)
            else:
                good.append(outcome)
    except TripletError as error:
        raise _named(error, source) from None
    if quarantine is not None:
        _set_aside(quarantine, problems, raws)
    called = name or (str(source) if isinstance(source, str | os.PathLike) else "rows")
    return good, make_report(called, found.name, tally["rows"], good, problems, left_out)


def _set_aside(path: str | os.PathLike[str], problems: Iterable[Problem], raws: Iterable[Any]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        for problem, raw in zip(problems, raws, strict=True):
            row = {"row": problem.row, "field": problem.field, "reason": problem.what, "raw": raw}
            # what broke a row may be no JSON at all: dates from parquet, half a character
            file.write(json.dumps(row, default=repr) + "\n")


def check_file(path: str | os.PathLike[str], *, quarantine: str | os.PathLike[str] | None = None) -> Report:
    """What is in a file of preference data, without using it; see `sift`.

    Args:
        path: a JSONL, JSON or parquet file in any dialect.
        quarantine: see `sift`.

    Returns:
        The `Report`; `report.ok` where every row is sound, `report.lines()` to print.

    Raises:
        TripletError: where the file as a whole cannot be read, or its columns fit no dialect.
        FileNotFoundError: where there is no such file.
    """
    return sift(path, quarantine=quarantine)[1]
