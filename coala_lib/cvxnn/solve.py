"""Solve a program to a certified duality gap: place the data, run a compiled loop, prove the result in float64.

The loop stops on an estimate; the certificate is computed here, once or twice a solve. Where it falls short of the
tolerance the loop goes on with a tighter target, so `Status.SOLVED` always means a proven gap.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from tqdm import tqdm

from coala_lib.cvxnn import algorithms
from coala_lib.cvxnn.algorithms import Algorithm, Name, Placed
from coala_lib.cvxnn.certificate import certify
from coala_lib.cvxnn.linsolve import Method
from coala_lib.cvxnn.operators import Features
from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.solution import Certificate, Solution, Status

DUST = 0.3  # blocks up to this share of tol times the longest are dropped from the primal point
PROGRESS_EVERY = 200  # iterations between two updates of the bar
METHODS = ("woodbury", "cg", "nystrom", "plain")


def solve(
    program: ConvexProgram,
    tol: float = 1e-3,
    max_iter: int = 5000,
    *,
    algorithm: Name | None = None,
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

    The ReLU variant runs semismooth Newton (`newton`) or ADMM (`cronos`), the gated variant accelerated proximal
    gradient (`gated`). float64 features are solved in float64, all others in float32, which reaches gaps of about 1e-4.

    Args:
        program: what to solve.
        tol: relative duality gap to prove.
        max_iter: iterations at most: Newton steps, or steps of ADMM or FISTA.
        algorithm: for the ReLU variant, "newton" or "admm". By default ADMM where method, rho, sigma or balance is
            given, where a mesh is, or where Newton's d x d blocks would not fit; else Newton.
        method: of ADMM's u-step, see `linsolve`; by default chosen by the number of rows and the dtype.
        rho: ADMM's penalty of u = v; by default 0.1 * sigma * trace(X^T X) / d.
        sigma: ADMM's penalty of G u = s; by default 0.3 times the loss's curvature.
        balance: let ADMM's penalties follow the errors during the first iterations.
        rank: of ADMM's Nystrom preconditioner; the other methods have none.
        cg_steps: CG steps an iteration of ADMM at most.
        start: solution of a program with the same X, gates and variant; ADMM takes its penalties over.
        mesh: device mesh; the rows of X are sharded over its first axis.
        progress: show a tqdm bar.

    Returns:
        A `Solution` whose v and w are feasible, with its certificate. For the gated variant v holds u and w is zero.
        Blocks that the loop has not quite brought to zero, tiny beside tol, are dropped where the proof bears it.

    Raises:
        ValueError: for settings that are not positive, an unknown algorithm or method, either of them for the gated
            variant, which has one algorithm, or a start of another shape.

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
    if algorithm not in (None, "newton", "admm"):
        raise ValueError(f"algorithm must be 'newton' or 'admm'; got {algorithm!r}")
    if program.variant == "gated" and not algorithm is method is None:
        raise ValueError("the gated variant has one algorithm: give neither algorithm nor method")
    if mesh is not None and (method == "woodbury" or algorithm == "newton"):
        raise ValueError("a mesh needs algorithm='admm' with method='cg': the other solvers keep all rows together")
    (n, d), P = program.X.shape, program.patterns.shape[1]
    if start is not None and not algorithms.fits(program, start):
        raise ValueError(f"start must solve a {program.variant} program of the same shape: n = {n}, d = {d}, P = {P}")
    settled = method is not None or rho is not None or sigma is not None or not balance
    with (
        jax.enable_x64(program.X.dtype == np.float64),
        tqdm(total=max_iter, unit="it", desc="solve", disable=not progress) as bar,
    ):
        placed = _place(program, mesh)
        algorithm = algorithm or ("admm" if settled else algorithms.choose_algorithm(program, mesh is not None))
        penalties = algorithms.penalties_of(program, rho, sigma)
        if program.variant == "gated":
            loop = algorithms.fista(placed, start)
        elif algorithm == "newton":
            loop = algorithms.newton(placed, penalties, start, max_iter)
        else:
            rank = min(rank, program.halves * P * d)
            loop = algorithms.admm(placed, penalties, start, method, rank, cg_steps, balance)
        return _drive(program, loop, tol, max_iter, bar, progress)


def _place(program: ConvexProgram, mesh: Mesh | None) -> Placed:
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
    return Placed(program, A, place(program.y), place, mesh is not None)


def _drive(program: ConvexProgram, loop: Algorithm, tol: float, max_iter: int, bar: tqdm, progress: bool) -> Solution:
    run, dtype = loop.run, np.float64 if program.X.dtype == np.float64 else np.float32
    best, target, earliest, certified = None, loop.hope * tol, 0, []
    while True:
        limit = min(max_iter, loop.count(run) + PROGRESS_EVERY) if progress else max_iter
        run = loop.advance(run, target=jnp.asarray(target, dtype), earliest=earliest, limit=limit)
        k, gap = loop.count(run), float(run.gap)
        bar.update(k - bar.n)
        bar.set_postfix(gap=f"{gap:.1e}")
        broken = np.isnan(gap) or not bool(jnp.isfinite(loop.weights(run)).all())
        ended = broken or k >= max_iter or loop.stuck(run)
        if gap > target and not ended:
            continue
        if not broken:
            multipliers, state = loop.read(run)
            # a second look keeps all blocks, in case the small ones were needed
            dust = 0.0 if certified else DUST * tol
            best = _better(best, *certify(program, *multipliers, negligible=dust), state)
            certified.append((k, best[1].relative_gap))
        if ended or best[1].relative_gap <= tol:
            break
        # the estimate was too hopeful: ask for as much less as the proof fell short, and not at once
        target, earliest = 0.8 * min(target, gap * tol / best[1].relative_gap), int(1.1 * k)
    trace = _trace(loop.columns, loop.table(run), certified)
    ending = Status.DIVERGED if broken else Status.MAX_ITER if k >= max_iter else Status.STALLED
    return _finish(program, best, tol, k, trace, ending)


def _trace(names: Sequence[str], table: np.ndarray, certified: list[tuple[int, float]]) -> dict[str, np.ndarray]:
    k, gap = np.array(certified, float).reshape(-1, 2).T
    return {**dict(zip(names, table.T, strict=True)), "certified_at": k, "relative_gap": gap}


Best = tuple[np.ndarray, Certificate, tuple]


def _better(best: Best | None, point: np.ndarray, certificate: Certificate, state: tuple) -> Best:
    """Every bound seen is valid, so the best primal and the best dual make the certificate."""
    if best is None:
        return point, certificate, state
    kept, old, _ = best
    if certificate.primal > old.primal:
        point, certificate = kept, replace(certificate, primal=old.primal, cone_violation=old.cone_violation)
    if certificate.dual < old.dual:
        certificate = replace(certificate, dual=old.dual, dual_point=old.dual_point, multipliers=old.multipliers)
    return point, certificate, state


def _finish(
    program: ConvexProgram, best: Best | None, tol: float, k: int, trace: dict[str, np.ndarray], ending: Status
) -> Solution:
    nothing = np.zeros((program.halves, program.patterns.shape[1], program.X.shape[1]))
    if best is None:
        # zero is feasible, and it gives a dual point: an honest, weak certificate
        best = (*certify(program, nothing), None)
    point, certificate, state = best
    if (value := program.objective(*nothing)) <= certificate.primal:
        # reg is above `reg_max`: the iterates near zero, and zero itself is the better point
        point, certificate = nothing, replace(certificate, primal=value, cone_violation=0.0)
    status = Status.SOLVED if certificate.relative_gap <= tol else ending
    w = point[1] if program.halves == 2 else np.zeros_like(point[0])
    return Solution(point[0], w, status, certificate, k, trace, state)
