"""CRONOS, corrected: ADMM on the splitting u = v, G u = s (paper, Eq. 4 and Algorithm 2).

    u  <- argmin 1/2||F u - y||^2 + rho/2||u - v + lam||^2 + sigma/2||G u - s + nu||^2     (exact, `linsolve`)
    v  <- group soft-threshold of u + lam by reg / rho,      s <- max(G u + nu, 0)          (over-relaxed)
    lam <- lam + u - v,                                      nu <- nu + G u - s             (unit dual step)

Differs from the paper: the s-step carries its quadratic (as printed any s >= 0 is a minimiser); the dual step is 1
(as printed it is gamma/rho, which diverges for the paper's rho = 0.01); the two constraint blocks have penalties of
their own, because G G^T carries the scale of the data; the u-step is exact; the solve stops on the duality gap.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from coala_lib.cvxnn.certificate import certify
from coala_lib.cvxnn.linsolve import Inverses, factor, solve_u
from coala_lib.cvxnn.program import ConvexProgram, cones, cones_adjoint, fit_adjoint
from coala_lib.cvxnn.prox import group_soft_threshold, orthant
from coala_lib.solution import Certificate, Solution, Status

OVER_RELAXATION = 1.6
FIRST_CERTIFICATE, GROWTH = 100, 1.5  # a certificate costs like many iterations, so they thin out


class State(NamedTuple):
    """Iterates and scaled duals; shapes as in `program`. Invariants: nu <= 0 and ||rho lam_j|| <= reg."""

    U: Float[Array, "2 P d"]
    V: Float[Array, "2 P d"]
    S: Float[Array, "2 n P"]
    lam: Float[Array, "2 P d"]
    nu: Float[Array, "2 n P"]
    k: Int[Array, ""]


def initial_state(program: ConvexProgram) -> State:
    """All zeros: the start for which Theorem 1's constants are stated."""
    (n, d), P, dtype = program.X.shape, program.patterns.shape[1], program.X.dtype
    blocks, rows = jnp.zeros((2, P, d), dtype), jnp.zeros((2, n, P), dtype)
    return State(blocks, blocks, rows, blocks, rows, jnp.zeros((), jnp.int32))


def step(
    state: State,
    inverses: Inverses,
    X: Float[Array, "n d"],
    D: Float[Array, "n P"],
    Fty: Float[Array, "2 P d"],
    reg: Float[Array, ""],
    rho: Float[Array, ""],
    sigma: Float[Array, ""],
) -> State:
    """One iteration, as in the module header, with over-relaxation."""
    alpha = OVER_RELAXATION
    rhs = Fty + rho * (state.V - state.lam) + sigma * cones_adjoint(X, D, state.S - state.nu)
    U = solve_u(inverses, X, D, rhs)
    u_mixed = alpha * U + (1 - alpha) * state.V
    g_mixed = alpha * cones(X, D, U) + (1 - alpha) * state.S
    V = group_soft_threshold(u_mixed + state.lam, reg / rho)
    S = orthant(g_mixed + state.nu)
    return State(U, V, S, state.lam + u_mixed - V, state.nu + g_mixed - S, state.k + 1)


@jax.jit
def run(
    state: State,
    inverses: Inverses,
    X: Float[Array, "n d"],
    D: Float[Array, "n P"],
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    rho: Float[Array, ""],
    sigma: Float[Array, ""],
    steps: int | Int[Array, ""],
) -> State:
    """`steps` iterations in one compiled loop."""
    Fty = fit_adjoint(X, D, y)
    return jax.lax.fori_loop(0, steps, lambda _, s: step(s, inverses, X, D, Fty, reg, rho, sigma), state)


_factor = jax.jit(factor)


