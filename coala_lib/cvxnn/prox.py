"""Proximal steps: group soft-threshold in the Euclidean and in a diagonal metric, projection on the orthant."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Scalar = float | Float[Array, ""]
SECULAR_STEPS = 8


def group_soft_threshold(U: Float[Array, "H P d"], threshold: Scalar) -> Float[Array, "H P d"]:
    """argmin_V threshold * sum_j ||V_j|| + 1/2 ||V - U||^2: each block shrinks towards zero by `threshold`.

    Args:
        U: (H, P, d) blocks.
        threshold: >= 0.

    Returns:
        (H, P, d) shrunk blocks.

    Example:
        >>> group_soft_threshold(jnp.array([[[3.0, 4.0]], [[0.3, 0.4]]]), 2.5).tolist()
        [[[1.5, 2.0]], [[0.0, 0.0]]]
    """
    norms = jnp.linalg.norm(U, axis=-1, keepdims=True)
    tiny = jnp.finfo(U.dtype).tiny
    return U * jnp.maximum(1 - threshold / jnp.maximum(norms, tiny), 0)


def group_soft_threshold_metric(
    U: Float[Array, "H P d"], metric: Float[Array, " d"], threshold: Scalar
) -> Float[Array, "H P d"]:
    """argmin_V threshold * sum_j ||V_j|| + 1/2 sum_jk metric_k (V_jk - U_jk)^2.

    A non-zero block is V = metric U / (metric + threshold / r) with r = ||V||, the root of a secular equation.
    Newton on 1 / ||.|| - 1, which is nearly linear in r, finds it from the left in a few steps.

    Args:
        U: (H, P, d) blocks.
        metric: (d,) positive weights.
        threshold: > 0.

    Returns:
        (H, P, d) shrunk blocks.

    Example:
        >>> U = jnp.array([[[3.0, 4.0]]])
        >>> group_soft_threshold_metric(U, jnp.ones(2), 2.5).round(4).tolist()
        [[[1.5, 2.0]]]
    """
    weights = metric[None, None, :]
    pull = weights * U
    alive = jnp.linalg.norm(pull, axis=-1, keepdims=True) > threshold

    def move(_: Int[Array, ""], r: Float[Array, "H P 1"]) -> Float[Array, "H P 1"]:
        bottom = weights * r + threshold
        q = pull / bottom
        square = (q * q).sum(axis=-1, keepdims=True)
        size = jnp.sqrt(square)
        slope = (q * q * weights / bottom).sum(axis=-1, keepdims=True)
        return r + jnp.where(alive, square * (size - 1) / jnp.where(alive, slope, 1.0), 0.0)

    r = jax.lax.fori_loop(0, SECULAR_STEPS, move, jnp.zeros((*U.shape[:2], 1), U.dtype))
    return jnp.where(alive, pull * r / (weights * r + threshold), 0.0)


def orthant(S: Float[Array, "n H P"]) -> Float[Array, "n H P"]:
    """Projection on s >= 0."""
    return jnp.maximum(S, 0)
