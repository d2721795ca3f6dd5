"""Hugging Face checkpoints in and out: `config.json` and safetensors, checked before a tensor is placed.

A checkpoint is a folder; every name, shape and dtype in it is compared with what the decoder needs first,
so that a wrong or truncated file gives one clear sentence instead of a half-loaded model.
Tensors pass through memory one at a time, straight to their place on a device or on several.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder, abstract_decoder
from coala_lib.lm.families import read_config, write_config
from coala_lib.lm.names import Place, base_prefix, tensor_paths
from coala_lib.lm.partition import sharding_of
from coala_lib.lm.shards import INDEX, CheckpointError, open_model, read_json, staging, write_file

# exporters write these too, and they carry nothing: masks and frequencies that follow from the configuration
DERIVED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def load_config(folder: str | os.PathLike[str]) -> DecoderConfig:
    """The configuration of a checkpoint folder.

    Raises:
        CheckpointError: one sentence that names the file.
    """
    file = Path(folder) / "config.json"
    try:
        return read_config(read_json(file, "give the folder of a Hugging Face checkpoint"))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from None


def _place(entry: tuple[Place, bool], scan: bool) -> tuple[Place, int | None, bool]:
    """(path in the parameters, layer within a stack or None, whether the matrix is transposed)."""
    path, transposed = entry
    if scan and path[0] == "layers":
        return (path[0], *path[2:]), path[1], transposed
    return path, None, transposed


def tensor_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face tensor name -> shape as stored there.

    Example:
        >>> tensor_shapes(DecoderConfig(61, 32, 48, 1, 4, 2, 128))["model.layers.0.mlp.up_proj.weight"]
        (48, 32)
    """
    # every layer has the shapes of the first
    flat = dict(nnx.to_flat_state(nnx.state(abstract_decoder(replace(config, num_hidden_layers=1)))))
    shapes = {}
    for name, (path, transposed) in tensor_paths(config).items():
        shape = flat[(path[0], 0, *path[2:]) if path[0] == "layers" else path].get_value().shape
        shapes[name] = shape[::-1] if transposed else shape
    return shapes


@partial(jax.jit, donate_argnums=0)
def _set(stack: jax.Array, value: jax.Array, at: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, value, at, axis=0)


