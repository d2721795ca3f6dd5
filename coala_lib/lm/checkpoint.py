"""Hugging Face checkpoints in and out: `config.json` and safetensors, checked before a tensor is placed.

A checkpoint is a folder; every name, shape and dtype in it is compared with what the decoder needs first,
so that a wrong or truncated file gives one clear sentence instead of a half-loaded model.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from coala_lib._files import replacing
from coala_lib.lm.decoder import Decoder, DecoderConfig


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file and what is wrong with it."""


def tensor_paths(config: DecoderConfig) -> dict[str, tuple[tuple[str | int, ...], bool]]:
    """Hugging Face tensor name -> (path in the decoder's parameters, whether the matrix is transposed)."""
    paths: dict[str, tuple[tuple[str | int, ...], bool]] = {
        "model.embed_tokens.weight": (("embed", "embedding"), False),
        "model.norm.weight": (("norm", "weight"), False),
    }
    homes = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    for index in range(config.num_hidden_layers):
        prefix = f"model.layers.{index}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            paths[f"{prefix}.{norm}.weight"] = (("layers", index, norm, "weight"), False)
        for home, names in homes.items():
            for name in names:
                paths[f"{prefix}.{home}.{name}.weight"] = (("layers", index, name, "kernel"), True)
    if not config.tie_word_embeddings:
        paths["lm_head.weight"] = (("lm_head", "kernel"), True)
    return paths


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no config.json; give the folder of a Hugging Face checkpoint") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{folder / 'config.json'} is not JSON: {error}") from None


def load_decoder(folder: str | os.PathLike[str], dtype: DTypeLike = jnp.float32) -> Decoder:
    """Read a Llama-layout checkpoint.

    Args:
        folder: holds `config.json` and `model.safetensors`.
        dtype: dtype the weights are cast to, tensor by tensor.

    Returns:
        The `Decoder`, in evaluation form.

    Raises:
        CheckpointError: naming the file, for a missing, truncated or foreign file, a missing or surplus tensor,
            or one of the wrong shape.
    """
    folder = Path(folder)
    try:
        config = DecoderConfig.from_json(_read_config(folder))
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
    graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), dtype)))
    wanted = tensor_paths(config)
    flat = dict(nnx.to_flat_state(state))
    file = folder / "model.safetensors"
    try:
        with safe_open(file, framework="numpy") as tensors:
            found = {name: tuple(tensors.get_slice(name).get_shape()) for name in list(tensors.keys())}
            _compare(file, found, {n: _shape(flat[path].get_value().shape, t) for n, (path, t) in wanted.items()})
            for name, (path, transposed) in wanted.items():
                value = tensors.get_tensor(name)
                flat[path] = flat[path].replace(jnp.asarray(value.T if transposed else value, dtype))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing; a checkpoint needs model.safetensors beside config.json") from None
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} is truncated or no safetensors file ({error}); fetch or write it again"
        ) from None
    return nnx.merge(graph, nnx.from_flat_state(flat.items()))


def _shape(shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    return shape[::-1] if transposed else shape


def _compare(file: Path, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    # some exporters write the tied output matrix a second time; it carries nothing new
    surplus = set(found) - set(wanted) - {"lm_head.weight"}
    if missing := sorted(set(wanted) - set(found)):
        raise CheckpointError(
            f"{file} lacks {len(missing)} tensors, first {missing[0]!r}; does config.json belong to it?"
        )
    if surplus:
        raise CheckpointError(f"{file} holds {len(surplus)} unknown tensors, first {sorted(surplus)[0]!r}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(f"{file}: tensor {name!r} has shape {found[name]}, config.json asks for {shape}")


def save_decoder(decoder: Decoder, folder: str | os.PathLike[str], dtype: DTypeLike = jnp.float16) -> Path:
    """Write `config.json` and `model.safetensors` in Hugging Face's layout, each whole or not at all.

    Args:
        decoder: the model.
        folder: made where absent.
        dtype: storage dtype.

    Returns:
        The folder.
    """
    folder, config = Path(folder), decoder.config
    flat = dict(nnx.to_flat_state(nnx.state(decoder)))
    tensors = {}
    for name, (path, transposed) in tensor_paths(config).items():
        value = np.asarray(flat[path].get_value().astype(dtype))
        tensors[name] = np.ascontiguousarray(value.T if transposed else value)
    with replacing(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    named = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"} | fields
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def fingerprint(folder: str | os.PathLike[str], *names: str) -> str:
    """sha256 over the bytes of the named files of a checkpoint, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + (Path(folder) / name).read_bytes())
    return digest.hexdigest()[:16]
