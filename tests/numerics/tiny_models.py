"""Tiny checkpoints of every family, the same on every machine: configurations as users meet them, weights by formula.

`make parity` shows them to transformers and writes down what it says; the tests show them to our decoder.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from coala_lib.lm.checkpoint import tensor_shapes
from coala_lib.lm.families import read_config

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
CASES = {
    "gpt2": {"model_type": "gpt2"} | GPT2,
    "gpt2-untied": {"model_type": "gpt2", "tie_word_embeddings": False, "n_inner": 40} | GPT2,
    # fields that a file leaves out mean what they mean in transformers: untied, no grouped queries
    "llama-plain": {"model_type": "llama"} | {k: v for k, v in SIZES.items() if k != "num_key_value_heads"},
    "llama3-rope": {"model_type": "llama", "tie_word_embeddings": True, "rope_theta": 5e5, "rope_scaling": LLAMA3}
    | SIZES,
    "llama-linear-rope-biases": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    }
    | SIZES,
    "mistral-window": {"model_type": "mistral", "sliding_window": 7, "rope_theta": 1e6} | SIZES,
    "qwen2-bias": {"model_type": "qwen2", "tie_word_embeddings": True} | SIZES,
    "qwen2-window-above": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    }
    | SIZES,
    "qwen3-head-dim": {
        "model_type": "qwen3",
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    | SIZES,
}
LENGTH = 24


def tokens() -> np.ndarray:
    """Two rows of (2, LENGTH) token ids."""
    return np.random.default_rng(7).integers(0, 61, (2, LENGTH))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights large enough that a wrong mask, position, norm or bias shows."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
    if len(shape) == 1:
        return (1.0 + 0.2 * noise if "norm" in name or "ln_" in name else 0.2 * noise).astype(np.float32)
    return noise * np.float32(0.2 if "proj" in name or "c_" in name else 0.5)


def write(case: str, folder: Path) -> Path:
    """Write one checkpoint; its names come from our map, and `make parity` refuses any that transformers lacks."""
    config = read_config(CASES[case])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CASES[case]))
    tensors = {name: weight(name, shape) for name, shape in tensor_shapes(config).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder
