"""One decoder-only transformer in Flax NNX, in the Llama layout, configured by the checkpoint's own `config.json`.

RMS norm before attention and MLP, rotary positions (rotate-half), grouped-query attention, SwiGLU.
Norms and softmax run in float32 whatever the weights' dtype.
Padding never changes a result: attention is causal and `start` masks what stands left of a row's first token.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int


@dataclass(frozen=True)
class DecoderConfig:
    """The part of a Hugging Face Llama `config.json` that shapes the computation.

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
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    head_dim: int = 0

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

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> "DecoderConfig":
        """Read a `config.json`; refuse what this decoder does not compute."""
        if config.get("model_type") != "llama":
            raise ValueError(f"model_type {config.get('model_type')!r} is not supported; this decoder reads 'llama'")
        if config.get("rope_scaling") or config.get("attention_bias") or config.get("mlp_bias"):
            raise ValueError("rope_scaling, attention_bias and mlp_bias are not supported by this decoder")
        # Transformers 5 moved rope_theta and the scaling into rope_parameters; both spellings are in the wild.
        rope = config.get("rope_parameters") or {}
        found = rope.get("rope_type", "default"), config.get("hidden_act", "silu")
        if found != ("default", "silu"):
            raise ValueError(f"rope_type {found[0]!r} with hidden_act {found[1]!r} is not supported by this decoder")
        fields = dataclasses.fields(cls)
        # configurations from before grouped-query attention do not name the key-value heads
        shared = {"num_key_value_heads": config.get("num_attention_heads")}
        flat = shared | {"rope_theta": rope.get("rope_theta", 10000.0)} | config
        values = {field.name: flat[field.name] for field in fields if flat.get(field.name) is not None}
        if lacking := [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]:
            raise ValueError(f"the configuration lacks {', '.join(lacking)}")
        return cls(**values)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens seen so far.

    Attributes:
        k, v: for each layer (B, S, K, h): S slots, K key-value heads of size h.
            One array a layer, so that a compiled loop writes a token in place instead of copying all layers.
        filled: () int32, slots in use (the same for all rows).
        start: (B,) int32, first slot of each row that holds a token (left padding before it).
    """

    k: tuple[Float[Array, "B S K h"], ...]
    v: tuple[Float[Array, "B S K h"], ...]
    filled: Int[Array, ""]
    start: Int[Array, " B"]


def empty_cache(config: DecoderConfig, start: Int[Array, " B"], slots: int, dtype: DTypeLike = jnp.float32) -> Cache:
    """A cache with room for `slots` tokens a row; `start` counts the left padding of each row."""
    empty = jnp.zeros((start.shape[0], slots, config.num_key_value_heads, config.head_dim), dtype)
    layers = (empty,) * config.num_hidden_layers
    return Cache(layers, layers, jnp.zeros((), jnp.int32), start)


def rotate(x: Float[Array, "B T H h"], positions: Int[Array, "B T"], theta: float) -> Float[Array, "B T H h"]:
    """Rotary position embedding, rotate-half form (as in Hugging Face Llama)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency[None, None, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x.dtype)


class RMSNorm(nnx.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "B T d"]) -> Float[Array, "B T d"]:
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return (wide * scale).astype(x.dtype) * self.weight[...][None, None, :]


