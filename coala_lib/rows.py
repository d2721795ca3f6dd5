"""Rows through a function, from a file to JSONL: checked before any work, written as they come, resumed where they end.

The output repeats each row with its results, so a run that was killed can tell its own lines from another run's.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coala_lib.corpora.files import read_rows

CHUNK = 64
Row = Mapping[str, Any]


def process_rows(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    check: Callable[[Row], None],
    work: Callable[[int, list[Row]], list[dict]],
    stamp: Mapping[str, Any],
    desc: str,
) -> tuple[int, int]:
    """Write every row of a file with its results.

    Args:
        source: JSONL, JSON or parquet.
        out: JSONL. A run that was stopped goes on after its last whole chunk of 64 rows.
        check: raises `ValueError` for a row that cannot be worked on; called for all rows first.
        work: (number of the first row, rows of a chunk) to one result a row.
        stamp: what the results depend on; it goes into every line, and a line with another stamp stops the run.
        desc: of the progress bar.

    Returns:
        (rows of the file, rows that were there already).

    Raises:
        ValueError: naming the row that is no row, or the line of `out` that is another run's.
    """
    total = 0
    for number, _, row in read_rows(source):
        try:
            if isinstance(row, Exception):
                raise ValueError(str(row))
            check(row)
        except ValueError as error:
            raise ValueError(f"{source}: row {number}: {error}") from None
        total += 1
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    done, size = _standing(out, source, stamp)
    with out.open("ab") as file, tqdm(total=total, initial=done, unit="row", desc=desc) as bar:
        file.truncate(size)
        left = (row for number, _, row in read_rows(source) if number >= done)
        for start in range(done, total, CHUNK):
            rows = list(islice(left, CHUNK))
            results = work(start, rows)
            for row, found in zip(rows, results, strict=True):
                file.write(json.dumps({**row, **found, **stamp, "input": _digest(row)}).encode() + b"\n")
            file.flush()
            bar.update(len(rows))
    return total, done


def _digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def _standing(out: Path, source: str | os.PathLike[str], stamp: Mapping[str, Any]) -> tuple[int, int]:
    """(rows, bytes) of the whole chunks in `out`, once every line has been recognised."""
    if not out.exists():
        return 0, 0
    done, size, seen = 0, 0, 0
    with out.open("rb") as file:
        # rows first: zip would swallow a line that has no row
        for (number, _, row), line in zip(read_rows(source), file, strict=False):
            if not line.endswith(b"\n"):  # a kill in the middle of a line
                break
            try:
                found = json.loads(line)
                known = found["input"] == _digest(row) and all(found[name] == stamp[name] for name in stamp)
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                raise ValueError(f"{out}: line {number + 1} is of another run or other rows; give another --out")
            seen += len(line)
            if (number + 1) % CHUNK == 0:
                done, size = number + 1, seen
        if file.readline().strip():
            raise ValueError(f"{out}: it holds more rows than {source}; give another --out")
    return done, size


def responses_of(row: Mapping) -> list:
    """The texts of a row, or a sentence that says what it lacks."""
    check_prompt(row)
    for kind, names in (("pair", ("chosen", "rejected")), ("one", ("response",)), ("many", ("responses",))):
        if all(row.get(name) for name in names):
            return list(row["responses"]) if kind == "many" else [row[name] for name in names]
    raise ValueError("it needs 'response', 'responses', or 'chosen' and 'rejected', none of them empty")


def check_prompt(row: Mapping) -> None:
    """Refuse a row without a prompt."""
    if not row.get("prompt"):
        raise ValueError("it needs a 'prompt' that is not empty")


def with_rewards(row: Mapping, rewards: list[float]) -> dict:
    """The results of a row; several responses are ranked, best first."""
    if row.get("chosen") and row.get("rejected"):
        chosen, rejected = rewards
        return {"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected}
    if row.get("response"):
        return {"reward": rewards[0]}
    order = sorted(range(len(rewards)), key=lambda k: -rewards[k])
    return {"rewards": rewards, "ranking": order, "best": row["responses"][order[0]]}
