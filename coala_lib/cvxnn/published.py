"""Algorithm 2 of the paper as it is printed, and its repairs one at a time: for comparison, not for use.

    u  <- (I + F^T F / rho + G^T G)^-1 b         by CG with a Nystrom preconditioner of the whole system
    v  <- group soft-threshold of u + lam by reg / rho
    s  <- any s >= 0                             the printed step has no quadratic that ties s to G u
    lam <- lam + (gamma / rho)(u - v),   nu <- nu + (gamma / rho)(G u - s)

What print leaves open is an argument here: `slack` says which s >= 0 to take, `dual_step` what gamma / rho is.
One penalty serves both constraint blocks, there is no over-relaxation, and CG takes a fixed number of steps.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coala_lib.cvxnn.linsolve import Method, Penalties, conjugate_gradient, precondition, prepare, solve_u
from coala_lib.cvxnn.operators import Features, cones, cones_adjoint, features, fit, fit_adjoint
from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.cvxnn.prox import group_soft_threshold, orthant
from coala_lib.cvxnn.state import State, initial_state, measure

COLUMNS = (
    "split_objective", "primal", "dual", "cone_violation", "kkt_residual", "primal_residual", "multiplier_norm",
    "largest_nu", "largest_lam", "mean_objective", "mean_residual",
)  # fmt: skip
Slack = Literal["corrected", "zero", "one"]


def published_admm(
    program: ConvexProgram,
    rho: float,
    n_iter: int,
    *,
    slack: Slack = "corrected",
    dual_step: float = 1.0,
    method: Method = "nystrom",
    rank: int = 20,
    cg_steps: int = 32,
    error_decay: float | None = None,
    every: int = 1,
    seed_state: State | None = None,
) -> tuple[State, dict[str, np.ndarray]]:
    """Run Algorithm 2 for a fixed number of iterations.

    Args:
        program: a ReLU program with the squared loss.
        rho: the one penalty.
        n_iter: iterations, rounded up to a multiple of `every`.
        slack: "corrected" is s = max(G u + nu, 0); "zero" and "one" are two minimisers of the step as printed.
        dual_step: gamma / rho; 1 is the step of scaled duals, and anything above (1 + sqrt 5) / 2 has no guarantee.
        method: of the u-step; "woodbury" solves it exactly.
        rank: of the Nystrom preconditioner.
        cg_steps: CG steps an iteration; they stop early only at rounding, or as error_decay says.
        error_decay: CG stops where every block's residual is below reg (1 + k)^-error_decay; summable above 1.
        every: iterations between two rows of the trace.
        seed_state: state to go on from.

    Returns:
        (last state, trace). Trace columns, each (n_iter / every,): "iteration"; "split_objective" l(F u) + reg ||v||,
        the quantity of Theorem 1's plot, which can lie below the optimum; "primal" the objective at v, cones ignored;
        "dual" a valid lower bound; "cone_violation" of v; "kkt_residual"; "primal_residual" ||(u - v, G u - s)||;
        "multiplier_norm" ||(lam, nu)||, scaled; "largest_nu" and "largest_lam", the latter max ||rho lam_j|| / reg,
        at most 0 and 1 for a dual step of 1; "mean_objective" and "mean_residual" the split objective and the
        residual of the iterates averaged since `seed_state`.

    Raises:
        ValueError: for another variant or loss, or settings that are not positive.

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2), reg=0.5)
        >>> state, trace = published_admm(program, rho=1.0, n_iter=5, rank=2)
        >>> len(trace["dual"])
        5
    """
    if program.variant != "relu" or program.loss != "squared":
        raise ValueError("Algorithm 2 is stated for the ReLU program with the squared loss")
    if slack not in ("corrected", "zero", "one"):
        raise ValueError(f"slack must be 'corrected', 'zero' or 'one'; got {slack!r}")
    if not (rho > 0 and dual_step > 0 and n_iter > 0 and every > 0):
        raise ValueError("rho, dual_step, n_iter and every must be positive")
    with jax.enable_x64(program.X.dtype == np.float64):
        rank = min(rank, 2 * program.patterns.shape[1] * program.X.shape[1])
        A = features(jnp.asarray(program.X), jnp.asarray(program.patterns))
        y = jnp.asarray(program.y)
        state = initial_state(A, y) if seed_state is None else State(*(jnp.asarray(a) for a in seed_state))
        state, rows = _run(
            state,
            Features(A.X, jnp.asarray(np.ascontiguousarray(program.X.T)), A.D),
            y,
            jnp.asarray(program.reg, y.dtype),
            jnp.asarray(rho, y.dtype),
            jnp.asarray(dual_step, y.dtype),
            slack,
            method,
            rank,
            cg_steps,
            error_decay,
            jnp.asarray(every),
            -(-n_iter // every),
        )
        rows = np.asarray(rows)
        trace = {"iteration": every * np.arange(1, len(rows) + 1), **dict(zip(COLUMNS, rows.T, strict=True))}
        return State(*(np.asarray(a) for a in state)), trace


@partial(jax.jit, static_argnames=("slack", "method", "rank", "cg_steps", "error_decay", "looks"))
def _run(
    state: State,
    A: Features,
    y: Array,
    reg: Array,
    rho: Array,
    dual_step: Array,
    slack: Slack,
    method: Method,
    rank: int,
    cg_steps: int,
    error_decay: float | None,
    every: Int[Array, ""],
    looks: int,
) -> tuple[State, Array]:
    penalties = Penalties(jnp.ones((), y.dtype), rho, rho)
    factors = prepare(A, penalties, method, 2, rank)
    Fty, first = fit_adjoint(A, y, 2), state.k
    rounding = jnp.finfo(y.dtype).eps * jnp.linalg.norm(Fty, axis=-1).max()

    def whole(U: Array) -> Array:
        # the listing multiplies by G and its transpose; that G^T G is a Gram matrix is not in the paper
        return fit_adjoint(A, fit(A, U), 2) + rho * U + rho * cones_adjoint(A, cones(A, U))

    def one(_: Int[Array, ""], carry: tuple[State, State]) -> tuple[State, State]:
        state, total = carry
        b = Fty + rho * (state.V - state.lam) + rho * cones_adjoint(A, state.S - state.nu)
        tol = rounding if error_decay is None else reg * (1 + state.k.astype(y.dtype)) ** -error_decay
        if method in ("nystrom", "plain"):
            divide = precondition(factors, penalties, method)
            U, _ = conjugate_gradient(whole, b, state.U, divide, tol, cg_steps)
        else:
            U, _ = solve_u(factors, A, penalties, b, state.U, tol, method, cg_steps)
        GU = cones(A, U)
        V = group_soft_threshold(U + state.lam, reg / rho)
        S = {"corrected": orthant(GU + state.nu), "zero": jnp.zeros_like(GU), "one": jnp.ones_like(GU)}[slack]
        lam, nu = state.lam + dual_step * (U - V), state.nu + dual_step * (GU - S)
        state = State(U, V, S, lam, nu, state.T, state.pi, state.k + 1)
        return state, jax.tree.map(jnp.add, total, state)

    norm = jnp.linalg.norm

    def objective(at: State) -> Array:
        return 0.5 * ((fit(A, at.U) - y) ** 2).sum() + reg * norm(at.V, axis=-1).sum()

    def residual(at: State) -> Array:
        return jnp.hypot(norm(at.U - at.V), norm(cones(A, at.U) - at.S))

    def chunk(carry: tuple[State, State], _: None) -> tuple[tuple[State, State], Array]:
        state, total = jax.lax.fori_loop(0, every, one, carry)
        look = measure(state, A, y, reg, penalties, "squared")
        K = (state.k - first).astype(y.dtype)
        mean = State(*(part / K for part in total[:-1]), state.k)
        row = [objective(state), look.primal, look.dual, look.cone_violation, look.kkt_residual, residual(state)]
        row += [jnp.hypot(norm(state.lam), norm(state.nu)), state.nu.max(), rho * norm(state.lam, axis=-1).max() / reg]
        row += [objective(mean), residual(mean)]
        return (state, total), jnp.stack(row)

    (state, _), rows = jax.lax.scan(chunk, (state, jax.tree.map(jnp.zeros_like, state)), None, length=looks)
    return state, rows


def dense_admm(
    F: Float[np.ndarray, "n k"],
    G: Float[np.ndarray, "m k"],
    y: Float[np.ndarray, " n"],
    d: int,
    reg: float,
    rho: float,
    n_iter: int,
    *,
    update_slack: bool = True,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The corrected iteration on explicit matrices, written apart from the solver: an oracle, and room for other F, G.

    Args:
        F, G: dense matrices, as `operators.explicit_matrices` makes them.
        y: targets.
        d: length of a block of u.
        reg, rho: as in `published_admm`.
        n_iter: iterations.
        update_slack: False leaves s and nu at zero, because Eqs. 4a-c of the earlier paper list no update of them.

    Returns:
        (u, v) after the last iteration.

    Example:
        >>> u, v = dense_admm(np.eye(2), np.eye(2), np.array([3.0, 1.5]), d=1, reg=1.0, rho=1.0, n_iter=200)
        >>> v.round(6).tolist()
        [2.0, 0.5]
    """
    inverse = np.linalg.inv(F.T @ F + rho * (np.eye(F.shape[1]) + G.T @ G))
    u, v, lam = np.zeros((3, F.shape[1]))
    s, nu = np.zeros((2, len(G)))
    for _ in range(n_iter):
        u = inverse @ (F.T @ y + rho * (v - lam) + rho * G.T @ (s - nu))
        blocks = (u + lam).reshape(-1, d)
        sizes = np.linalg.norm(blocks, axis=1, keepdims=True)
        v = (blocks * np.maximum(1 - reg / rho / np.maximum(sizes, 1e-300), 0)).ravel()
        lam = lam + u - v
        if update_slack:
            slack = G @ u + nu
            s, nu = np.maximum(slack, 0), np.minimum(slack, 0)
    return u, v
