"""Safetensors of any number of files, read and written one tensor at a time.

What the headers say is checked before a byte of a tensor is read; a file is written as its tensors come, so that
neither way holds a second copy of the model.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

INDEX = "model.safetensors.index.json"
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of one or more files, by name; headers are read, data is not.

    Attributes:
        files: tensor -> file that holds it.
        shapes: tensor -> shape.
    """

    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor, file by file; only the one in hand is in memory."""
        for file in sorted(set(self.files.values())):
            for name in (name for name, home in self.files.items() if home == file):
                # opened anew for each tensor: pages of the mapping that were read would stay until it is closed
                with safe_open(file, framework="numpy") as opened:
                    yield name, opened.get_tensor(name)


def read_json(file: Path, why: str) -> dict:
    """A JSON object from a file of a checkpoint.

    Raises:
        CheckpointError: where it is absent (saying `why` it is needed), no JSON, or no object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{file.parent} holds no {file.name}; {why}") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is no JSON object")
    return found


def open_files(files: Mapping[str, Path] | Path) -> Tensors:
    """Read the headers.

    Args:
        files: tensor -> file, as an index names them; or one file, of which all tensors are taken.

    Returns:
        The `Tensors`.

    Raises:
        CheckpointError: naming the file, where one is missing, truncated, of another dtype, or lacks a tensor.
    """
    homes, shapes = {} if isinstance(files, Path) else dict(files), {}
    for file in [files] if isinstance(files, Path) else sorted(set(files.values())):
        try:
            with safe_open(file, framework="numpy") as opened:
                held = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
                wanted = [name for name, home in homes.items() if home == file] or list(held)
                if lacking := [name for name in wanted if name not in held]:
                    raise CheckpointError(
                        f"{file} lacks {lacking[0]!r}, which {INDEX} places there; fetch all shards of one revision"
                    )
                for name in wanted:
                    if held[name].get_dtype() not in DTYPES:
                        raise CheckpointError(
                            f"{file}: tensor {name!r} is {held[name].get_dtype()}; readable are {', '.join(DTYPES)}"
                        )
                    homes[name], shapes[name] = file, tuple(held[name].get_shape())
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing; fetch or write the checkpoint again") from None
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} is truncated or no safetensors file ({error}); fetch or write it again"
            ) from None
    return Tensors(homes, shapes)


def open_model(folder: Path) -> Tensors:
    """The tensors of a checkpoint folder: `model.safetensors`, or the shards that its index names."""
    if (folder / "model.safetensors").exists():
        return open_files(folder / "model.safetensors")
    if not (folder / INDEX).exists():
        if any(folder.glob("*.bin")):
            raise CheckpointError(f"{folder} holds pickled weights only, which may run code; get its safetensors")
        raise CheckpointError(
            f"{folder / 'model.safetensors'} is missing; a checkpoint needs it, or {INDEX} with shards"
        )
    places = read_json(folder / INDEX, "").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{folder / INDEX} has no weight_map; fetch it again")
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{folder / INDEX} places {name!r} in {file!r}, which is no file name")
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder / INDEX} names {file}, which is missing; fetch the other shards too")
    return open_files({name: folder / file for name, file in places.items()})


def write_file(
    file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, value: Callable[[str], np.ndarray]
) -> None:
    """Write a safetensors file whose tensors come one by one.

    Args:
        file: where to; its folder exists.
        shapes: tensor -> shape.
        dtype: of all tensors.
        value: makes the tensor of a name when its turn comes.
    """
    code = {theirs: ours for ours, theirs in DTYPES.items()}[dtype.name]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        begin, end = end, end + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of eight
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            out.write(np.ascontiguousarray(value(name), dtype).view(np.uint8).data)


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files move into `folder` when all are written, and vanish when one fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        yield Path(temporary)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, folder / file.name)
