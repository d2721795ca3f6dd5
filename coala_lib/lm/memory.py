"""What a forward pass over a batch needs, in bytes: counted by hand before anything is loaded, and by the compiler.

The closed form takes the larger of the two moments at which most is alive, attention and MLP, beside the weights.
The compiler's figure on a CPU is a bound: it computes bfloat16 matrix products in float32 there.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import abstract_decoder


@dataclass(frozen=True)
class Bytes:
    """Where the memory of one forward pass goes.

    Attributes:
        weights: all parameters.
        residual: the residual stream, its normed copy in float32, and the states to return.
        attention: queries, keys, values, the scores in float32 twice and once in the weights' dtype.
        mlp: the inner activations.
        layer: the weights of one layer, which a loop over stacked layers cuts out into a copy.
    """

    weights: int
    residual: int
    attention: int
    mlp: int
    layer: int = 0

    @property
    def total(self) -> int:
        """Peak: attention and MLP are never alive together."""
        return self.weights + self.layer + self.residual + max(self.attention, self.mlp)


@cache
def _counts(config: DecoderConfig) -> tuple[int, int]:
    """Weights outside the layers, and in each of them."""
    one = abstract_decoder(replace(config, num_hidden_layers=1))
    whole, layer = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(part))) for part in (one, one.layers)
    )
    return whole - layer, layer


def n_parameters(config: DecoderConfig) -> int:
    """Number of weights, a tied output matrix counted once.

    Example:
        >>> n_parameters(DecoderConfig(32000, 4096, 14336, 32, 32, 8, 32768, tie_word_embeddings=False))
        7241732096
    """
    outside, layer = _counts(config)
    return outside + config.num_hidden_layers * layer


def extraction_bytes(
    config: DecoderConfig, batch: int, length: int, dtype: DTypeLike = jnp.bfloat16, *, scan: bool = True
) -> Bytes:
    """Memory of extracting features: one forward pass that keeps one hidden state, no gradients and no logits.

    Args:
        config: shape of the model.
        batch: rows at a time.
        length: tokens a row, padding included.
        dtype: of the weights and of the residual stream.
        scan: see `Decoder`.

    Returns:
        `Bytes`.

    Example:
        >>> llama_8b = DecoderConfig(128256, 4096, 14336, 32, 32, 8, 131072, tie_word_embeddings=False)
        >>> round(extraction_bytes(llama_8b, batch=4, length=1024).total / 2**30, 1)
        16.8
    """
    size, tokens = jnp.dtype(dtype).itemsize, batch * length
    heads, kv_heads, h = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    scores = batch * heads * length * length
    return Bytes(
        weights=n_parameters(config) * size,
        residual=tokens * config.hidden_size * (3 * size + 4),
        attention=tokens * (2 * heads + 2 * kv_heads) * h * size + scores * (8 + size),
        mlp=3 * tokens * config.intermediate_size * size,
        layer=_counts(config)[1] * size if scan else 0,
    )


@dataclass(frozen=True)
class Compiled:
    """What the compiler plans for one forward pass on the present device.

    Attributes:
        platform: "cpu", "gpu" or "tpu"; on a CPU `temporary` is a bound only.
        arguments, temporary, output: bytes of the weights and tokens, of what lives between, and of the result.
    """

    platform: str
    arguments: int
    temporary: int
    output: int


def compiled_bytes(
    config: DecoderConfig,
    batch: int,
    length: int,
    dtype: DTypeLike = jnp.bfloat16,
    *,
    scan: bool = True,
    layer: int = -1,
) -> Compiled:
    """Lower and compile one forward pass ahead of time, without weights, and read the compiler's plan.

    Args:
        config, batch, length, dtype: as in `extraction_bytes`.
        scan: see `Decoder`.
        layer: which hidden state comes out.

    Returns:
        `Compiled`.
    """
    graph, state = nnx.split(abstract_decoder(config, dtype, scan=scan))
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)

    def forward(state: nnx.State, tokens: jax.Array) -> jax.Array:
        return nnx.merge(graph, state)(tokens, layers=(layer,))[0][0]

    plan = jax.jit(forward).lower(state, tokens).compile().memory_analysis()
    return Compiled(
        jax.default_backend(), plan.argument_size_in_bytes, plan.temp_size_in_bytes, plan.output_size_in_bytes
    )
