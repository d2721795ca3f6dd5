"""Phase II: with the first layer frozen, a ridge-regularised logistic problem in m <= 2P numbers, solved by Newton.

The ridge pulls towards the Phase-I weights. It makes the minimiser exist and unique (without it separable pairs have
none) and gives a computable bound: L(theta) - min L <= ||grad L(theta)||^2 / (2 ridge).

Differs from the paper: Newton instead of an unnamed optimiser; the ridge; pairs instead of single labelled rows.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coala_lib.preference.objectives import Scalar, coala_loss


@dataclass(frozen=True)
class PhaseTwo:
    """The solved second layer.

    Attributes:
        theta: (m,) weights, float64.
        loss: objective with the ridge, nats.
        bound: certified distance of `loss` from the minimum, nats.
        n_iter: Newton steps.
        margins: (n_iter + 1,) mean of theta . a_k along the way, `rewards/margins` before scaling by beta.
        norms: (n_iter + 1,) ||theta|| along the way.
    """

    theta: np.ndarray
    loss: float
    bound: float
    n_iter: int
    margins: np.ndarray
    norms: np.ndarray


def fit_phase_two(
    A: Float[np.ndarray, "N m"],
    anchor: Float[np.ndarray, " m"],
    beta: float = 1.0,
    margin: float = 0.0,
    ridge: float = 1e-3,
    tol: float = 1e-10,
    max_iter: int = 50,
) -> PhaseTwo:
    """Minimise the COALA loss with a ridge around the Phase-I weights, in float64.

    Args:
        A: (N, m) rows a_k, see `objectives`.
        anchor: (m,) Phase-I second layer; start and centre of the ridge.
        beta: reward scale.
        margin: gamma.
        ridge: strength mu > 0.
        tol: stop when the certified bound is below this, in nats.
        max_iter: Newton steps at most.

    Returns:
        A `PhaseTwo`.

    Raises:
        ValueError: where ridge or beta is not positive, shapes do not fit, or a number is not finite.

    Example:
        >>> A = np.random.default_rng(0).normal(0.5, 1, size=(100, 3))
        >>> bool(fit_phase_two(A, np.zeros(3)).bound < 1e-10)
        True
    """
    A, anchor = np.asarray(A, float), np.asarray(anchor, float)
    if not 0 < ridge < np.inf or not 0 < beta < np.inf:
        raise ValueError(f"ridge and beta must be positive and finite; got {ridge} and {beta}")
    if A.ndim != 2 or 0 in A.shape or anchor.shape != A.shape[1:]:
        raise ValueError(f"A must be (N, m) with anchor (m,), neither empty; got {A.shape} and {anchor.shape}")
    if not np.isfinite(A).all() or not np.isfinite(anchor).all() or not np.isfinite(margin):
        raise ValueError("A, anchor and margin must be finite; they hold NaN or infinite values")
    with jax.enable_x64(True):
        theta, loss, bound, count, margins, norms = _newton(A, anchor, beta, margin, ridge, tol, max_iter)
        count = int(count)
        path = np.asarray(margins)[: count + 1], np.asarray(norms)[: count + 1]
        return PhaseTwo(np.asarray(theta), float(loss), float(bound), count, *path)


@partial(jax.jit, static_argnames="max_iter")
def _newton(
    A: Float[Array, "N m"],
    anchor: Float[Array, " m"],
    beta: Scalar,
    margin: Scalar,
    ridge: Scalar,
    tol: Scalar,
    max_iter: int,
) -> tuple[Array, ...]:
    def objective(theta: Array) -> Array:
        return coala_loss(theta, A, beta, margin) + 0.5 * ridge * jnp.sum((theta - anchor) ** 2)

    def bound(theta: Array) -> Array:
        return jnp.sum(jax.grad(objective)(theta) ** 2) / (2 * ridge)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        theta, count, margins, norms = carry
        p = jax.nn.sigmoid(margin - beta * (A @ theta))
        hessian = beta**2 * (A * (p * (1 - p))[:, None]).T @ A / A.shape[0] + ridge * jnp.eye(A.shape[1])
        gradient = jax.grad(objective)(theta)
        direction = jnp.linalg.solve(hessian, gradient)
        decrease = gradient @ direction

        def too_long(t: Array) -> Array:
            return (objective(theta - t * direction) > objective(theta) - 0.25 * t * decrease) & (t > 1e-8)

        t = jax.lax.while_loop(too_long, lambda t: t / 2, jnp.ones(()))
        theta = theta - t * direction
        count = count + 1
        return theta, count, margins.at[count].set((A @ theta).mean()), norms.at[count].set(jnp.linalg.norm(theta))

    margins = jnp.zeros(max_iter + 1).at[0].set((A @ anchor).mean())
    norms = jnp.zeros(max_iter + 1).at[0].set(jnp.linalg.norm(anchor))
    start = (anchor, jnp.zeros((), jnp.int32), margins, norms)
    theta, count, margins, norms = jax.lax.while_loop(
        lambda carry: (bound(carry[0]) > tol) & (carry[1] < max_iter), step, start
    )
    return theta, objective(theta), bound(theta), count, margins, norms