def load_decoder(
    folder: str | os.PathLike[str],
    dtype: DTypeLike = jnp.float32,
    *,
    scan: bool = False,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> Decoder:
    """Read a checkpoint of one of the families.

    Args:
        folder: holds `config.json` and `model.safetensors` or shards with their index.
        dtype: dtype the weights are cast to, tensor by tensor.
        scan, remat: see `Decoder`.
        mesh: devices to spread the weights over (`partition.py`); each receives its part only.

    Returns:
        The `Decoder`.

    Raises:
        CheckpointError: naming the file, for a missing, truncated or foreign file, a missing or surplus tensor,
            one of the wrong shape or dtype, or one with a value that is not finite.
    """
    folder = Path(folder)
    config = load_config(folder)
    found = open_model(folder)
    graph, state = nnx.split(abstract_decoder(config, dtype, scan=scan, remat=remat))
    flat, wanted = dict(nnx.to_flat_state(state)), tensor_paths(config)
    ours = _compare(folder, config, found.shapes, tensor_shapes(config))
    for theirs, value in found.read():
        if theirs not in ours:
            continue
        path, at, transposed = _place(wanted[ours[theirs]], scan)
        with np.errstate(over="ignore"):  # the next line sees what overflowed
            value = (value.T if transposed else value).astype(dtype)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{found.files[theirs]}: {theirs!r} is not finite as {jnp.dtype(dtype).name}")
        # waiting here keeps no more than one tensor on its way
        array = jax.block_until_ready(jax.device_put(value, sharding_of(path, value.shape, mesh)))
        if at is not None:
            if not isinstance(stack := flat[path].get_value(), jax.Array):
                stack = jnp.zeros(stack.shape, dtype, device=sharding_of(path, stack.shape, mesh))
            array = _set(stack, array, at)
        flat[path] = flat[path].replace(array)
    return nnx.merge(graph, nnx.from_flat_state(flat.items()))


def _compare(
    folder: Path, config: DecoderConfig, found: Mapping[str, object], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Refuse what does not fit; otherwise tensor name in the file -> name in `tensor_paths`."""
    # a file of the model without its output matrix leaves out the prefix that all its names would share
    prefix = base_prefix(config)
    bare = not any(name.startswith(prefix) for name in found)
    ours = {name: prefix + name if bare and prefix + name in wanted else name for name in found}
    if missing := sorted(set(wanted) - set(ours.values())):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} tensors, first {missing[0]!r}; does config.json belong to it?"
        )
    # some exporters write the tied output matrix a second time; it carries nothing new
    surplus = sorted(set(ours.values()) - set(wanted) - {"lm_head.weight"})
    if surplus := [name for name in surplus if not name.endswith(DERIVED)]:
        raise CheckpointError(
            f"{folder} holds {len(surplus)} unknown tensors, first {surplus[0]!r}; does config.json belong to it?"
        )
    for theirs, name in ours.items():
        if name in wanted and found[theirs] != wanted[name]:
            raise CheckpointError(
                f"{folder}: tensor {theirs!r} has shape {found[theirs]}, config.json asks for {wanted[name]}"
            )
    return {theirs: name for theirs, name in ours.items() if name in wanted}


def save_decoder(
    decoder: Decoder,
    folder: str | os.PathLike[str],
    dtype: DTypeLike = jnp.float16,
    *,
    shard_bytes: int = 5_000_000_000,
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write `config.json` and safetensors in Hugging Face's layout; a failed save leaves the old checkpoint.

    Args:
        decoder: the model.
        folder: made where absent.
        dtype: storage dtype.
        shard_bytes: a file holds no more than this, unless one tensor does; several files get an index.
        more: further entries of `config.json`, such as the ids of special tokens.

    Returns:
        The folder.

    Raises:
        ValueError: where the decoder carries adapters (merge them, or save them apart).
    """
    folder, config, dtype = Path(folder), decoder.config, jnp.dtype(dtype)
    if nnx.to_flat_state(nnx.state(decoder, nnx.LoRAParam)):
        raise ValueError("the decoder carries adapters: save merge_lora(decoder), or the adapters by save_adapter")
    flat, wanted = dict(nnx.to_flat_state(nnx.state(decoder))), tensor_paths(config)

    def value(name: str) -> np.ndarray:
        path, at, transposed = _place(wanted[name], decoder.scan)
        array = flat[path].get_value()
        found = np.asarray((array if at is None else array[at]).astype(dtype))
        return found.T if transposed else found

    parts: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in tensor_shapes(config).items():
        filled = sum(int(np.prod(other)) for other in parts[-1].values())
        if parts[-1] and (filled + int(np.prod(shape))) * dtype.itemsize > shard_bytes:
            parts.append({})
        parts[-1][name] = shape
    files = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    files = files if len(parts) > 1 else ["model.safetensors"]
    named = write_config(config) | {"dtype": dtype.name} | dict(more or {})
    with staging(folder) as new:
        (new / "config.json").write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for file, shapes in zip(files, parts, strict=True):
            write_file(new / file, shapes, dtype, value)
        if len(parts) > 1:
            places = {name: file for file, shapes in zip(files, parts, strict=True) for name in shapes}
            size = dtype.itemsize * sum(int(np.prod(shape)) for shapes in parts for shape in shapes.values())
            index = {"metadata": {"total_size": size}, "weight_map": places}
            (new / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    # files of an earlier save with another number of shards would be read first, or by others
    for old in {*folder.glob("model*.safetensors"), *folder.glob(INDEX)}:
        if old.name not in files and not (len(parts) > 1 and old.name == INDEX):
            old.unlink()
    return folder


def model_files(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the files that make the model: its configuration and its weights, in one file or in shards."""
    weights = {file.name for file in open_model(Path(folder)).files.values()}
    return "config.json", *sorted(weights)


def fingerprint(folder: str | os.PathLike[str], *names: str) -> str:
    """sha256 over the bytes of the named files of a checkpoint, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode())
        with (Path(folder) / name).open("rb") as file:
            while piece := file.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()[:16]
