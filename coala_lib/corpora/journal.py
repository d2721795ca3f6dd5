"""A file of rows that survives a kill: whole lines, appended one at a time by one run, gone on with by the next."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coala_lib._files import replacing


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other runs from writing to the same file; the lock falls with the process that holds it.

    Raises:
        ValueError: where another run is writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another run is writing to {path}; wait for it, or choose another file") from None


def resume(path: Path, terms: Mapping[str, Any], name: str) -> set[str]:
    """Open a file for a run, or go on with it where it was written on the same terms.

    Half a last line, left by a kill, is cut off.

    Args:
        path: the JSONL file.
        terms: what all its rows have in common; kept beside it in `<path>.plan.json`.
        name: the field that names a row.

    Returns:
        The names of the rows that are there.

    Raises:
        ValueError: where the file was written on other terms, or a row is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> resume(path, {"seed": 0}, "id")
        set()
        >>> append(path, {"id": "a"})
        >>> resume(path, {"seed": 0}, "id")
        {'a'}
    """
    beside = Path(f"{path}.plan.json")
    wanted = json.loads(json.dumps(terms))
    size = path.stat().st_size if path.exists() else 0
    if not size:
        with replacing(beside) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        return set()
    try:
        found = dict(json.loads(beside.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{path} has no readable {beside.name} beside it; choose another file") from None
    if differs := [key for key in wanted if found.get(key) != wanted[key]]:
        raise ValueError(f"{path} was written on other terms ({', '.join(differs)} differ); choose another file")
    names, whole = set(), 0
    with path.open("rb") as lines:
        for row, line in enumerate(lines):
            if not line.endswith(b"\n"):
                break
            try:
                names.add(str(json.loads(line)[name]))
            except (ValueError, LookupError, TypeError):
                raise ValueError(f"{path}: row {row} is no object with a {name}; remove the row") from None
            whole += len(line)
    if whole < size:
        os.truncate(path, whole)
    return names


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row as a whole line, in one write.

    Raises:
        OSError: where the disk took only part of it; the next run cuts that part off.
    """
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        if file.write(line) != len(line):
            raise OSError(f"{path}: the disk took only part of a row; make room and run again")
