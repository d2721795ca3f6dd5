"""The shapes of eight public language models, as data: enough to count what they cost, without a single weight.

Five are the paper's; gpt2-medium, gpt2-large and Llama-3.2-3B lie between them. Values are those of the models' public
`config.json`; a test holds their parameters against the published counts.
"""

from dataclasses import replace

from coala_lib.lm.config import DecoderConfig, RopeScaling


def _gpt2(width: int, layers: int, heads: int) -> DecoderConfig:
    """The GPT-2 family differs in three numbers only."""
    return DecoderConfig(
        50257, width, 4 * width, layers, heads, heads, 1024, family="gpt2", hidden_act="gelu_new",
        qkv_bias=True, output_bias=True, mlp_bias=True,
    )  # fmt: skip


MISTRAL_7B = DecoderConfig(  # mistralai/Mistral-7B-v0.1
    32000, 4096, 14336, 32, 32, 8, 32768, family="mistral", sliding_window=4096, tie_word_embeddings=False
)
SHAPES: dict[str, DecoderConfig] = {
    "distilgpt2": _gpt2(768, 6, 12),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "Llama-3.2-3B": DecoderConfig(
        128256, 3072, 8192, 28, 24, 8, 131072, rope_theta=5e5, head_dim=128, rope_scaling=RopeScaling("llama3", 32.0)
    ),
    "Mistral-7B": MISTRAL_7B,
    "Dolphin-2.6-7B": replace(MISTRAL_7B, vocab_size=32001),  # Mistral's shape, with tokens of its own
    "Llama-3.1-8B": DecoderConfig(
        128256, 4096, 14336, 32, 32, 8, 131072, rope_theta=5e5, rope_scaling=RopeScaling("llama3", 8.0),
        tie_word_embeddings=False,
    ),
}  # fmt: skip
# Table 10 of the paper: which maps its baselines adapt
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GPT2_LORA_TARGETS = ("c_attn", "c_proj")


def lora_targets(config: DecoderConfig) -> tuple[str, ...]:
    """The maps that the paper's Table 10 adapts in a model of this family.

    Example:
        >>> lora_targets(SHAPES["gpt2"])
        ('c_attn', 'c_proj')
    """
    return GPT2_LORA_TARGETS if config.is_gpt2 else LORA_TARGETS
