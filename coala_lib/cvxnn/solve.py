"""Solve a program to a certified duality gap: place the data, run the compiled loop, prove the result in float64.

The loop stops on an estimate; the certificate is computed here, once or twice a solve. Where it falls short of the
tolerance the loop goes on with a tighter target, so `Status.SOLVED` always means a proven gap.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from tqdm import tqdm

from coala_lib.cvxnn import cronos, gated
from coala_lib.cvxnn.certificate import certify
from coala_lib.cvxnn.linsolve import Method, Penalties, choose_method
from coala_lib.cvxnn.operators import Features
from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.cvxnn.state import State, initial_state
from coala_lib.solution import Certificate, Solution, Status

PROGRESS_EVERY = 200  # iterations between two updates of the bar
TRACE_SLOTS = 4096
METHODS = ("woodbury", "cg", "nystrom", "plain")


def solve(
    program: ConvexProgram,
    tol: float = 1e-3,
    max_iter: int = 5000,
    *,
    method: Method | None = None,
    rho: float | None = None,
    sigma: float | None = None,
    balance: bool = True,
    rank: int = 20,
    cg_steps: int = 8,
    start: Solution | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Solution:
    """Solve to a relative duality gap.

    The ReLU variant runs ADMM (`cronos`), the gated variant accelerated proximal gradient (`gated`). float64 features
    are solved in float64, all others in float32, which reaches gaps of about 1e-4.

    Args:
        program: what to solve.
        tol: relative duality gap to prove.
        max_iter: iterations at most.
        method: of the u-step, see `linsolve`; by default chosen by the number of rows and the dtype.
        rho: penalty of u = v; by default 0.1 * sigma * trace(X^T X) / d.
        sigma: penalty of G u = s; by default 0.3 times the loss's curvature.
        balance: let the penalties follow the errors during the first iterations.
        rank: of the Nystrom preconditioner.
        cg_steps: CG steps an iteration at most.
        start: solution of a program with the same X, gates and variant; its penalties replace rho and sigma.
        mesh: device mesh; the rows of X are sharded over its first axis.
        progress: show a tqdm bar.

    Returns:
        A `Solution` whose v and w are feasible, with its certificate. For the gated variant v holds u and w is zero.

    Raises:
        ValueError: for settings that are not positive, an unknown method, or a start of another shape.

    Example:
        >>> from coala_lib.cvxnn.gates import sample_gates
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(40, 3))
        >>> program = ConvexProgram(X, np.sign(X[:, 0]), sample_gates(X, 4), reg=0.5)
        >>> solve(program, tol=1e-3).status.name
        'SOLVED'
    """
    numbers = {"tol": tol, "max_iter": max_iter, "rho": rho, "sigma": sigma, "rank": rank, "cg_steps": cg_steps}
    for name, value in numbers.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive; got {value}")
    if method is not None and method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if mesh is not None and method == "woodbury":
        raise ValueError("method='woodbury' needs all rows on one device; leave method out or use 'cg' with a mesh")
    (n, d), P = program.X.shape, program.patterns.shape[1]
    if start is not None and not _fits(program, start):
        raise ValueError(f"start must solve a {program.variant} program of the same shape: n = {n}, d = {d}, P = {P}")
    rank = min(rank, program.halves * P * d)
    with (
        jax.enable_x64(program.X.dtype == np.float64),
        tqdm(total=max_iter, unit="it", desc="solve", disable=not progress) as bar,
    ):
        A, y, place = _place(program, mesh)
        if program.variant == "gated":
            return _solve_gated(program, A, y, place, tol, max_iter, start, bar, progress)
        method = method or choose_method(n, y.dtype == jnp.float64, mesh is not None)
        sigma = 0.3 * program.loss_function.curvature if sigma is None else sigma
        rho = 0.1 * sigma * float(np.square(program.X).sum()) / d if rho is None else rho
        tau = 1.0 if program.loss == "squared" else program.loss_function.curvature
        penalties = Penalties(*(jnp.asarray(value, y.dtype) for value in (tau, rho or 1.0, sigma)))
        settings = {"method": method, "rank": rank, "cg_steps": cg_steps, "balance": balance}
        return _solve_relu(program, A, y, place, penalties, settings, tol, max_iter, start, bar, progress)


_STATE = {"relu": len(State._fields) - 1 + 3, "gated": 1}  # arrays that a warm start carries


def _fits(program: ConvexProgram, start: Solution) -> bool:
    (n, d), P, state = program.X.shape, program.patterns.shape[1], start.state
    if state is None or len(state) != _STATE[program.variant] or start.v.shape != (P, d):
        return False
    return program.variant == "gated" or len(state[2]) == n


def _place(program: ConvexProgram, mesh: Mesh | None) -> tuple[Features, Array, Callable[..., Array]]:
    """(data, targets, a function that places an array whose axis `rows` runs over the rows)."""
    dtype, padding = program.X.dtype, 0
    if mesh is not None:
        mesh = Mesh(mesh.devices, mesh.axis_names)  # explicit axes become automatic: the compiler spreads the products
        padding = -len(program.X) % mesh.shape[mesh.axis_names[0]]

    def place(a: np.ndarray, rows: int | None = 0) -> Array:
        a = np.asarray(a, dtype)
        if rows is not None and padding:
            # rows of zeros with target zero change neither loss: their fit is zero
            a = np.pad(a, [(0, padding if axis == rows else 0) for axis in range(a.ndim)])
        if mesh is None:
            return jnp.asarray(a)
        axes = [mesh.axis_names[0] if axis == rows else None for axis in range(a.ndim)]
        return jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes)))

    A = Features(place(program.X), place(np.ascontiguousarray(program.X.T), 1), place(program.patterns))
    return A, place(program.y), place


def _solve_relu(
    program: ConvexProgram,
    A: Features,
    y: Array,
    place: Callable[..., Array],
    penalties: Penalties,
    settings: dict,
    tol: float,
    max_iter: int,
    start: Solution | None,
    bar: tqdm,
    progress: bool,
) -> Solution:
    n, P = len(program.X), program.patterns.shape[1]
    state = initial_state(A, y)
    if start is not None:
        *arrays, tau, rho, sigma = start.state
        rows = {"S": 0, "nu": 0, "T": 0, "pi": 0}
        placed = {name: place(a, rows.get(name)) for name, a in zip(state._fields[:-1], arrays, strict=True)}
        if program.loss == "squared":
            # the start may have had another loss, with a fit and a dual of its own
            placed["T"], placed["pi"], tau = y, jnp.zeros_like(y), 1.0
        state = state._replace(**placed)
        penalties = Penalties(*(jnp.asarray(value, y.dtype) for value in (tau, rho, sigma)))
    else:
        rows = place(np.zeros((n, 2, P)))
        state = state._replace(S=rows, nu=rows)
    run = cronos.start_run(state, A, penalties, settings["method"], settings["rank"], TRACE_SLOTS)
    reg = jnp.asarray(program.reg, y.dtype)
    advance = partial(cronos.run, A=A, y=y, reg=reg, loss=program.loss, **settings)
    best, target, earliest, certified = None, 0.6 * tol, 0, []
    while True:
        stop = min(max_iter, int(run.state.k) + PROGRESS_EVERY) if progress else max_iter
        run = advance(run, target=jnp.asarray(target, y.dtype), earliest=earliest, limit=stop)
        k, gap = int(run.state.k), float(run.gap)
        bar.update(k - bar.n)
        bar.set_postfix(gap=f"{gap:.1e}")
        broken = not _finite(run)
        if gap > target and k < max_iter and not broken:
            continue
        if not broken:
            U, V, S, lam, nu, T, pi = (np.asarray(a) for a in run.state[:-1])
            S, nu, T, pi = S[:n], nu[:n], T[:n], pi[:n]
            tau, rho, sigma = (float(value) for value in run.penalties)
            best = _better(
                best, *certify(program, U, V, rho * lam, sigma * nu), (U, V, S, lam, nu, T, pi, tau, rho, sigma)
            )
            certified.append((k, best[1].relative_gap))
        if broken or k >= max_iter or best[1].relative_gap <= tol:
            break
        # the estimate was too hopeful: ask for as much less as the proof fell short, and not at once
        target, earliest = 0.8 * min(target, gap * tol / best[1].relative_gap), int(1.1 * k)
    trace = _trace(cronos.TRACE, np.asarray(run.trace)[: int(run.length)], certified)
    return _finish(program, best, tol, int(run.state.k), trace, broken)


def _solve_gated(
    program: ConvexProgram,
    A: Features,
    y: Array,
    place: Callable[..., Array],
    tol: float,
    max_iter: int,
    start: Solution | None,
    bar: tqdm,
    progress: bool,
) -> Solution:
    rotated, Q, metric = gated.rotate(A)
    U = jnp.zeros((1, program.patterns.shape[1], program.X.shape[1]), y.dtype)
    if start is not None:
        U = place(start.v[None], None) @ Q
    run = gated.start_gated(rotated, U, TRACE_SLOTS)
    advance = partial(
        gated.run_gated, A=rotated, y=y, reg=jnp.asarray(program.reg, y.dtype), metric=metric, loss=program.loss
    )
    best, target, certified = None, 0.8 * tol, []
    while True:
        limit = min(max_iter, int(run.k) + PROGRESS_EVERY) if progress else max_iter
        run = advance(run, target=jnp.asarray(target, y.dtype), limit=limit)
        k, gap = int(run.k), float(run.gap)
        bar.update(k - bar.n)
        bar.set_postfix(gap=f"{gap:.1e}")
        broken = not _finite(run)
        if gap > target and k < max_iter and not broken:
            continue
        if not broken:
            point = np.asarray(run.Z @ Q.T)
            best = _better(best, *certify(program, point), (point,))
            certified.append((k, best[1].relative_gap))
        if broken or k >= max_iter or best[1].relative_gap <= tol:
            break
        target /= 2
    trace = _trace(gated.TRACE, np.asarray(run.trace)[: int(run.k)], certified)
    return _finish(program, best, tol, int(run.k), trace, broken)


def _trace(names: Sequence[str], table: np.ndarray, certified: list[tuple[int, float]]) -> dict[str, np.ndarray]:
    k, gap = np.array(certified, float).reshape(-1, 2).T
    return {**dict(zip(names, table.T, strict=True)), "certified_at": k, "relative_gap": gap}


def _finite(run: cronos.Run | gated.GatedRun) -> bool:
    weights = run.state.U if isinstance(run, cronos.Run) else run.Z
    return bool(jnp.isfinite(weights).all()) and not np.isnan(float(run.gap))


Best = tuple[np.ndarray, Certificate, tuple]


def _better(best: Best | None, point: np.ndarray, certificate: Certificate, state: tuple) -> Best:
    """Every bound seen is valid, so the best primal and the best dual make the certificate."""
    if best is None:
        return point, certificate, state
    kept, old, _ = best
    if certificate.primal > old.primal:
        point, certificate = kept, replace(certificate, primal=old.primal, cone_violation=old.cone_violation)
    return point, replace(certificate, dual=max(certificate.dual, old.dual)), state


def _finish(
    program: ConvexProgram, best: Best | None, tol: float, k: int, trace: dict[str, np.ndarray], broken: bool
) -> Solution:
    nothing = np.zeros((program.halves, program.patterns.shape[1], program.X.shape[1]))
    if best is None:
        # zero is feasible, and it gives a dual point: an honest, weak certificate
        best = (*certify(program, nothing), None)
    point, certificate, state = best
    if (value := program.objective(*nothing)) <= certificate.primal:
        # reg is above `reg_max`: the iterates near zero, and zero itself is the better point
        point, certificate = nothing, replace(certificate, primal=value, cone_violation=0.0)
    solved = certificate.relative_gap <= tol
    status = Status.SOLVED if solved else Status.DIVERGED if broken else Status.MAX_ITER
    w = point[1] if program.halves == 2 else np.zeros_like(point[0])
    return Solution(point[0], w, status, certificate, k, trace, state)
