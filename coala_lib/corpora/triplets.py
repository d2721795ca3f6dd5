"""One schema for preference data: TRL's conversational `prompt` / `chosen` / `rejected`, checked before any work.

A triplet is a plain dictionary, so that it goes to and from JSONL, parquet and `datasets` unchanged:
`prompt` is a list of messages that ends with the user's turn, `chosen` and `rejected` are lists of one assistant
message; `conversation_id`, `turn_index` and `source` say where it comes from.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

Message = dict[str, str]


class Triplet(TypedDict):
    """One preference: `chosen` is preferred to `rejected` as the continuation of `prompt`."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    conversation_id: str
    turn_index: int
    source: str


class TripletError(ValueError):
    """A triplet that breaks the schema; the message names row, field and what to do."""


def validate(triplets: Sequence[Triplet]) -> None:
    """Refuse the first triplet that breaks the schema.

    Args:
        triplets: the rows.

    Raises:
        TripletError: naming the row, the field and what is wrong with it.

    Example:
        >>> ask, good = [{"role": "user", "content": "Why?"}], [{"role": "assistant", "content": "Because."}]
        >>> validate([dict(prompt=ask, chosen=good, rejected=[{"role": "assistant", "content": " "}])])
        Traceback (most recent call last):
        ...
        coala_lib.corpora.triplets.TripletError: row 0: field 'rejected' holds an empty message; remove or mend the row
    """
    if not triplets:
        raise TripletError("there are no triplets; give at least one row")
    for row, triplet in enumerate(triplets):
        for field, last in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
            messages = triplet.get(field)
            if not isinstance(messages, list) or not messages:
                raise TripletError(f"row {row}: field {field!r} is missing or no list of messages; see TRL's schema")
            for message in messages:
                if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                    raise TripletError(f"row {row}: field {field!r} needs messages with 'role' and text 'content'")
                if not message["content"].strip():
                    raise TripletError(f"row {row}: field {field!r} holds an empty message; remove or mend the row")
            if messages[-1].get("role") != last:
                raise TripletError(f"row {row}: field {field!r} must end with a {last!r} message")
        if triplet["chosen"] == triplet["rejected"]:
            raise TripletError(f"row {row}: 'chosen' and 'rejected' are the same text; remove the row")


def split(triplets: Iterable[Triplet], held_out: float, seed: int) -> tuple[list[Triplet], list[Triplet]]:
    """Split by conversation, so that no conversation stands on both sides.

    Args:
        triplets: the rows.
        held_out: expected share of conversations in the second part, in (0, 1).
        seed: equal seeds split equally, whatever the order or number of rows.

    Returns:
        (training rows, held-out rows).

    Raises:
        ValueError: where `held_out` is outside (0, 1) or a side stays empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share in (0, 1); got {held_out}")
    sides: tuple[list[Triplet], list[Triplet]] = ([], [])
    for triplet in triplets:
        digest = hashlib.sha256(f"{seed}/{triplet['conversation_id']}".encode()).digest()
        sides[int.from_bytes(digest[:8], "big") < held_out * 2**64].append(triplet)
    if not all(sides):
        raise ValueError("a side of the split is empty; give more conversations or another share")
    return sides


def read_jsonl(path: str | os.PathLike[str]) -> list[Triplet]:
    """Read triplets from a JSONL file, one object a line, and check them all.

    Args:
        path: the file. Columns that are absent are filled: the row number as `conversation_id`, 0 as `turn_index`,
            the file's name as `source`.

    Returns:
        The triplets, in order.

    Raises:
        TripletError: naming the row, where a line is no JSON object or breaks the schema.
        FileNotFoundError: where there is no such file.
    """
    triplets = []
    # only line feeds end a line of JSONL; splitlines() would also cut at separators inside a message
    for row, line in enumerate(Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")):
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise TripletError(f"row {row}: not a JSON object ({error}); write one object a line") from None
        if not isinstance(found, dict):
            raise TripletError(f"row {row}: not a JSON object; write one object a line")
        defaults = {"conversation_id": str(row), "turn_index": 0, "source": Path(path).name}
        triplets.append(defaults | found)
    validate(triplets)
    return triplets
