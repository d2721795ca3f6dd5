"""The preference objective of Phase II, in the form that is convex.

    L(theta) = mean_k softplus(margin - beta * theta . a_k) + ridge / 2 ||theta - anchor||^2

with a_k = phi(chosen_k) - phi(rejected_k) for pairs, or a_k = y_k phi_k for labelled rows (paper, Eq. 9).

Differs from the paper: its Eq. 8 uses log-probabilities of a classifier and is not convex for two responses with
features of their own; with log-odds in their place it becomes the pairwise form here.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]


def coala_loss(
    theta: Float[Array, " m"], A: Float[Array, "N m"], beta: Scalar = 1.0, margin: Scalar = 0.0
) -> Float[Array, ""]:
    """mean softplus(margin - beta * A theta), the ridge not included.

    Args:
        theta: (m,) second-layer weights.
        A: (N, m) rows a_k as in the module header.
        beta: reward scale; only the product beta * theta matters.
        margin: gamma of the paper's Eq. 6, a margin in units of reward.

    Returns:
        The loss, log 2 at theta = 0 without a margin.

    Example:
        >>> round(float(coala_loss(jnp.zeros(2), jnp.ones((3, 2)))), 4)
        0.6931
    """
    return jnp.mean(jax.nn.softplus(margin - beta * (A @ theta)))
