"""The gated program has no cones: accelerated proximal gradient in the eigenbasis of X^T X.

Rotate the features once (group norms do not notice). There a gradient step in the metric L (lambda_j + shift) is a
gradient step preconditioned by the spectrum of the data, and the group prox in a diagonal metric is a scalar equation
a block (`prox`). L backtracks, momentum restarts where it points uphill, and the duality gap comes for free from the
gradient each iteration needs anyway.

Differs from the paper: it trains the gated program only as a relaxation and gives no solver of its own for it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coala_lib.cvxnn.losses import LOSSES
from coala_lib.cvxnn.operators import Features, features, fit, fit_adjoint
from coala_lib.cvxnn.prox import group_soft_threshold_metric

SHIFT = 1e-2  # of the mean eigenvalue: directions without data still move
TRACE = ("iteration", "estimated_gap", "dual")


class GatedRun(NamedTuple):
    """Iterates in the rotated coordinates.

    Attributes:
        U, Z: (1, P, d) last accepted point and extrapolated point; Z is the one measured.
        FU, FZ: (n,) their fits.
        momentum, L: step parameters.
        k: iterations; gap: relative duality gap at Z; dual: best bound.
        trace: (slots, 3); iterations that find it full leave no row.
    """

    U: Float[Array, "1 P d"]
    Z: Float[Array, "1 P d"]
    FU: Float[Array, " n"]
    FZ: Float[Array, " n"]
    momentum: Float[Array, ""]
    L: Float[Array, ""]
    k: Int[Array, ""]
    gap: Float[Array, ""]
    dual: Float[Array, ""]
    trace: Float[Array, "slots 3"]


@jax.jit
def rotate(A: Features) -> tuple[Features, Float[Array, "d d"], Float[Array, " d"]]:
    """(data in the eigenbasis Q of X^T X, Q, metric lambda + shift)."""
    values, Q = jnp.linalg.eigh(A.XT @ A.X)
    values = jnp.maximum(values, 0)
    X = A.X @ Q
    shift = SHIFT * values.mean() + jnp.finfo(X.dtype).tiny
    return features(X, A.D), Q, values + shift


@partial(jax.jit, static_argnames="slots")
def start_gated(A: Features, U: Float[Array, "1 P d"], slots: int) -> GatedRun:
    """Begin at U, given in the rotated coordinates."""
    FU, dtype = fit(A, U), A.X.dtype
    one, infinity = jnp.ones((), dtype), jnp.asarray(jnp.inf, dtype)
    # two buffers each, because the loop may reuse the memory of what it is given
    return GatedRun(
        U, U + 0, FU, FU + 0, one, one + 0, jnp.zeros((), jnp.int32), infinity, -infinity, jnp.zeros((slots, 3), dtype)
    )


@partial(jax.jit, static_argnames="loss", donate_argnames="run")
def run_gated(
    run: GatedRun,
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    metric: Float[Array, " d"],
    target: Float[Array, ""],
    limit: Int[Array, ""],
    loss: str,
) -> GatedRun:
    """Iterate until the relative duality gap at Z is at most `target`, in one compiled loop.

    Args:
        run: from `start_gated`, or from a former call to go on.
        A: data in the rotated coordinates.
        y, reg: the program.
        metric: (d,) lambda + shift.
        target: relative gap to reach.
        limit: iterations at most.
        loss: "squared" or "logistic".

    Returns:
        The run at the end; its Z is the point whose gap was measured.
    """
    law = LOSSES[loss]
    tiny = jnp.finfo(y.dtype).tiny

    def look(Z: Array, FZ: Array, best: Array) -> tuple[Array, Array, Array]:
        z = -law.derivative(FZ, y)
        c = fit_adjoint(A, z, 1)
        scale = law.scale(z, y, reg / jnp.maximum(jnp.linalg.norm(c, axis=-1).max(), tiny))
        dual = jnp.maximum(best, law.dual(scale * z, y))
        primal = law.value(FZ, y) + reg * jnp.linalg.norm(Z, axis=-1).sum()
        return c, dual, (primal - dual) / jnp.abs(dual)

    def unfinished(now: GatedRun) -> Bool[Array, ""]:
        return (now.k < limit) & ~(now.gap <= target) & ~jnp.isnan(now.gap)

    def move(now: GatedRun) -> GatedRun:
        c, dual, gap = look(now.Z, now.FZ, now.dual)
        trace = now.trace.at[now.k].set(jnp.stack([now.k.astype(y.dtype), gap, dual]), mode="drop")
        weights = now.L * metric
        new = group_soft_threshold_metric(now.Z + c / weights[None, None, :], weights, reg)
        Fnew = fit(A, new)
        short = law.curvature * ((Fnew - now.FZ) ** 2).sum() <= (weights * ((new - now.Z) ** 2).sum((0, 1))).sum()
        uphill = (metric * ((now.Z - new) * (new - now.U)).sum((0, 1))).sum() > 0
        momentum = jnp.where(uphill, 1.0, (1 + jnp.sqrt(1 + 4 * now.momentum**2)) / 2)
        push = jnp.where(uphill, 0.0, (now.momentum - 1) / momentum)
        moved = now._replace(
            U=new,
            Z=new + push * (new - now.U),
            FU=Fnew,
            FZ=Fnew + push * (Fnew - now.FU),
            momentum=momentum,
            L=now.L * 0.98,
        )
        stop = gap <= target
        retry = now._replace(L=2 * now.L)
        after = jax.tree.map(lambda a, b: jnp.where(short, a, b), moved, retry)
        after = jax.tree.map(lambda a, b: jnp.where(stop, a, b), now, after)
        return after._replace(k=now.k + 1, gap=gap, dual=dual, trace=trace)

    return jax.lax.while_loop(unfinished, move, run)
