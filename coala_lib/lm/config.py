"""The shape of a decoder: what a checkpoint's `config.json` says about the computation, and nothing else.

`families.py` reads and writes the file; the modules see this dataclass only.
"""

from dataclasses import dataclass
from typing import Literal

Family = Literal["llama", "mistral", "qwen2", "qwen3", "gpt2"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for long contexts.

    Attributes:
        kind: "linear" divides all frequencies by `factor`; "llama3" divides the slow ones, keeps the fast ones and
            blends between (Llama 3.1).
        factor: how much.
        low_freq_factor, high_freq_factor: turns over the original context below and above which a frequency counts
            as slow and as fast; "llama3" only.
        original_max_position_embeddings: the context before stretching; "llama3" only.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True)
class DecoderConfig:
    """Everything that shapes the computation; the defaults are a Llama's.

    Attributes:
        vocab_size: V.
        hidden_size: d.
        intermediate_size: width of the MLP.
        num_hidden_layers: L.
        num_attention_heads, num_key_value_heads: H and K; each key-value head serves H / K heads.
        max_position_embeddings: longest sequence, in tokens.
        norm_eps: added to the variance in every norm.
        rope_theta: base of the rotary frequencies.
        tie_word_embeddings: whether the embedding is the output matrix too.
        head_dim: size of a head; 0 stands for d / H.
        family: whose layout and names; "gpt2" has learned positions, layer norm, one matrix for q, k and v, and an
            MLP without a gate.
        hidden_act: activation of the MLP, by Hugging Face's name.
        qkv_bias, output_bias, mlp_bias: which linear maps have one.
        qk_norm: RMS norm of every query and key head (Qwen3).
        rope_scaling: stretch of the rotary frequencies.
        sliding_window: how many tokens a token sees, itself included; None for all.
        full_attention: layers (from 0) that see all tokens in spite of the window.

    Raises:
        ValueError: where heads do not divide the hidden size or one another.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    head_dim: int = 0
    family: Family = "llama"
    hidden_act: str = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    full_attention: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.head_dim:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"{self.num_attention_heads} attention heads do not divide hidden size {self.hidden_size}"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads cannot share {self.num_key_value_heads} key-value heads"
            )

    @property
    def is_gpt2(self) -> bool:
        """Whether this is GPT-2's layout rather than Llama's."""
        return self.family == "gpt2"

    def slides(self, layer: int) -> bool:
        """Whether `layer` (from 0) sees no further than the window."""
        return self.sliding_window is not None and layer not in self.full_attention
