"""Hugging Face's names of the tensors, and where each one stands in the decoder's parameters."""

from coala_lib.lm.config import DecoderConfig

Place = tuple[str | int, ...]

# module of ours -> where Hugging Face keeps it within a layer
LLAMA = {
    "input_layernorm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "post_attention_layernorm": "post_attention_layernorm",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}
GPT2 = {
    "input_layernorm": "ln_1",
    "qkv_proj": "attn.c_attn",
    "o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "up_proj": "mlp.c_fc",
    "down_proj": "mlp.c_proj",
}


def base_prefix(config: DecoderConfig) -> str:
    """What stands before every name but the output matrix's; files of the model without its head leave it out."""
    return "transformer." if config.is_gpt2 else "model."


def linear_modules(config: DecoderConfig) -> dict[str, Place]:
    """Hugging Face's names of the linear maps inside the layers -> where they stand in the decoder.

    Example:
        >>> config = DecoderConfig(61, 32, 48, 1, 4, 2, 128)
        >>> linear_modules(config)["model.layers.0.mlp.up_proj"]
        ('layers', 0, 'up_proj')
    """
    return {name: path for name, path in _modules(config).items() if path[-1].endswith("_proj")}


def _modules(config: DecoderConfig) -> dict[str, Place]:
    theirs, layers = (GPT2, "transformer.h") if config.is_gpt2 else (LLAMA, "model.layers")
    return {
        f"{layers}.{index}.{name}": ("layers", index, ours)
        for index in range(config.num_hidden_layers)
        for ours, name in theirs.items()
        if config.qk_norm or ours not in ("q_norm", "k_norm")
    }


def _has_bias(config: DecoderConfig, module: str) -> bool:
    if module.endswith("norm"):
        return config.is_gpt2
    if module == "o_proj":
        return config.output_bias
    return config.qkv_bias if module in ("qkv_proj", "q_proj", "k_proj", "v_proj") else config.mlp_bias


def tensor_paths(config: DecoderConfig) -> dict[str, tuple[Place, bool]]:
    """Hugging Face tensor name -> (path in the decoder's parameters, whether the matrix is transposed).

    Example:
        >>> tensor_paths(DecoderConfig(61, 32, 48, 1, 4, 2, 128))["model.layers.0.self_attn.q_proj.weight"]
        (('layers', 0, 'q_proj', 'kernel'), True)
    """
    prefix = base_prefix(config)
    paths: dict[str, tuple[Place, bool]] = {}
    if config.is_gpt2:
        paths[f"{prefix}wte.weight"] = (("embed", "embedding"), False)
        paths[f"{prefix}wpe.weight"] = (("positions", "embedding"), False)
    else:
        paths[f"{prefix}embed_tokens.weight"] = (("embed", "embedding"), False)
    for name, path in _modules(config).items():
        norm = path[-1].endswith("norm")
        # GPT-2 keeps its matrices input first, as Flax does
        paths[f"{name}.weight"] = ((*path, "weight"), False) if norm else ((*path, "kernel"), not config.is_gpt2)
        if _has_bias(config, path[-1]):
            paths[f"{name}.bias"] = ((*path, "bias"), False)
    final = "ln_f" if config.is_gpt2 else "norm"
    paths[f"{prefix}{final}.weight"] = (("norm", "weight"), False)
    if config.is_gpt2:
        paths[f"{prefix}{final}.bias"] = (("norm", "bias"), False)
    if not config.tie_word_embeddings:
        paths["lm_head.weight"] = (("lm_head", "kernel"), True)
    return paths
