"""Four families of checkpoints: their `config.json` to a `DecoderConfig` and back.

The file is read by transformers' own configuration class, so that what it leaves out means what it means there;
sizes are never guessed, and whatever this decoder does not compute is refused by name.
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PretrainedConfig

from coala_lib.lm.config import DecoderConfig, RopeScaling
from coala_lib.lm.layers import ACTIVATIONS

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "max_position_embeddings": "max_position_embeddings",
}
GPT2_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
ROPE_KEYS = "rope_type type rope_theta factor low_freq_factor high_freq_factor original_max_position_embeddings".split()


def read_config(raw: Mapping[str, Any]) -> DecoderConfig:
    """A `config.json` as a `DecoderConfig`.

    Args:
        raw: the file's object.

    Returns:
        The configuration.

    Raises:
        ValueError: one sentence, for another family, a size that is missing or no number, quantised weights, or an
            option that would change the numbers and is not computed here.

    Example:
        >>> sizes = dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        >>> read_config({"model_type": "gpt2"} | sizes).intermediate_size
        128
    """
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        raise ValueError(f"model_type {family!r} is not supported; this decoder reads {', '.join(ARCHITECTURES)}")
    if raw.get("quantization_config"):
        raise ValueError("the weights are quantised; give the checkpoint in float32, float16 or bfloat16")
    sizes = GPT2_SIZES if family == "gpt2" else SIZES
    if lacking := [theirs for theirs in sizes.values() if raw.get(theirs) is None]:
        raise ValueError(f"the configuration lacks {', '.join(lacking)}")
    try:
        # a special token outside the vocabulary is the tokenizer's matter, and transformers would warn of it
        theirs = CONFIG_MAPPING[family].from_dict({k: v for k, v in raw.items() if not k.endswith("_token_id")})
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
        raise ValueError(" ".join(str(error.__cause__ or error).strip('"').split())) from None
    shape = {ours: getattr(theirs, name) for ours, name in sizes.items()}
    if not all(isinstance(size, int) and size > 0 for size in shape.values()):
        raise ValueError(f"the sizes must be positive whole numbers, not {shape}")
    options = _gpt2(theirs) if family == "gpt2" else _llama(theirs)
    if options["hidden_act"] not in ACTIVATIONS:
        raise ValueError(f"hidden_act {options['hidden_act']!r} is not supported; known are {', '.join(ACTIVATIONS)}")
    return DecoderConfig(**shape, **options, family=family, tie_word_embeddings=bool(theirs.tie_word_embeddings))


def _gpt2(theirs: PretrainedConfig) -> dict[str, Any]:
    if not theirs.scale_attn_weights or theirs.scale_attn_by_inverse_layer_idx or theirs.add_cross_attention:
        raise ValueError(
            "scale_attn_weights=false, scale_attn_by_inverse_layer_idx and add_cross_attention are not supported"
        )
    return {
        "intermediate_size": theirs.n_inner or 4 * theirs.n_embd,
        "num_key_value_heads": theirs.n_head,
        "norm_eps": theirs.layer_norm_epsilon,
        "hidden_act": theirs.activation_function,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    }


def _llama(theirs: PretrainedConfig) -> dict[str, Any]:
    family, bias = theirs.model_type, bool(getattr(theirs, "attention_bias", False))
    window, full = getattr(theirs, "sliding_window", None), ()
    if family.startswith("qwen"):
        window = window if theirs.use_sliding_window else None
        if window is not None:
            full = tuple(i for i, kind in enumerate(theirs.layer_types) if kind == "full_attention")
    theta, scaling = _rope(theirs.rope_parameters)
    return {
        "num_key_value_heads": theirs.num_key_value_heads,
        "head_dim": getattr(theirs, "head_dim", None) or 0,
        "norm_eps": theirs.rms_norm_eps,
        "hidden_act": theirs.hidden_act,
        "qkv_bias": bias or family == "qwen2",
        "output_bias": bias,
        "mlp_bias": bool(getattr(theirs, "mlp_bias", False)),
        "qk_norm": family == "qwen3",
        "rope_theta": float(theta),
        "rope_scaling": scaling,
        "sliding_window": window,
        "full_attention": full,
    }


def _rope(rope: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    kind, theta = rope.get("rope_type", "default"), rope["rope_theta"]
    if kind == "default" and set(rope) <= set(ROPE_KEYS):
        return theta, None
    if kind == "dynamic":
        raise ValueError(
            "rope_type 'dynamic' is not supported: its positions depend on the length of the whole text, so a "
            "prompt's states would change with its answer; remove it to read texts up to the original context"
        )
    if kind not in ("linear", "llama3") or not set(rope) <= set(ROPE_KEYS):
        raise ValueError(f"rope_parameters {dict(rope)} are not supported; known are default, linear and llama3")
    values = {name: rope[name] for name in ROPE_KEYS[3:] if rope.get(name) is not None}
    return theta, RopeScaling(kind, **values)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` that transformers and `read_config` read as `config`."""
    named = {"architectures": [ARCHITECTURES[config.family]], "model_type": config.family}
    named["tie_word_embeddings"] = config.tie_word_embeddings
    sizes = GPT2_SIZES if config.is_gpt2 else SIZES
    named |= {theirs: getattr(config, ours) for ours, theirs in sizes.items()}
    if config.is_gpt2:
        own = {"n_inner": config.intermediate_size, "activation_function": config.hidden_act}
        return named | own | {"layer_norm_epsilon": config.norm_eps}
    named |= {
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": config.hidden_act,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
    }
    if (scaling := config.rope_scaling) is not None:
        named["rope_parameters"] |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            named["rope_parameters"] |= {name: getattr(scaling, name) for name in ROPE_KEYS[4:]}
    if config.family == "llama":
        named |= {"attention_bias": config.output_bias, "mlp_bias": config.mlp_bias}
    elif config.family == "mistral":
        named["sliding_window"] = config.sliding_window
    else:
        named |= {"use_sliding_window": config.sliding_window is not None, "sliding_window": config.sliding_window}
        kinds = ("full_attention", "sliding_attention")
        named["layer_types"] = [kinds[config.slides(layer)] for layer in range(config.num_hidden_layers)]
        if config.family == "qwen3":
            named["attention_bias"] = config.output_bias
    return named
