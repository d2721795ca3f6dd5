"""One sampling step: temperature, then the k likeliest tokens, then the nucleus of mass p, then a draw."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def nucleus(
    logits: Float[Array, "B V"], temperature: Float[Array, ""] | float, top_k: int, top_p: float
) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    """The truncated distribution, likeliest token first.

    Args:
        logits: (B, V) float32.
        temperature: > 0; small values approach greedy decoding.
        top_k: keep the k likeliest tokens; V or more keeps all.
        top_p: of those keep the smallest set of mass at least top_p; the likeliest token always stays.

    Returns:
        (B, k) logits over temperature, -inf outside the nucleus, and the (B, k) tokens they belong to.

    Example:
        >>> kept, tokens = nucleus(jnp.log(jnp.array([[0.3, 0.5, 0.05, 0.15]])), 1.0, top_k=3, top_p=0.7)
        >>> jnp.isfinite(kept)[0].tolist(), tokens[0].tolist()
        ([True, True, False], [1, 0, 3])
    """
    best, tokens = jax.lax.top_k(logits / temperature, min(top_k, logits.shape[-1]))
    mass = jnp.cumsum(jax.nn.softmax(best, axis=-1), axis=-1)
    # a float32 sum of all masses reaches 1 before its last terms: top_p = 1 must keep them all the same
    below = mass[:, :-1] < (top_p if top_p < 1 else jnp.inf)
    inside = jnp.concatenate([jnp.ones_like(mass[:, :1], bool), below], axis=-1)
    return jnp.where(inside, best, -jnp.inf), tokens


def draw(
    key: PRNGKeyArray, logits: Float[Array, "B V"], temperature: Float[Array, ""] | float, top_k: int, top_p: float
) -> Int[Array, " B"]:
    """Draw one token a row from the nucleus; the full distribution is drawn from without sorting it."""
    if top_k >= logits.shape[-1] and top_p == 1:
        return jax.random.categorical(key, logits / temperature, axis=-1).astype(jnp.int32)
    kept, tokens = nucleus(logits, temperature, top_k, top_p)
    drawn = jax.random.categorical(key, kept, axis=-1)
    return jnp.take_along_axis(tokens, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)
