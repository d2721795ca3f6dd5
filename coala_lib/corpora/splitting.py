"""Apart and once: splits that leak nothing, and duplicates set aside.

Two rows of one conversation share text; so do two conversations that open with the same question. `split` keeps
conversations whole; `split_by_prompt` keeps equal prompts together too, at the price of bigger groups.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coala_lib.corpora.triplets import FIELDS, Triplet, split


def normalise(text: str) -> str:
    """Text with compatible characters, case and white space made equal.

    Example:
        >>> normalise("  Ｗhy \\n not? ")
        'why not?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _key(triplet: Triplet, field: str, normalised: bool) -> str:
    """The messages of a column as one short string; equal strings mean equal content."""
    tidy = normalise if normalised else str
    said = json.dumps([[message["role"], tidy(message["content"])] for message in triplet[field]])
    return hashlib.sha256(said.encode()).hexdigest()


def prompt_keys(triplets: Iterable[Triplet]) -> list[str]:
    """One string a triplet, equal where the prompts are equal, case, white space and character variants aside."""
    return [_key(triplet, "prompt", normalised=True) for triplet in triplets]


def split_by_prompt(triplets: Iterable[Triplet], held_out: float, seed: int) -> tuple[list[Triplet], list[Triplet]]:
    """Split so that neither a conversation nor a (normalised) prompt stands on both sides.

    Conversations that share a prompt, directly or through others, form one group; a group goes to one side as a whole,
    decided by its smallest conversation id. Where nothing is shared this is `split`.

    Args:
        triplets: the rows.
        held_out: expected share of groups in the second part, in (0, 1).
        seed: equal seeds split equal rows equally, whatever their order.

    Returns:
        (training rows, held-out rows).

    Raises:
        ValueError: where `held_out` is outside (0, 1) or a side stays empty, as when one prompt links all rows.

    Example:
        >>> def row(name, asked):
        ...     return Triplet(conversation_id=name, prompt=[{"role": "user", "content": asked}])
        >>> rows = [row(str(i), f"question {i // 2}") for i in range(40)]
        >>> sides = [{r["prompt"][0]["content"] for r in side} for side in split_by_prompt(rows, 0.3, seed=0)]
        >>> sides[0] & sides[1]
        set()
    """
    rows = list(triplets)
    parent: dict[str, str] = {row["conversation_id"]: row["conversation_id"] for row in rows}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    first: dict[str, str] = {}
    for row, prompt in zip(rows, prompt_keys(rows), strict=True):
        name = row["conversation_id"]
        smaller, larger = sorted((root(name), root(first.setdefault(prompt, name))))
        parent[larger] = smaller
    return split(rows, held_out, seed, groups=[root(row["conversation_id"]) for row in rows])


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one.

    Attributes:
        row: its number, from 0.
        first: the number of the row it repeats.
        reversed: whether it states the opposite preference: a contradiction rather than a repetition.
    """

    row: int
    first: int
    reversed: bool = False


def find_duplicates(triplets: Sequence[Triplet], normalised: bool = False) -> list[Duplicate]:
    """Rows that repeat prompt, chosen and rejected of an earlier row, or its two sides the other way round.

    Args:
        triplets: the rows.
        normalised: whether case, white space and character variants count as equal.

    Returns:
        One `Duplicate` a row that repeats or contradicts an earlier one, in order.
    """
    seen: dict[tuple[str, ...], int] = {}
    found = []
    for number, triplet in enumerate(triplets):
        prompt, chosen, rejected = key = tuple(_key(triplet, field, normalised) for field in FIELDS)
        if key in seen:
            found.append(Duplicate(number, seen[key]))
        elif (turned := seen.get((prompt, rejected, chosen))) is not None:
            found.append(Duplicate(number, turned, reversed=True))
        seen.setdefault(key, number)
    return found


def deduplicate(triplets: Sequence[Triplet], normalised: bool = False) -> tuple[list[Triplet], list[Duplicate]]:
    """Keep the first of equal rows; rows that contradict an earlier one stay, for somebody has to decide.

    Args:
        triplets: the rows.
        normalised: see `find_duplicates`.

    Returns:
        (rows kept, the duplicates removed and the contradictions found).
    """
    found = find_duplicates(triplets, normalised)
    gone = {duplicate.row for duplicate in found if not duplicate.reversed}
    return [triplet for number, triplet in enumerate(triplets) if number not in gone], found
