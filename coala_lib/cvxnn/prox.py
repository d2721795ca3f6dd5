"""Proximal steps of the splitting: group soft-threshold for v, projection on the orthant for s."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def group_soft_threshold(U: Float[Array, "2 P d"], threshold: Float[Array, ""] | float) -> Float[Array, "2 P d"]:
    """argmin_V threshold * sum_j ||V_j|| + 1/2 ||V - U||^2: each block shrinks towards zero by `threshold`.

    Example:
        >>> group_soft_threshold(jnp.array([[[3.0, 4.0]], [[0.3, 0.4]]]), 2.5).tolist()
        [[[1.5, 2.0]], [[0.0, 0.0]]]
    """
    norms = jnp.linalg.norm(U, axis=-1, keepdims=True)
    tiny = jnp.finfo(U.dtype).tiny
    return U * jnp.maximum(1 - threshold / jnp.maximum(norms, tiny), 0)


def orthant(S: Float[Array, "2 n P"]) -> Float[Array, "2 n P"]:
    """Projection on s >= 0."""
    return jnp.maximum(S, 0)
