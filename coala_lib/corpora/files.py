"""Rows in and out of files: JSONL, JSON (both also gzipped), parquet, and `datasets`.

A line that is no row comes out as a `BadRow` beside the good ones, so that the caller decides whether to stop or to
count; a file that cannot be read at all raises one sentence that names it.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coala_lib._files import replacing
from coala_lib.corpora.triplets import BadRow, TripletError

if TYPE_CHECKING:
    import datasets

Row = Mapping[str, Any]
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_UTF8_BOM = b"\xef\xbb\xbf"


def read_rows(source: str | os.PathLike[str] | Iterable[Any]) -> Iterator[tuple[int, Any, Row | BadRow]]:
    """Stream the rows of a file, a `datasets.Dataset` or any iterable of mappings.

    Args:
        source: a path with one of the endings above, or the rows themselves.

    Yields:
        (row number from 0, what stands there, the row or the `BadRow` that says why it is none).

    Raises:
        FileNotFoundError: where there is no such file.
        TripletError: where the file as a whole cannot be read, or holds no row.

    Example:
        >>> [row for _, _, row in read_rows([{"prompt": "a"}])]
        [{'prompt': 'a'}]
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        ending = _ending(path)
        reader = _parquet if ending == ".parquet" else _jsonl if ending.startswith(".jsonl") else _json
        name, rows = f"{path}", reader(path)
    else:
        name, rows = "the source", ((row, _object(row)) for row in source)
    number = -1
    for number, (raw, row) in enumerate(rows):
        yield number, raw, row
    if number < 0:
        raise TripletError(f"{name}: holds no rows; give at least one")


def _ending(path: Path) -> str:
    """The file's ending, once its first bytes agree with it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.is_dir():
        raise TripletError(f"{path}: is a folder; give one file ({', '.join(ENDINGS)})")
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), None)
    if ending is None:
        raise TripletError(f"{path}: has an ending nobody reads; the endings are {', '.join(ENDINGS)}")
    with path.open("rb") as file:
        first = file.read(4)
    if not first:
        raise TripletError(f"{path}: is empty; give at least one row")
    if (first == b"PAR1") != (ending == ".parquet"):
        is_it = "parquet data" if first == b"PAR1" else "no parquet data"
        raise TripletError(f"{path}: holds {is_it} and does not fit its ending; rename or rewrite it")
    if (first[:2] == b"\x1f\x8b") != ending.endswith(".gz"):
        is_it = "gzipped" if first[:2] == b"\x1f\x8b" else "not gzipped"
        raise TripletError(f"{path}: is {is_it} and does not fit its ending; rename or rewrite it")
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TripletError(f"{path}: is UTF-16 text; save it as UTF-8")
    return ending


def _lines(path: Path) -> Iterator[bytes]:
    """Lines, cut at line feeds alone: separators inside a message end nothing."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(file):
                yield line.removeprefix(_UTF8_BOM) if number == 0 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TripletError(f"{path}: the gzipped data are damaged ({error}); fetch the file again") from None


def _jsonl(path: Path) -> Iterator[tuple[Any, Row | BadRow]]:
    blank = 0
    for number, line in enumerate(_lines(path)):
        if not line.strip():
            blank += 1
            continue
        for _ in range(blank):  # blank lines at the end of a file are no rows; those between rows are
            yield "", BadRow("", "is a blank line; remove it")
        blank = 0
        if number == 0 and line.lstrip().startswith(b"["):
            raise TripletError(f"{path}: holds a JSON array; write one object a line, or name the file .json")
        yield line.decode(errors="backslashreplace"), _object(_parse(line))


def _json(path: Path) -> Iterator[tuple[Any, Row | BadRow]]:
    found = _parse(b"".join(_lines(path)))
    if isinstance(found, BadRow):
        raise TripletError(f"{path}: {found}; a .json file holds one array of objects, a .jsonl file an object a line")
    if not isinstance(found, list):
        raise TripletError(f"{path}: holds no array of objects; write [{{...}}, ...], or one object a line as .jsonl")
    yield from ((row, _object(row)) for row in found)


def _parquet(path: Path) -> Iterator[tuple[Any, Row | BadRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from ((row, row) for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise TripletError(f"{path}: cannot be read as parquet ({reason}); fetch or write the file again") from None


def _object(found: Any) -> Row | BadRow:
    if isinstance(found, Mapping | BadRow):
        return found
    return BadRow("", "not a JSON object; write one object a line")


def _parse(line: bytes) -> Any:
    """JSON by the letter: no repeated keys, no NaN."""
    try:
        return json.loads(line.strip().decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        return BadRow(
            "", f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); save the file as UTF-8"
        )
    except RecursionError:
        return BadRow("", "not a JSON object that can be read: it is nested too deeply; flatten it")
    except BadRow as error:
        return error
    except ValueError as error:
        if b"\r" in line.strip() and b"\n" not in line.strip():
            return BadRow("", "not a JSON object: lines end in carriage returns; save the file with line feeds")
        why = (
            f"{error.msg.removesuffix(' at')} at character {error.pos}"
            if isinstance(error, json.JSONDecodeError)
            else str(error)
        )
        return BadRow("", f"not a JSON object ({why}); write one object a line")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow(f"{twice:.40}", "stands twice in one object; keep one")
    return found


def _refuse(constant: str) -> Any:
    raise BadRow("", f"not JSON: it holds {constant}; write null or a number")


def _columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Rows as columns over all names that occur; what a row lacks is null."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def write_rows(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write rows whole or not at all, in the format of the path's ending.

    Args:
        path: a file with one of the endings above; gzip only for reading.
        rows: JSON-like mappings.

    Raises:
        TripletError: where the ending is none that is written.
    """
    target = Path(path)
    if target.suffix not in (".jsonl", ".json", ".parquet"):
        raise TripletError(f"{target}: has an ending nobody writes; the endings are .jsonl, .json, .parquet")
    with replacing(target) as temporary:
        if target.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table(_columns(rows)), temporary)
        elif target.suffix == ".json":
            temporary.write_text(json.dumps(list(rows), ensure_ascii=False, allow_nan=False), encoding="utf-8")
        else:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def to_dataset(rows: Iterable[Row]) -> "datasets.Dataset":
    """Rows as a `datasets.Dataset`, over all columns that occur."""
    import datasets

    return datasets.Dataset.from_dict(_columns(rows))
