"""One decoder-only transformer in Flax NNX for the GPT-2, Llama, Mistral and Qwen families.

Configured by the checkpoint's own `config.json` (`families.py`); a layer stands in `layers.py`.
Padding never changes a result: attention is causal and `start` masks what stands left of a row's first token.

Layers are a list, or with `scan` one layer with stacked weights that a compiled loop walks through: that compiles in
a time that does not grow with depth, and serves features and training. A cached step wants the list: it writes one
token in place per layer, where stacked weights would be cut into copies first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.layers import Block, LayerNorm, RMSNorm, frequencies


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


def _stack(blocks: Sequence[Block]) -> Block:
    """Equal layers as one whose weights have a leading axis L."""
    graph, first = nnx.split(blocks[0])
    rest = (nnx.state(block) for block in blocks[1:])
    return nnx.merge(graph, jax.tree.map(lambda *leaves: jnp.stack(leaves), first, *rest))


class Decoder(nnx.Module):
    """Tokens to hidden states, and hidden states to logits.

    Args:
        config: shapes.
        rngs: source of the initial weights; equal ones give equal weights in both layouts.
        dtype: dtype of the weights and of the residual stream.
        scan: stack the layers' weights and loop over them.
        remat: compute a layer's inner values again in the backward pass instead of keeping them.

    Example:
        >>> config = DecoderConfig(32, 16, 32, 2, 2, 1, 64)
        >>> decoder = Decoder(config, nnx.Rngs(0))
        >>> hidden, _ = decoder(jnp.array([[1, 2, 3]]))
        >>> decoder.logits(hidden[-1]).shape
        (1, 3, 32)
    """

    def __init__(
        self,
        config: DecoderConfig,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        *,
        scan: bool = False,
        remat: bool = False,
    ) -> None:
        d, init = config.hidden_size, nnx.initializers.normal(0.02)
        self.config, self.scan, self.remat = config, scan, remat
        self.lora = None  # `lora.py` says here what it added
        self.embed = nnx.Embed(config.vocab_size, d, embedding_init=init, param_dtype=dtype, rngs=rngs)
        blocks = [Block(config, rngs, dtype) for _ in range(config.num_hidden_layers)]
        self.layers = _stack(blocks) if scan else nnx.List(blocks)
        self.norm = (LayerNorm if config.is_gpt2 else RMSNorm)(d, config.norm_eps, dtype)
        if config.is_gpt2:
            length = config.max_position_embeddings
            self.positions = nnx.Embed(length, d, embedding_init=init, param_dtype=dtype, rngs=rngs)
        if not config.tie_word_embeddings:
            self.lm_head = nnx.Linear(
                d, config.vocab_size, use_bias=False, kernel_init=init, param_dtype=dtype, rngs=rngs
            )

    @property
    def dtype(self) -> jnp.dtype:
        """Of the weights and of the residual stream: what a cache should have."""
        return self.embed.embedding[...].dtype

    def with_scan(self, scan: bool) -> "Decoder":
        """The same model, its layers stacked or listed."""
        new = nnx.merge(*nnx.split(self))
        blocks = new.blocks()
        new.scan, new.layers = scan, _stack(blocks) if scan else nnx.List(blocks)
        return new

    def blocks(self) -> list[Block]:
        """The layers one by one, also where they are stacked."""
        if not self.scan:
            return list(self.layers)
        graph, stacked = nnx.split(self.layers)
        return [
            nnx.merge(graph, jax.tree.map(lambda leaf, at=i: leaf[at], stacked))
            for i in range(self.config.num_hidden_layers)
        ]

    def __call__(
        self, tokens: Int[Array, "B T"], cache: Cache | None = None, layers: tuple[int, ...] = (-1,)
    ) -> tuple[Float[Array, "R B T d"], Cache | None]:
        """Run the tokens through the layers, no further than the last one asked for.

        Args:
            tokens: token ids. Without a cache, rows start at position 0 (pad on the right, or not at all).
            cache: keys and values of earlier tokens; the new ones are written behind them, in the layers that run.
            layers: which hidden states to return, counted as Hugging Face does: 0 the embeddings,
                l the output of layer l, L (or -1) the output of the last layer after the final norm.

        Returns:
            (R, B, T, d) hidden states of the R layers asked for, and the filled cache (None without one).

        Raises:
            ValueError: where the model has no such layer.
        """
        deep = self.config.num_hidden_layers
        if not layers or not all(-deep <= layer + 1 <= deep + 1 for layer in layers):
            raise ValueError(f"hidden states are numbered 0 to {deep}, or -1 to {-deep - 1} from the end; got {layers}")
        wanted = tuple(layer % (deep + 1) for layer in layers)
        length = tokens.shape[1]
        if cache is None:
            positions = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
            slot = slots = jnp.arange(length)
            mask = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool))[None], (tokens.shape[0], length, length))
        else:
            slot = cache.filled + jnp.arange(length)
            positions = jnp.maximum(slot[None, :] - cache.start[:, None], 0)
            slots = jnp.arange(cache.k[0].shape[1])
            # a row of padding must see something, or its softmax has no terms: it sees itself
            mask = (slots[None, None, :] <= slot[None, :, None]) & (
                (slots[None, None, :] >= cache.start[:, None, None]) | (slots[None, None, :] == slot[None, :, None])
            )
        masks = {False: mask}
        if (window := self.config.sliding_window) is not None:
            masks[True] = mask & (slot[:, None] - slots[None, :] < window)[None]
        x, angle = self.embed(tokens), None
        if self.config.is_gpt2:
            # padding may stand past the last position; it must read a number, whichever
            x = x + self.positions(jnp.minimum(positions, self.config.max_position_embeddings - 1))
        else:
            angle = positions[:, :, None].astype(jnp.float32) * frequencies(self.config)[None, None, :]
        if cache is None:
            walk = self._scanned if self.scan else self._listed
            return jnp.stack(walk(x, angle, masks, wanted)), None
        states, k, v = [x], list(cache.k), list(cache.v)
        for index, block in enumerate(self.blocks()[: max(wanted)]):
            past = k[index], v[index], cache.filled
            x, (k[index], v[index]) = block(x, angle, masks[self.config.slides(index)], past)
            states.append(x)
        if len(states) > deep:
            states[-1] = self.norm(states[-1])
        new = Cache(tuple(k), tuple(v), cache.filled + length, cache.start)
        return jnp.stack([states[layer] for layer in wanted]), new

    def _listed(
        self,
        x: Float[Array, "B T d"],
        angle: Float[Array, "B T half"] | None,
        masks: dict[bool, Bool[Array, "B T T"]],
        wanted: tuple[int, ...],
    ) -> list[Float[Array, "B T d"]]:
        def run(block: Block, x: Array, mask: Array) -> Array:
            return block(x, angle, mask, None)[0]

        def rerun(block: Block, x: Array, mask: Array) -> Array:
            # split by hand, as the scan does: `nnx.remat` refuses a layer whose weights are frozen beside its adapters
            graph, weights = nnx.split(block)
            return jax.checkpoint(lambda weights, x: run(nnx.merge(graph, weights), x, mask))(weights, x)

        walk, states = rerun if self.remat else run, [x]
        for index in range(max(wanted)):
            states.append(walk(self.layers[index], states[-1], masks[self.config.slides(index)]))
        if len(states) > self.config.num_hidden_layers:
            states[-1] = self.norm(states[-1])
        return [states[layer] for layer in wanted]

    def _scanned(
        self,
        x: Float[Array, "B T d"],
        angle: Float[Array, "B T half"] | None,
        masks: dict[bool, Bool[Array, "B T T"]],
        wanted: tuple[int, ...],
    ) -> list[Float[Array, "B T d"]]:
        deep, depth = self.config.num_hidden_layers, max(wanted)
        graph, stacked = nnx.split(self.layers)
        slides = jnp.array([self.config.slides(index) for index in range(depth)])

        def run(weights: nnx.State, x: Array, slides: Array) -> Array:
            mask = jnp.where(slides, masks[True], masks[False]) if True in masks else masks[False]
            return nnx.merge(graph, weights)(x, angle, mask, None)[0]

        run = jax.checkpoint(run) if self.remat else run
        inner = [layer for layer in wanted if 0 < layer < deep]

        def body(carry: tuple[Array, list[Array]], xs: tuple[Array, Array, nnx.State | None]) -> tuple[tuple, None]:
            (x, kept), (index, slides, weights) = carry, xs
            if weights is None:
                weights = jax.tree.map(lambda leaf: leaf[index], stacked)
            x = run(weights, x, slides)
            return (x, [jnp.where(index + 1 == layer, x, old) for layer, old in zip(inner, kept, strict=True)]), None

        # a loop over all layers takes its weights in turn, so that their gradients are stacked as they come;
        # one that stops early picks them by number, because a slice of the stack would be a copy of the model
        xs = jnp.arange(depth), slides, stacked if depth == deep else None
        (last, kept), _ = jax.lax.scan(body, (x, [x] * len(inner)), xs)
        found = {0: x} | dict(zip(inner, kept, strict=True))
        if depth == deep:
            found[deep] = self.norm(last)
        return [found[layer] for layer in wanted]

    def logits(self, hidden: Float[Array, "B T d"]) -> Float[Array, "B T V"]:
        """Next-token logits, float32, from final hidden states."""
        if self.config.tie_word_embeddings:
            table = self.embed.embedding[...]
            return jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
        return jnp.einsum("btd,dv->btv", hidden, self.lm_head.kernel[...], preferred_element_type=jnp.float32)


def abstract_decoder(
    config: DecoderConfig, dtype: DTypeLike = jnp.float32, *, scan: bool = False, remat: bool = False
) -> Decoder:
    """The model without its weights: shapes and dtypes only, for loading, lowering and counting."""
    # the key is an argument, or the draws would run while the shapes are worked out
    return nnx.eval_shape(lambda key: Decoder(config, nnx.Rngs(key), dtype, scan=scan, remat=remat), jax.random.key(0))
