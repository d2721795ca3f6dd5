"""CRONOS, corrected: ADMM on the splitting u = v, G u = s (paper, Eq. 4 and Algorithm 2).

    u  <- argmin 1/2||F u - y||^2 + rho/2||u - v + lam||^2 + sigma/2||G u - s + nu||^2     (`linsolve`)
    v  <- group soft-threshold of u + lam by reg / rho,      s <- max(G u + nu, 0)          (over-relaxed)
    lam <- lam + u - v,                                      nu <- nu + G u - s             (unit dual step)

Any other loss joins as a third split t = F u with penalty tau and dual pi; the squared loss is the case t = y, tau = 1,
pi = 0, so one u-step serves both.

Differs from the paper: the s-step carries its quadratic (as printed any s >= 0 is a minimiser); the dual step is 1
(as printed it is gamma/rho, which diverges for the paper's rho = 0.01); the two constraint blocks have penalties of
their own, because G G^T carries the scale of the data, and both follow the errors they cause in the objective;
the loop stops on an estimate of the duality gap, which `solve` then proves.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coala_lib.cvxnn.linsolve import Factors, Method, Penalties, prepare, solve_u
from coala_lib.cvxnn.losses import LOSSES
from coala_lib.cvxnn.operators import Features, cones_of, fit_of, products, pull_back
from coala_lib.cvxnn.prox import group_soft_threshold, orthant
from coala_lib.cvxnn.state import Measures, State, measure

OVER_RELAXATION = 1.6
CHECK_EVERY = 10  # iterations between two measurements
OFTEN, SELDOM = (600, 20), (4000, 200)  # (until, every): penalties are balanced, then stay fixed, as the theory asks
# of the penalties at the start; smaller ones make the u-system hard for conjugate gradients
BALANCE_RANGE = (0.3, 30.0)
TRACE = ("iteration", "estimated_gap", "dual", "primal_residual", "kkt_residual", "cone_violation", "rho", "cg_steps")


def step(
    state: State,
    factors: Factors,
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    penalties: Penalties,
    tol: Float[Array, ""],
    loss: str = "squared",
    method: Method = "woodbury",
    cg_steps: int = 8,
    alpha: float = OVER_RELAXATION,
) -> tuple[State, Int[Array, ""]]:
    """One iteration, as in the module header, with over-relaxation.

    Args:
        state: where to start.
        factors: from `linsolve.prepare` with the same penalties and method.
        A: data of the products.
        y: (n,) targets.
        reg: group-lasso strength.
        penalties: tau, rho, sigma.
        tol: largest block residual that the u-step may leave.
        loss: "squared" or "logistic".
        method: of the u-step.
        cg_steps: CG steps at most.
        alpha: over-relaxation, 1 for none.

    Returns:
        (next state, CG steps taken).
    """
    tau, rho, sigma = penalties
    halves = len(state.U)
    # F^T and G^T share one product with X^T
    pulled = sigma * cones_of(A, state.S - state.nu)
    target = tau * A.D * (state.T - state.pi)[:, None]
    pulled = pulled + jnp.stack([target, -target][:halves], axis=1)
    rhs = rho * (state.V - state.lam) + pull_back(A, pulled)
    U, steps = solve_u(factors, A, penalties, rhs, state.U, tol, method, cg_steps)
    XU = products(A, U)
    u_mixed = alpha * U + (1 - alpha) * state.V
    g_mixed = alpha * cones_of(A, XU) + (1 - alpha) * state.S
    V = group_soft_threshold(u_mixed + state.lam, reg / rho)
    S = orthant(g_mixed + state.nu)
    T, pi = state.T, state.pi
    if loss != "squared":
        t_mixed = alpha * fit_of(A, XU) + (1 - alpha) * state.T
        T = LOSSES[loss].prox(t_mixed + state.pi, y, tau)
        pi = state.pi + t_mixed - T
    return State(U, V, S, state.lam + u_mixed - V, state.nu + g_mixed - S, T, pi, state.k + 1), steps


class Run(NamedTuple):
    """What `run` carries.

    Attributes:
        state, penalties, factors: of the next iteration.
        dual: best bound; gap: estimated, relative to it.
        steps: CG steps so far.
        trace: (slots, columns), `length` of them in use.
        scale: of the penalties, relative to the start; kkt: last residual.
    """

    state: State
    penalties: Penalties
    factors: Factors
    dual: Float[Array, ""]
    gap: Float[Array, ""]
    steps: Int[Array, ""]
    trace: Float[Array, "slots columns"]
    length: Int[Array, ""]
    scale: Float[Array, ""]
    kkt: Float[Array, ""]


@partial(jax.jit, static_argnames=("method", "rank", "slots"))
def start_run(state: State, A: Features, penalties: Penalties, method: Method, rank: int, slots: int) -> Run:
    """Factor the u-step and lay out an empty trace."""
    dtype = A.X.dtype
    factors = prepare(A, penalties, method, len(state.U), rank)
    return Run(
        state,
        penalties,
        factors,
        jnp.asarray(-jnp.inf, dtype),
        jnp.asarray(jnp.inf, dtype),
        jnp.zeros((), jnp.int32),
        jnp.zeros((slots, len(TRACE)), dtype),
        jnp.zeros((), jnp.int32),
        jnp.ones((), dtype),
        jnp.ones((), dtype),
    )


def _balance(run: Run, look: Measures, A: Features, loss: str, method: Method, rank: int) -> Run:
    """Scale all penalties by the root of the ratio of the two errors, both in units of the objective."""
    state, penalties = run.state, run.penalties
    ratio = look.primal_error / jnp.maximum(look.dual_error, jnp.finfo(look.dual.dtype).tiny)
    lowest, highest = (bound / run.scale for bound in BALANCE_RANGE)
    factor = jnp.clip(jnp.clip(jnp.sqrt(ratio), 0.5, 2.0), lowest, highest)
    early, late = ((state.k <= until) & (state.k % every == 0) for until, every in (OFTEN, SELDOM))
    due = (early | late) & jnp.isfinite(factor)
    factor = jnp.where(due & (jnp.abs(factor - 1) > 0.2), factor, 1.0)
    tau = penalties.tau if loss == "squared" else penalties.tau * factor
    scaled = Penalties(tau, penalties.rho * factor, penalties.sigma * factor)
    # the unscaled multipliers rho lam, sigma nu, tau pi are what has been learnt: they stay
    state = state._replace(lam=state.lam / factor, nu=state.nu / factor, pi=state.pi / factor)
    factors = jax.lax.cond(factor != 1, lambda: prepare(A, scaled, method, len(state.U), rank), lambda: run.factors)
    return run._replace(state=state, penalties=scaled, factors=factors, scale=run.scale * factor)


@partial(jax.jit, static_argnames=("loss", "method", "rank", "cg_steps", "balance"), donate_argnames="run")
def run(
    run: Run,
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    target: Float[Array, ""],
    earliest: Int[Array, ""],
    limit: Int[Array, ""],
    loss: str,
    method: Method,
    rank: int,
    cg_steps: int,
    balance: bool,
) -> Run:
    """Iterate until the estimated relative gap is at most `target`, in one compiled loop.

    The estimate is (p(V) + what V's violation is worth - best dual bound) / |bound|: V need not be feasible, so only
    `certify` proves a gap. The u-step's tolerance is summable in k, as inexact ADMM asks, and follows the KKT residual.

    Args:
        run: from `start_run`, or from a former call to go on.
        A, y, reg: the program.
        target: estimated gap to reach.
        earliest: iteration before which the estimate is not believed.
        limit: iterations at most, counted from the start of the solve.
        loss, method, rank, cg_steps, balance: as in `solve`.

    Returns:
        The `Run` at the end.
    """

    def unfinished(now: Run) -> Bool[Array, ""]:
        reached = (now.gap <= target) & (now.state.k >= earliest)
        return (now.state.k < limit) & ~reached & ~jnp.isnan(now.gap)

    def move(now: Run) -> Run:
        def one(_: Int[Array, ""], carry: tuple[State, Array]) -> tuple[State, Array]:
            state, total = carry
            tol = reg * jnp.minimum((1 + state.k.astype(y.dtype) / CHECK_EVERY) ** -1.2, 0.1 * now.kkt)
            state, steps = step(state, now.factors, A, y, reg, now.penalties, tol, loss, method, cg_steps)
            return state, total + steps

        rest = jnp.minimum(CHECK_EVERY, limit - now.state.k)
        state, steps = jax.lax.fori_loop(0, rest, one, (now.state, now.steps))
        look = measure(state, A, y, reg, now.penalties, loss)
        dual = jnp.maximum(now.dual, look.dual)
        gap = (jnp.abs(look.primal - dual) + look.primal_error) / jnp.abs(dual)
        row = jnp.stack(
            [
                state.k.astype(y.dtype),
                gap,
                dual,
                look.primal_residual,
                look.kkt_residual,
                look.cone_violation,
                now.penalties.rho,
                steps.astype(y.dtype),
            ]
        )
        trace = now.trace.at[now.length].set(row, mode="drop")
        now = Run(
            state, now.penalties, now.factors, dual, gap, steps, trace, now.length + 1, now.scale, look.kkt_residual
        )
        return _balance(now, look, A, loss, method, rank) if balance else now

    return jax.lax.while_loop(unfinished, move, run)