def solve(
    program: ConvexProgram,
    tol: float = 1e-3,
    max_iter: int = 5000,
    rho: float | None = None,
    sigma: float = 1.0,
    progress: bool = False,
) -> Solution:
    """Solve to a relative duality gap.

    Args:
        program: what to solve.
        tol: relative duality gap to reach; float32 data reaches about 1e-4.
        max_iter: iterations at most.
        rho: penalty of u = v; by default 0.1 * sigma * trace(X^T X) / d.
        sigma: penalty of G u = s.
        progress: show a tqdm bar.

    Returns:
        A `Solution` whose v and w are cone-feasible, with its certificate.

    Raises:
        ValueError: for tol, max_iter, rho or sigma that are not positive.

    Example:
        >>> from coala_lib.cvxnn.gates import sample_gates
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(40, 3))
        >>> program = ConvexProgram(X, np.sign(X[:, 0]), sample_gates(X, 4), reg=0.5)
        >>> solve(program, tol=1e-3).status.name
        'SOLVED'
    """
    if not tol > 0 or max_iter < 1 or not sigma > 0 or (rho is not None and not rho > 0):
        raise ValueError(f"tol, max_iter, rho and sigma must be positive; got {tol}, {max_iter}, {rho}, {sigma}")
    if rho is None:
        rho = 0.1 * sigma * float(np.square(program.X).sum()) / program.X.shape[1]
    with jax.enable_x64(program.X.dtype == np.float64):
        return _solve(program, tol, max_iter, rho, sigma, progress)


def _solve(program: ConvexProgram, tol: float, max_iter: int, rho: float, sigma: float, progress: bool) -> Solution:
    dtype = program.X.dtype
    X, D, y = (jnp.asarray(a, dtype) for a in (program.X, program.patterns, program.y))
    weights = tuple(jnp.asarray(value, dtype) for value in (program.reg, rho, sigma))
    inverses = _factor(X, D, weights[1], weights[2])
    state, best, trace, next_check = initial_state(program), None, [], FIRST_CERTIFICATE
    with tqdm(total=max_iter, unit="it", desc="cronos", disable=not progress) as bar:
        while int(state.k) < max_iter:
            steps = min(next_check, max_iter) - int(state.k)
            state = run(state, inverses, X, D, y, *weights, steps)
            next_check = int(GROWTH * next_check)
            if not _finite(state):
                break
            U, V, lam, nu = (np.asarray(a) for a in (state.U, state.V, state.lam, state.nu))
            # every bound seen is valid, so the best primal and the best dual make the certificate
            best = _better(best, *certify(program, U, V, rho * lam, sigma * nu))
            gap = best[1].relative_gap
            trace.append((int(state.k), float(np.linalg.norm(U - V)), best[1].kkt_residual, gap))
            bar.set_postfix(gap=f"{gap:.1e}")
            bar.update(steps)
            if gap <= tol:
                break
    if best is None:
        # zero is feasible, and y gives a dual point: an honest, weak certificate
        blocks, rows = np.zeros(state.U.shape), np.zeros(state.nu.shape)
        best = certify(program, blocks, blocks, blocks, rows)
    (v, w), certificate = best
    solved, blocks = certificate.relative_gap <= tol, np.zeros(state.U.shape)
    if solved and (nothing := program.objective(*blocks)) <= certificate.primal:
        # reg is above `reg_max`: the iterates near zero, and zero itself is the better point
        (v, w), certificate = blocks, replace(certificate, primal=nothing, cone_violation=0.0)
    status = Status.SOLVED if solved else Status.MAX_ITER if _finite(state) else Status.DIVERGED
    names = ("iteration", "primal_residual", "kkt_residual", "relative_gap")
    table = np.array(trace).reshape(-1, len(names))
    return Solution(v, w, status, certificate, int(state.k), dict(zip(names, table.T, strict=True)))


def _finite(state: State) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in state)


def _better(
    best: tuple[np.ndarray, Certificate] | None, point: np.ndarray, certificate: Certificate
) -> tuple[np.ndarray, Certificate]:
    if best is None:
        return point, certificate
    kept, old = best
    if certificate.primal > old.primal:
        point, certificate = kept, replace(certificate, primal=old.primal, cone_violation=old.cone_violation)
    return point, replace(certificate, dual=max(certificate.dual, old.dual))
