"""Semismooth Newton on the augmented Lagrangian: few, dear steps where ADMM takes many cheap ones.

A round minimises phi (`augmented`) by Newton's method with conjugate gradients, to a share of the last gap; then both
multipliers are updated and the penalties grow. After a round -l'(F u) is a dual point nearly as it stands.

Differs from the paper: it names ADMM; this is the method of Li, Sun and Toh (2018) for the lasso, carried to cones.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coala_lib.cvxnn import augmented
from coala_lib.cvxnn.augmented import Look, Multipliers, Preconditioner
from coala_lib.cvxnn.losses import LOSSES
from coala_lib.cvxnn.operators import Features, cones_of, fit_of, products

INNER, CG_STEPS, LENGTHS = 6, 60, 12  # at most: Newton steps a round, CG steps a Newton step, step lengths tried
GROWTH = 5.0  # of the penalties, after a round that reached its tolerance
QUICK = 0.3  # unless it left at most this share of the gap
LEFT = (1e-3, 0.1)  # least and most share of the gradient that CG may leave
FLATTER = 0.3  # share of the slope that a step length may leave
RENEW = 2  # the preconditioner is renewed after a step of more than 2 d^2 / n CG steps: what its inversion costs
PATIENCE, WORTH = 30, 0.8  # the loop ends after so many rounds that did not bring the gap below this share of the best
NEVER = 10**6
TRACE = ("iteration", "estimated_gap", "dual", "primal_residual", "kkt_residual", "cone_violation", "rho", "cg_steps")


class Newton(NamedTuple):
    """What the loop carries.

    Attributes:
        U, V: (H, P, d) minimiser of phi so far, and its group-sparse copy.
        XU: (n, H, P) products X u.
        at: multipliers and penalties.
        seen: phi at U.
        gram: (H, P, d, d) sums over the rows of `bent`, (n, H, P).
        M: preconditioner, perhaps of an earlier step.
        k, steps: Newton and CG steps so far; last: CG steps of the last Newton step.
        dual: best bound so far.
        gap: estimated, relative to the last bound; best: least so far; idle: rounds since it fell.
        residual: longest block of phi's gradient over reg.
        trace: (slots, columns), `length` of them in use, one a round.
    """

    U: Float[Array, "H P d"]
    V: Float[Array, "H P d"]
    XU: Float[Array, "n H P"]
    at: Multipliers
    seen: Look
    gram: Float[Array, "H P d d"]
    bent: Bool[Array, "n H P"]
    M: Preconditioner
    k: Int[Array, ""]
    steps: Int[Array, ""]
    last: Int[Array, ""]
    dual: Float[Array, ""]
    gap: Float[Array, ""]
    best: Float[Array, ""]
    idle: Int[Array, ""]
    residual: Float[Array, ""]
    trace: Float[Array, "slots columns"]
    length: Int[Array, ""]


def start_newton(U: Float[Array, "H P d"], at: Multipliers, slots: int) -> Newton:
    """Lay out the loop: weights, multipliers and penalties to start from, and an empty trace of `slots` rounds."""
    none, far = jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, U.dtype)
    blocks, bent = jnp.zeros((*U.shape, U.shape[-1]), U.dtype), jnp.zeros(at.mu.shape, bool)
    trace = jnp.zeros((slots, len(TRACE)), U.dtype)
    # a round begins with fresh products, and a look at phi
    XU, rows = jnp.zeros_like(at.mu), jnp.zeros_like(at.mu[:, 0, 0])
    seen = Look(rows, rows, at.lam, at.mu, at.lam[..., :1], at.lam)
    M = Preconditioner(blocks, blocks[0, 0])
    return Newton(U, U, XU, at, seen, blocks, bent, M, none, none, none + NEVER, -far, far, far, none, far, trace, none)


def conjugate_gradients(
    product: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    b: Float[Array, "H P d"],
    left: Float[Array, ""],
) -> tuple[Float[Array, "H P d"], Int[Array, ""]]:
    """Solve product(x) = b until the residual is at most `left` times ||b||; returns (x, steps)."""
    goal = left * jnp.linalg.norm(b)

    def move(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        x, r, p, fall, count = carry
        curved = product(p)
        length = fall / (p * curved).sum()
        r = r - length * curved
        q = precondition(r)
        fell = (r * q).sum()
        return x + length * p, r, q + fell / fall * p, fell, count + 1

    def unfinished(carry: tuple[Array, ...]) -> Bool[Array, ""]:
        _, r, _, fall, count = carry
        return (jnp.linalg.norm(r) > goal) & (count < CG_STEPS) & (fall > 0)

    first = precondition(b)
    begin = (jnp.zeros_like(b), b, first, (b * first).sum(), jnp.zeros((), jnp.int32))
    x, _, _, _, count = jax.lax.while_loop(unfinished, move, begin)
    return x, count


def step_length(slope: Callable[[Array], Array], at_zero: Float[Array, ""]) -> Float[Array, ""]:
    """1 where a convex function still falls there, else a point of (0, 1) where its slope has all but vanished.

    Regula falsi on slopes, not values: differences of values drown in float32.

    Args:
        slope: derivative along the step.
        at_zero: its value at 0, negative.
    """

    def narrow(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, at_low, at_high, s, found, count = carry
        falls = found < 0
        low, at_low = jnp.where(falls, s, low), jnp.where(falls, found, at_low)
        high, at_high = jnp.where(falls, high, s), jnp.where(falls, at_high, found)
        width = high - low
        s = jnp.clip(low - at_low * width / (at_high - at_low), low + 0.1 * width, high - 0.1 * width)
        return low, high, at_low, at_high, s, slope(s), count + 1

    def steep(carry: tuple[Array, ...]) -> Bool[Array, ""]:
        *_, found, count = carry
        return (at_one > 0) & (jnp.abs(found) > -FLATTER * at_zero) & (count < LENGTHS)

    zero, one = jnp.zeros_like(at_zero), jnp.ones_like(at_zero)
    at_one = slope(one)
    begin = (zero, one, at_zero, at_one, one, at_one, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(steep, narrow, begin)[4]


def newton_step(
    now: Newton, A: Features, y: Float[Array, " n"], reg: Float[Array, ""], whole: Float[Array, "d d"], loss: str
) -> Newton:
    """One Newton step on phi: direction by conjugate gradients, length by the slope along it.

    Args:
        now: where to start, with phi there.
        A, y, reg, loss: the program.
        whole: (d, d) X^T X.

    Returns:
        The next `Newton`, with phi there.
    """
    seen = now.seen
    bent = seen.mu > 0
    gram = augmented.corrected_sums(A, now.gram, now.bent, bent, whole)
    H = augmented.curvature(now.at, seen, gram, y, reg, loss)
    stale = now.last > RENEW * len(whole) ** 2 // len(y)
    M = jax.lax.cond(stale, lambda: augmented.preconditioner(H, whole), lambda: now.M)
    left = jnp.clip(now.residual, *LEFT)
    x, count = conjugate_gradients(
        lambda x: augmented.bend(H, A, x), lambda r: augmented.precondition(M, r), -seen.gradient, left
    )
    Xx = products(A, x)
    slope = augmented.slope_along(now.at, seen, now.U, now.XU, x, Xx, A, y, reg, loss)
    length = step_length(slope, (seen.gradient * x).sum())
    now = now._replace(U=now.U + length * x, XU=now.XU + length * Xx, gram=gram, bent=bent, M=M)
    return _looked(now._replace(k=now.k + 1, steps=now.steps + count, last=count), A, y, reg, loss)


def _looked(now: Newton, A: Features, y: Float[Array, " n"], reg: Float[Array, ""], loss: str) -> Newton:
    seen = augmented.look(now.at, now.U, now.XU, A, y, reg, loss)
    return now._replace(seen=seen, residual=jnp.linalg.norm(seen.gradient, axis=-1).max() / reg)


def _round(
    now: Newton,
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    whole: Float[Array, "d d"],
    target: Float[Array, ""],
    limit: Int[Array, ""],
    loss: str,
) -> Newton:
    """Minimise phi to a share of the last gap, measure, update multipliers and penalties."""
    norm = jnp.linalg.norm
    # products and sums anew: what rounding left in them would grow with the penalties
    now = now._replace(XU=products(A, now.U), gram=jnp.zeros_like(now.gram), bent=jnp.zeros_like(now.bent))
    tol, until = jnp.maximum(0.1 * target, jnp.minimum(0.03, 0.1 * now.gap)), jnp.minimum(now.k + INNER, limit)
    now = jax.lax.while_loop(
        lambda now: (now.residual > tol) & (now.k < until),
        lambda now: newton_step(now, A, y, reg, whole, loss),
        _looked(now, A, y, reg, loss),
    )
    (lam, _, rho, sigma), seen = now.at, now.seen
    V = (rho * now.U + lam - seen.lam) / rho
    XV = products(A, V)
    slack = cones_of(A, XV)
    longest = norm(seen.lam - seen.gradient, axis=-1).max()
    z = -seen.slope
    dual = LOSSES[loss].dual(LOSSES[loss].scale(z, y, reg / longest) * z, y)
    primal = LOSSES[loss].value(fit_of(A, XV), y) + reg * norm(V, axis=-1).sum()
    gap = (jnp.abs(primal - dual) + jnp.abs((seen.mu * slack).sum())) / jnp.abs(dual)
    apart, outside = norm(now.U - V) / norm(V), norm(jnp.minimum(slack, 0)) / norm(XV)
    k, steps = now.k.astype(y.dtype), now.steps.astype(y.dtype)
    best_dual = jnp.maximum(now.dual, dual)
    row = jnp.stack([k, gap, best_dual, apart, now.residual, outside, rho, steps])
    slow = (now.residual <= tol) & (gap > QUICK * now.gap)
    grown = jnp.where(slow, GROWTH, 1.0).astype(y.dtype)
    better = gap < WORTH * now.best
    return now._replace(
        V=V,
        at=Multipliers(seen.lam, seen.mu, rho * grown, sigma * grown),
        dual=best_dual,
        gap=gap,
        best=jnp.where(better, gap, now.best),
        idle=jnp.where(better, 0, now.idle + 1),
        last=jnp.where(grown > 1, NEVER, now.last),
        trace=now.trace.at[now.length].set(row, mode="drop"),
        length=now.length + 1,
    )


@partial(jax.jit, static_argnames="loss", donate_argnames="run")
def run_newton(
    run: Newton,
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    target: Float[Array, ""],
    pause: Int[Array, ""],
    limit: Int[Array, ""],
    loss: str,
) -> Newton:
    """Rounds until the estimated relative gap is at most `target`, in one compiled loop.

    Args:
        run: from `start_newton`, or from a former call to go on.
        A, y, reg: the program.
        target: estimated gap to reach.
        pause: Newton steps after which no new round begins.
        limit: Newton steps at most, both counted from the start of the solve.
        loss: "squared" or "logistic".

    Returns:
        The `Newton` at the end; `idle` tells whether it gave up because rounding leaves no room.
    """
    whole = A.XT @ A.X

    def unfinished(now: Newton) -> Bool[Array, ""]:
        return (now.gap > target) & (now.k < pause) & (now.idle < PATIENCE) & ~jnp.isnan(now.gap)

    return jax.lax.while_loop(unfinished, lambda now: _round(now, A, y, reg, whole, target, limit, loss), run)
