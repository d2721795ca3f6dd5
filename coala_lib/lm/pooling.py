"""From the hidden states of a response to one vector: three poolings without a trained weight.

Every pooling is a weighted mean over the response's tokens, the weights a softmax of some logit a_t:

- `mean`: a_t = 0, so all tokens weigh the same;
- `last`: all weight on the last token;
- `attention`: a_t = <h_t, q> / sqrt(d), with h_t and q scaled to root mean square 1 and q the state of the *prompt's*
  last token: scaled dot-product attention of the question to the answer, one head, nothing learned.

A softmax over a growing reply can be carried along in O(d) (`Running`), so guided sampling scores what extraction
would extract. That is why the query is the prompt's and not the response's own last token, which moves as the reply
grows; besides, that one is most similar to itself, and would give little else than `last`.

Differs from the paper: it says "features" and names neither layer nor pooling.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Pooling = Literal["mean", "last", "attention"]
NOTHING = -1e30  # a logit whose weight is zero; a true infinity would make rows without a response NaN


@dataclass(frozen=True)
class Reading:
    """Which features are read off a decoder.

    Attributes:
        layer: hidden state, as in `Decoder.__call__`: 0 the embeddings, -1 the last, after the final norm.
        pooling: see the module's head.
        first: pool over so many tokens of the response at most; None for all of it.

    Raises:
        ValueError: for an unknown pooling, or no tokens to pool.

    Example:
        >>> str(Reading(3, "attention")), str(Reading(first=8))
        ('layer 3, attention', 'layer -1, mean of the first 8')
    """

    layer: int = -1
    pooling: Pooling = "mean"
    first: int | None = None

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling {self.pooling!r} is unknown; use one of {', '.join(get_args(Pooling))}")
        if self.first is not None and self.first < 1:
            raise ValueError(f"first is a number of tokens of at least 1; got {self.first}")

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.pooling}" + (f" of the first {self.first}" if self.first else "")

    def check(self, n_layers: int) -> None:
        """Refuse a layer that a decoder of `n_layers` layers does not have."""
        if not -n_layers - 1 <= self.layer <= n_layers:
            raise ValueError(f"layer {self.layer} is none of this model's: it has 0 (embeddings) to {n_layers}")


def affinity(hidden: Float[Array, "... d"], query: Float[Array, "... d"]) -> Float[Array, "..."]:
    """<h, q> / sqrt(d) of two states scaled to root mean square 1: sqrt(d) times their cosine."""

    def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)

    return jnp.sum(unit(hidden) * unit(query), axis=-1) * hidden.shape[-1] ** 0.5


def pool(
    hidden: Float[Array, "B T d"], response: Bool[Array, "B T"], query: Float[Array, "B d"], pooling: Pooling
) -> Float[Array, "B d"]:
    """Pool float32 hidden states over the tokens of the response.

    Args:
        hidden: states of one layer.
        response: which tokens are the response's; anything else, padding on either side, weighs nothing.
        query: state of the prompt's last token; read by `attention` only.
        pooling: see the module's head.

    Returns:
        (B, d) float32.

    Example:
        >>> states = jnp.arange(8.0).reshape(1, 4, 2)
        >>> response = jnp.array([[False, True, True, False]])
        >>> [pool(states, response, states[:, 0], how)[0].tolist() for how in ("mean", "last")]
        [[3.0, 4.0], [4.0, 5.0]]
    """
    if pooling == "last":
        at = response.shape[1] - 1 - jnp.argmax(response[:, ::-1], axis=1)
        return jnp.take_along_axis(hidden, at[:, None, None], axis=1)[:, 0]
    logits = affinity(hidden, query[:, None, :]) if pooling == "attention" else jnp.zeros(response.shape)
    weights = jax.nn.softmax(jnp.where(response, logits, NOTHING), axis=1)
    return jnp.einsum("btd,bt->bd", hidden, weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Running:
    """A pooling that grows with the reply: the softmax's largest logit so far, its weights' sum, the weighted sum."""

    peak: Float[Array, " B"]
    weight: Float[Array, " B"]
    total: Float[Array, "B d"]

    @property
    def features(self) -> Float[Array, "B d"]:
        """What `pool` gives for the tokens absorbed so far; zero before the first."""
        return self.total / jnp.maximum(self.weight, 1e-30)[:, None]


def start_running(rows: int, dimension: int) -> Running:
    """The pooling of no token."""
    return Running(jnp.full((rows,), NOTHING), jnp.zeros((rows,)), jnp.zeros((rows, dimension)))


def absorb(
    running: Running,
    hidden: Float[Array, "B d"],
    query: Float[Array, "B d"],
    live: Bool[Array, " B"],
    pooling: Pooling,
) -> Running:
    """Add one float32 state a row; rows that are not live stay as they are."""
    if pooling == "last":
        new = Running(jnp.zeros_like(running.peak), jnp.ones_like(running.weight), hidden)
    else:
        logit = affinity(hidden, query) if pooling == "attention" else jnp.zeros_like(running.peak)
        peak = jnp.maximum(running.peak, logit)
        kept, gained = jnp.exp(running.peak - peak), jnp.exp(logit - peak)
        total = running.total * kept[:, None] + hidden * gained[:, None]
        new = Running(peak, running.weight * kept + gained, total)
    return jax.tree.map(lambda a, b: jnp.where(live.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, running)