class Block(nnx.Module):
    """One layer: attention and SwiGLU, each behind an RMS norm and a residual."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        d, h = config.hidden_size, config.head_dim
        heads, kv_heads, inner = config.num_attention_heads, config.num_key_value_heads, config.intermediate_size

        def linear(rows: int, columns: int, scale: float = 1.0) -> nnx.Linear:
            init = nnx.initializers.normal(0.02 * scale)
            return nnx.Linear(rows, columns, use_bias=False, kernel_init=init, param_dtype=dtype, rngs=rngs)

        depth = (2 * config.num_hidden_layers) ** -0.5
        self.config = config
        self.input_layernorm = RMSNorm(d, config.rms_norm_eps, dtype)
        self.q_proj, self.k_proj = linear(d, heads * h), linear(d, kv_heads * h)
        self.v_proj, self.o_proj = linear(d, kv_heads * h), linear(heads * h, d, depth)
        self.post_attention_layernorm = RMSNorm(d, config.rms_norm_eps, dtype)
        self.gate_proj, self.up_proj, self.down_proj = linear(d, inner), linear(d, inner), linear(inner, d, depth)

    def __call__(
        self,
        x: Float[Array, "B T d"],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        past: tuple[Float[Array, "B S K h"], Float[Array, "B S K h"], Int[Array, ""]] | None,
    ) -> tuple[Float[Array, "B T d"], tuple[Float[Array, "B S K h"], Float[Array, "B S K h"]]]:
        c = self.config
        batch, length, _ = x.shape
        normed = self.input_layernorm(x)
        q = rotate(self.q_proj(normed).reshape(batch, length, -1, c.head_dim), positions, c.rope_theta)
        k = rotate(self.k_proj(normed).reshape(batch, length, -1, c.head_dim), positions, c.rope_theta)
        v = self.v_proj(normed).reshape(batch, length, -1, c.head_dim)
        if past is not None:
            k = jax.lax.dynamic_update_slice_in_dim(past[0], k.astype(past[0].dtype), past[2], axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(past[1], v.astype(past[1].dtype), past[2], axis=1)
        # heads that share a key-value head are one more axis of the same matrix product, so keys are never repeated
        q = q.reshape(batch, length, c.num_key_value_heads, -1, c.head_dim)
        logits = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32) * c.head_dim**-0.5
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, -1e30), axis=-1).astype(v.dtype)
        mixed = jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(batch, length, -1)
        x = x + self.o_proj(mixed)
        normed = self.post_attention_layernorm(x)
        return x + self.down_proj(jax.nn.silu(self.gate_proj(normed)) * self.up_proj(normed)), (k, v)


class Decoder(nnx.Module):
    """Tokens to hidden states, and hidden states to logits.

    Args:
        config: shapes.
        rngs: source of the initial weights.
        dtype: dtype of the weights and of the residual stream.

    Example:
        >>> config = DecoderConfig(32, 16, 32, 2, 2, 1, 64)
        >>> decoder = Decoder(config, nnx.Rngs(0))
        >>> hidden, _ = decoder(jnp.array([[1, 2, 3]]))
        >>> decoder.logits(hidden[-1]).shape
        (1, 3, 32)
    """

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        d, init = config.hidden_size, nnx.initializers.normal(0.02)
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, d, embedding_init=init, param_dtype=dtype, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([Block(config, rngs, dtype) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(d, config.rms_norm_eps, dtype)
        if not config.tie_word_embeddings:
            self.lm_head = nnx.Linear(
                d, config.vocab_size, use_bias=False, kernel_init=init, param_dtype=dtype, rngs=rngs
            )

    def __call__(
        self, tokens: Int[Array, "B T"], cache: Cache | None = None, layers: tuple[int, ...] = (-1,)
    ) -> tuple[Float[Array, "R B T d"], Cache | None]:
        """Run the tokens through all layers.

        Args:
            tokens: token ids. Without a cache, rows start at position 0 (pad on the right, or not at all).
            cache: keys and values of earlier tokens; the new ones are written behind them.
            layers: which hidden states to return, counted as Hugging Face does: 0 the embeddings,
                l the output of layer l, L (or -1) the output of the last layer after the final norm.

        Returns:
            (R, B, T, d) hidden states of the R layers asked for, and the filled cache (None without one).
        """
        length = tokens.shape[1]
        if cache is None:
            positions = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
            mask = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool))[None], (tokens.shape[0], length, length))
        else:
            slot = cache.filled + jnp.arange(length)
            positions = jnp.maximum(slot[None, :] - cache.start[:, None], 0)
            slots = jnp.arange(cache.k[0].shape[1])
            # a row of padding must see something, or its softmax has no terms: it sees itself
            mask = (slots[None, None, :] <= slot[None, :, None]) & (
                (slots[None, None, :] >= cache.start[:, None, None]) | (slots[None, None, :] == slot[None, :, None])
            )
        states, pasts = [self.embed(tokens)], []
        for index, layer in enumerate(self.layers):
            past = None if cache is None else (cache.k[index], cache.v[index], cache.filled)
            x, kv = layer(states[-1], positions, mask, past)
            states.append(x)
            pasts.append(kv)
        states[-1] = self.norm(states[-1])
        hidden = jnp.stack([states[layer] for layer in layers])
        if cache is None:
            return hidden, None
        k, v = zip(*pasts, strict=True)
        return hidden, Cache(k, v, cache.filled + length, cache.start)

    def logits(self, hidden: Float[Array, "B T d"]) -> Float[Array, "B T V"]:
        """Next-token logits, float32, from final hidden states."""
        if self.config.tie_word_embeddings:
            table = self.embed.embedding[...]
            return jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
        return self.lm_head(hidden).astype(jnp.float32)
