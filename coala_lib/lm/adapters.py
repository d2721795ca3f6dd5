"""Adapters in PEFT's format, in and out: `adapter_config.json` and `adapter_model.safetensors`.

PEFT's matrices stand output first: lora_A (r, in) and lora_B (out, r), the transposes of `lora.py`'s A and B.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.lora import LoraConfig, LoraLinear, add_lora, target_modules
from coala_lib.lm.shards import CheckpointError, open_files, read_json, staging, write_file

PREFIX, CONFIG, WEIGHTS = "base_model.model.", "adapter_config.json", "adapter_model.safetensors"
# options of PEFT that change the numbers; an adapter that uses one is refused
UNSUPPORTED = (
    "use_dora rank_pattern alpha_pattern modules_to_save layers_to_transform layer_replication target_parameters "
    "lora_bias use_qalora alora_invocation_tokens"
).split()


def _home(decoder: Decoder, place: tuple[str | int, ...]) -> tuple[LoraLinear, int | None]:
    """An adapted map, and the number of its layer where layers are stacked."""
    _, layer, name = place
    return (getattr(decoder.layers, name), layer) if decoder.scan else (getattr(decoder.layers[layer], name), None)


def save_adapter(decoder: Decoder, folder: str | os.PathLike[str], base: str = "") -> Path:
    """Write a model's adapters; PEFT's `PeftModel.from_pretrained` reads them.

    Args:
        decoder: a model with adapters.
        folder: made where absent; a failed save leaves the old adapter.
        base: Hub id or folder of the frozen model, for other programs.

    Returns:
        The folder.

    Raises:
        ValueError: where the model has no adapters.
    """
    config = decoder.lora
    if config is None:
        raise ValueError("the decoder has no adapters to save")
    values = {}
    for name, place in target_modules(decoder, config.targets).items():
        linear, at = _home(decoder, place)
        for ours, theirs in (("a", "lora_A"), ("b", "lora_B")):
            factor = np.asarray(getattr(linear, ours)[...], np.float32)
            values[f"{PREFIX}{name}.{theirs}.weight"] = (factor if at is None else factor[at]).T
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(config.targets),
        "bias": "none",
        "fan_in_fan_out": decoder.config.is_gpt2,
        "inference_mode": True,
    }
    folder = Path(folder)
    with staging(folder) as new:
        (new / CONFIG).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        shapes = {name: value.shape for name, value in values.items()}
        write_file(new / WEIGHTS, shapes, np.dtype("float32"), values.__getitem__)
    return folder


def read_adapter_config(folder: Path) -> LoraConfig:
    """What `adapter_config.json` says, refused where it asks for more than LoRA on linear maps."""
    raw = read_json(folder / CONFIG, "give the folder of a PEFT adapter")
    if raw.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder / CONFIG}: peft_type {raw.get('peft_type')!r} is not supported, only 'LORA'")
    used = [name for name in UNSUPPORTED if raw.get(name)] + ["bias"] * (raw.get("bias", "none") != "none")
    if used:
        raise CheckpointError(f"{folder / CONFIG}: {', '.join(used)} is not supported")
    rank, targets = raw.get("r"), raw.get("target_modules")
    if not isinstance(rank, int) or not isinstance(targets, list) or "lora_alpha" not in raw:
        raise CheckpointError(f"{folder / CONFIG} must give r, lora_alpha and target_modules, a list of names")
    # rank-stabilised adapters are scaled by alpha / sqrt(r)
    alpha = float(raw["lora_alpha"]) * (rank**0.5 if raw.get("use_rslora") else 1.0)
    try:
        return LoraConfig(rank, alpha, tuple(name.rpartition(".")[2] for name in targets))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None


def load_adapter(decoder: Decoder, folder: str | os.PathLike[str]) -> Decoder:
    """Put a PEFT adapter on a model.

    Args:
        decoder: the frozen model it was trained on; not changed.
        folder: holds the adapter's two files.

    Returns:
        The adapted model.

    Raises:
        CheckpointError: naming the file, for a damaged one, another kind of adapter, or one of another model.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    try:
        wanted = target_modules(decoder, config.targets)
        adapted = add_lora(decoder, config, jax.random.key(0))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    found = open_files(folder / WEIGHTS)
    places = {
        f"{PREFIX}{name}.{theirs}.weight": (place, ours)
        for name, place in wanted.items()
        for theirs, ours in (("lora_A", "a"), ("lora_B", "b"))
    }
    if strange := sorted(set(places) ^ set(found.files)):
        verb = "lacks" if strange[0] in places else "holds the unknown"
        raise CheckpointError(f"{folder / WEIGHTS} {verb} {strange[0]!r}; is it an adapter of this model?")
    for name, value in found.read():
        place, factor = places[name]
        linear, at = _home(adapted, place)
        parameter = getattr(linear, factor)
        old = parameter[...]
        if value.shape != (shape := old.shape[at is not None :][::-1]):
            raise CheckpointError(f"{folder / WEIGHTS}: {name!r} has shape {value.shape}, this model needs {shape}")
        if not np.isfinite(new := value.T.astype(np.float32)).all():
            raise CheckpointError(f"{folder / WEIGHTS}: {name!r} is not finite")
        parameter[...] = jnp.asarray(new) if at is None else old.at[at].set(new)
    return adapted
