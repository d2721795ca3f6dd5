"""Triplets out, in any dialect: to rows, to files, to whatever trains on them."""

import os
from collections.abc import Iterable
from typing import Any

from coala_lib.corpora.dialect import Dialect
from coala_lib.corpora.dialects import named
from coala_lib.corpora.files import write_rows
from coala_lib.corpora.triplets import BadRow, Triplet, TripletError


def to_rows(triplets: Iterable[Triplet], dialect: str | Dialect = "trl") -> list[dict[str, Any]]:
    """Triplets as rows of a dialect; the opposite of `read_triplets`.

    Args:
        triplets: the rows.
        dialect: its name, or the object.

    Returns:
        The rows, other columns of the triplets beside those of the dialect.

    Raises:
        TripletError: naming the row, where the dialect has no place for what it holds.

    Example:
        >>> roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        >>> triplet = {field: [{"role": role, "content": field.upper()}] for field, role in roles.items()}
        >>> to_rows([triplet], "trl-standard")
        [{'prompt': 'PROMPT', 'chosen': 'CHOSEN', 'rejected': 'REJECTED'}]
    """
    target = named(dialect) if isinstance(dialect, str) else dialect
    rows: list[dict[str, Any]] = []
    for number, triplet in enumerate(triplets):
        try:
            rows += target.write(triplet)
        except BadRow as error:
            raise TripletError(f"row {number}: {error}") from None
    return rows


def write_triplets(path: str | os.PathLike[str], triplets: Iterable[Triplet], dialect: str | Dialect = "trl") -> None:
    """Write triplets in a dialect, whole or not at all.

    Args:
        path: a .jsonl, .json or .parquet file.
        triplets: the rows.
        dialect: its name, or the object.

    Raises:
        TripletError: see `to_rows`; or where the ending is none that is written.
    """
    write_rows(path, to_rows(triplets, dialect))
