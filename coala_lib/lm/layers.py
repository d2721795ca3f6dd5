"""One layer of the decoder: norm, attention, norm, MLP, each behind a residual, in Llama's or in GPT-2's layout.

Norms, rotary angles and softmax run in float32 whatever the weights' dtype.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from coala_lib.lm.config import DecoderConfig

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def frequencies(config: DecoderConfig) -> Float[Array, " half"]:
    """Rotary frequencies theta^(-2i/h) of half a head, stretched where the configuration says so.

    Example:
        >>> frequencies(DecoderConfig(8, 8, 8, 1, 2, 2, 8)).tolist()
        [1.0, 0.009999999776482582]
    """
    half, scaling = config.head_dim // 2, config.rope_scaling
    frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is None:
        return frequency
    slow = frequency / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = scaling.original_max_position_embeddings * frequency / (2 * jnp.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    fast = jnp.clip((turns - low) / (high - low), 0, 1)
    return (1 - fast) * slow + fast * frequency


def rotate(x: Float[Array, "B T H h"], angle: Float[Array, "B T half"]) -> Float[Array, "B T H h"]:
    """Rotary position embedding, rotate-half form (as in Hugging Face Llama)."""
    half = x.shape[-1] // 2
    cos, sin = jnp.cos(angle)[:, :, None, :], jnp.sin(angle)[:, :, None, :]
    left, right = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x.dtype)


def _along_last(weight: Float[Array, " d"], like: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return weight.reshape((1,) * (like.ndim - 1) + weight.shape)


class RMSNorm(nnx.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return (wide * scale).astype(x.dtype) * _along_last(self.weight[...], x)


class LayerNorm(nnx.Module):
    """(x - mean) / std * weight + bias, in float32."""

    def __init__(self, size: int, eps: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.bias = nnx.Param(jnp.zeros((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.eps)
        weight, bias = (_along_last(p[...].astype(jnp.float32), x) for p in (self.weight, self.bias))
        return (centred * scale * weight + bias).astype(x.dtype)


class Block(nnx.Module):
    """One layer; see the module's head.

    Args:
        config: shapes and which parts there are.
        rngs: source of the initial weights; the maps back into the residual stream start smaller, by depth.
        dtype: dtype of the weights.
    """

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        d, h, inner = config.hidden_size, config.head_dim, config.intermediate_size
        heads, kv_heads, depth = config.num_attention_heads, config.num_key_value_heads, config.num_hidden_layers
        norm = LayerNorm if config.is_gpt2 else RMSNorm

        def linear(rows: int, columns: int, bias: bool, scale: float = 1.0) -> nnx.Linear:
            init = nnx.initializers.normal(0.02 * scale)
            return nnx.Linear(rows, columns, use_bias=bias, kernel_init=init, param_dtype=dtype, rngs=rngs)

        into, back = config.qkv_bias, (2 * depth) ** -0.5
        self.config = config
        self.input_layernorm = norm(d, config.norm_eps, dtype)
        if config.is_gpt2:
            self.qkv_proj = linear(d, 3 * heads * h, into)
        else:
            self.q_proj, self.k_proj = linear(d, heads * h, into), linear(d, kv_heads * h, into)
            self.v_proj = linear(d, kv_heads * h, into)
        self.o_proj = linear(heads * h, d, config.output_bias, back)
        if config.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(h, config.norm_eps, dtype) for _ in range(2))
        self.post_attention_layernorm = norm(d, config.norm_eps, dtype)
        if not config.is_gpt2:
            self.gate_proj = linear(d, inner, config.mlp_bias)
        self.up_proj, self.down_proj = linear(d, inner, config.mlp_bias), linear(inner, d, config.mlp_bias, back)

    def _heads(self, x: Float[Array, "B T d"]) -> list[Float[Array, "B T _ h"]]:
        """Queries, keys and values of the normed residual stream."""
        parts = (
            jnp.split(self.qkv_proj(x), 3, axis=-1)
            if self.config.is_gpt2
            else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        q, k, v = (part.reshape(*x.shape[:2], -1, self.config.head_dim) for part in parts)
        return [self.q_norm(q), self.k_norm(k), v] if self.config.qk_norm else [q, k, v]

    def _mlp(self, x: Float[Array, "B T d"]) -> Float[Array, "B T d"]:
        act = ACTIVATIONS[self.config.hidden_act]
        inner = act(self.up_proj(x)) if self.config.is_gpt2 else act(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(inner)

    def __call__(
        self,
        x: Float[Array, "B T d"],
        angle: Float[Array, "B T half"] | None,
        mask: Bool[Array, "B T S"],
        past: tuple[Float[Array, "B S K h"], Float[Array, "B S K h"], Int[Array, ""]] | None,
    ) -> tuple[Float[Array, "B T d"], tuple[Float[Array, "B S K h"], Float[Array, "B S K h"]]]:
        """Run the layer.

        Args:
            x: residual stream.
            angle: rotary angles; None where positions were learned.
            mask: which of the S keys each of the T tokens sees.
            past: keys and values of a cache, and the slot behind its last token.

        Returns:
            The residual stream, and the keys and values with the new ones in place.
        """
        c = self.config
        batch, length, _ = x.shape
        q, k, v = self._heads(self.input_layernorm(x))
        if angle is not None:
            q, k = rotate(q, angle), rotate(k, angle)
        if past is not None:
            k = jax.lax.dynamic_update_slice_in_dim(past[0], k.astype(past[0].dtype), past[2], axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(past[1], v.astype(past[1].dtype), past[2], axis=1)
        # heads that share a key-value head are one more axis of the same matrix product, so keys are never repeated
        q = q.reshape(batch, length, c.num_key_value_heads, -1, c.head_dim)
        logits = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32) * c.head_dim**-0.5
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, -1e30), axis=-1).astype(v.dtype)
        x = x + self.o_proj(jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(batch, length, -1))
        return x + self._mlp(self.post_attention_layernorm(x)), (k, v)
