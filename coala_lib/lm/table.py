"""A table on disk whose rows arrive in any order, and which survives being killed.

The file is a safetensors file from the first byte on, allocated at once and filled in place: nothing is gathered in
memory, and finishing is one rename. Beside it stands one byte a row, set after the row is on disk.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors import safe_open

from coala_lib._files import replacing

NAME = "features"
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPES = {code: np.dtype(getattr(jnp, name)) for name, code in CODES.items()}


@dataclass(frozen=True)
class Table:
    """A table that is being written.

    Attributes:
        path: the finished file, `<path>.partial` and `<path>.done` until then.
        rows, dimension: its shape.
        dtype: "float32", "float16" or "bfloat16".
    """

    path: Path
    rows: int
    dimension: int
    dtype: str

    @property
    def _partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    @property
    def _journal(self) -> Path:
        return self.path.with_name(self.path.name + ".done")

    @property
    def _header(self) -> bytes:
        size = self.rows * self.dimension * DTYPES[CODES[self.dtype]].itemsize
        entry = {"dtype": CODES[self.dtype], "shape": [self.rows, self.dimension], "data_offsets": [0, size]}
        text = json.dumps({NAME: entry}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # rows start on a multiple of eight bytes, as memory maps want it
        return len(text).to_bytes(8, "little") + text

    def finished(self) -> bool:
        """Whether the whole file stands; a journal that a kill left behind it is cleared away."""
        if self.path.exists():
            self._journal.unlink(missing_ok=True)
        return self.path.exists()

    def prepare(self) -> Bool[np.ndarray, " n"]:
        """Allocate the file, or find the one of an earlier run.

        Returns:
            (n,) which rows are there already.
        """
        size = len(self._header) + self.rows * self.dimension * DTYPES[CODES[self.dtype]].itemsize
        if self._journal.exists() and self._partial.exists() and self._partial.stat().st_size == size:
            done = np.fromfile(self._journal, np.uint8)
            if len(done) == self.rows:
                return done.astype(bool)
        self._journal.unlink(missing_ok=True)  # first: it must never speak for a new file
        with replacing(self._partial) as temporary, temporary.open("wb") as file:
            file.write(self._header)
            file.truncate(size)
        with replacing(self._journal) as temporary:
            np.zeros(self.rows, np.uint8).tofile(temporary)
        return np.zeros(self.rows, bool)

    def put(self, rows: Int[np.ndarray, " b"], values: Float[np.ndarray, "b d"]) -> None:
        """Write rows, then say so.

        Raises:
            ValueError: naming the row, where a value is not finite or leaves the range of the dtype.
        """
        with np.errstate(over="ignore"):  # said below, with the row
            stored = values.astype(DTYPES[CODES[self.dtype]])
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            at = int(np.flatnonzero(~finite)[0])
            why = "leave the range of float16; store bfloat16 or float32" if np.isfinite(values[at]).all() else ""
            raise ValueError(f"row {rows[at]}: the features {why or 'are NaN or infinite; is the checkpoint whole?'}")
        offset, width = len(self._header), stored.dtype.itemsize * self.dimension
        with self._partial.open("r+b") as file:
            for row, value in zip(rows.tolist(), stored, strict=True):
                file.seek(offset + row * width)
                file.write(value.tobytes())
            file.flush()
            os.fsync(file.fileno())  # the journal must not be ahead of the rows, not even when the power fails
        with self._journal.open("r+b") as file:
            for row in rows.tolist():
                file.seek(row)
                file.write(b"\1")

    def finish(self) -> None:
        """Give the file its name."""
        os.replace(self._partial, self.path)
        self._journal.unlink()


def map_table(path: Path) -> Float[np.ndarray, "n d"]:
    """Map a table into memory; pages are read as they are used, and changes stay in memory (copy on write).

    Raises:
        OSError, SafetensorError, KeyError: where there is no whole safetensors file with this tensor.
    """
    with safe_open(path, framework="numpy") as file:  # compares header and size, so that no map reaches past the end
        file.get_slice(NAME)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[NAME]
    start = 8 + length + entry["data_offsets"][0]
    return np.memmap(path, DTYPES[entry["dtype"]], "c", start, tuple(entry["shape"]))
