"""The three compiled loops behind one face, so that `solve` drives them all alike.

    newton   ReLU: semismooth Newton on the augmented Lagrangian; a hundred dear steps
    admm     ReLU: CRONOS; thousands of cheap steps, rows over many devices
    fista    gated: accelerated proximal gradient

The first two share the state (weights, multipliers) that a warm start carries, whichever of them wrote it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from coala_lib.cvxnn import cronos, gated
from coala_lib.cvxnn import newton as semismooth
from coala_lib.cvxnn.augmented import Multipliers
from coala_lib.cvxnn.linsolve import Penalties, choose_method
from coala_lib.cvxnn.operators import Features
from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.cvxnn.state import initial_state
from coala_lib.solution import Solution

Name = Literal["newton", "admm"]
TRACE_SLOTS = 4096
FIRST, WARM = 500.0, 3.0  # sigma of the first Newton round, in units of ADMM's; the factor for a warm start
MOST_BLOCKS = 2**27  # numbers in the d x d blocks that Newton's method keeps twice: half a gibibyte each in float32


@dataclass(frozen=True)
class Placed:
    """A program on its devices.

    Attributes:
        program: as given.
        A, y: data of the products, and targets; with a mesh, padded by rows of zeros.
        place: puts an array beside them; its second argument names the axis that runs over rows, None for none.
        sharded: whether rows are spread over devices.
    """

    program: ConvexProgram
    A: Features
    y: Array
    place: Callable[..., Array]
    sharded: bool


@dataclass(frozen=True)
class Algorithm:
    """What `solve` needs of a loop.

    Attributes:
        run: its carry, with `gap`, the estimate.
        advance: (run, target, earliest, limit) -> run.
        count: iterations that a run has done.
        weights: array of a run that must stay finite.
        read: run -> (arguments of `certify` after the program, state for a warm start).
        table: run -> rows of the trace; columns: their names.
        hope: share of the tolerance that the estimate is asked for.
        stuck: whether a run will get no further.
    """

    run: Any
    advance: Callable[..., Any]
    count: Callable[[Any], int]
    weights: Callable[[Any], Array]
    read: Callable[[Any], tuple[tuple[np.ndarray, ...], tuple]]
    table: Callable[[Any], np.ndarray]
    columns: tuple[str, ...]
    hope: float
    stuck: Callable[[Any], bool] = lambda run: False


def choose_algorithm(program: ConvexProgram, sharded: bool) -> Name:
    """Newton's method where its d x d blocks fit and the rows lie on one device, else ADMM."""
    (_, d), P = program.X.shape, program.patterns.shape[1]
    return "admm" if sharded or program.halves * P * d**2 > MOST_BLOCKS else "newton"


def penalties_of(program: ConvexProgram, rho: float | None, sigma: float | None) -> tuple[float, float, float]:
    """ADMM's (tau, rho, sigma), the defaults scaled by the loss's curvature and the data."""
    curvature = program.loss_function.curvature
    sigma = 0.3 * curvature if sigma is None else sigma
    rho = 0.1 * sigma * float(np.square(program.X).sum()) / program.X.shape[1] if rho is None else rho
    return 1.0 if program.loss == "squared" else curvature, rho or 1.0, sigma


def fits(program: ConvexProgram, start: Solution) -> bool:
    """Whether a solution's state can start this program."""
    (n, d), P, state = program.X.shape, program.patterns.shape[1], start.state
    arrays = 10 if program.variant == "relu" else 1
    if state is None or len(state) != arrays or start.v.shape != (P, d):
        return False
    return program.variant == "gated" or len(state[2]) == n


def admm(
    placed: Placed,
    penalties: tuple[float, float, float],
    start: Solution | None,
    method: str | None,
    rank: int,
    cg_steps: int,
    balance: bool,
) -> Algorithm:
    """CRONOS, as in `cronos`."""
    program, A, y, place = placed.program, placed.A, placed.y, placed.place
    n, P = len(program.X), program.patterns.shape[1]
    method = method or choose_method(n, y.dtype == jnp.float64, placed.sharded)
    state = initial_state(A, y)
    if start is not None:
        *arrays, tau, rho, sigma = start.state
        penalties = tau, rho, sigma
        rows = {"S": 0, "nu": 0, "T": 0, "pi": 0}
        fields = {name: place(a, rows.get(name)) for name, a in zip(state._fields[:-1], arrays, strict=True)}
        if program.loss == "squared":
            # the start may have had another loss, with a fit and a dual of its own
            fields["T"], fields["pi"], penalties = y, jnp.zeros_like(y), (1.0, rho, sigma)
        state = state._replace(**fields)
    else:
        rows = place(np.zeros((n, 2, P)))
        state = state._replace(S=rows, nu=rows)
    values = Penalties(*(jnp.asarray(value, y.dtype) for value in penalties))
    settings = {"method": method, "rank": rank, "cg_steps": cg_steps, "balance": balance}
    reg = jnp.asarray(program.reg, y.dtype)

    def read(run: cronos.Run) -> tuple[tuple[np.ndarray, ...], tuple]:
        U, V, S, lam, nu, T, pi = (np.asarray(a) for a in run.state[:-1])
        S, nu, T, pi = S[:n], nu[:n], T[:n], pi[:n]
        tau, rho, sigma = (float(value) for value in run.penalties)
        return (U, V, rho * lam, sigma * nu), (U, V, S, lam, nu, T, pi, tau, rho, sigma)

    return Algorithm(
        run=cronos.start_run(state, A, values, method, rank, TRACE_SLOTS),
        advance=partial(cronos.run, A=A, y=y, reg=reg, loss=program.loss, **settings),
        count=lambda run: int(run.state.k),
        weights=lambda run: run.state.U,
        read=read,
        table=lambda run: np.asarray(run.trace)[: int(run.length)],
        columns=cronos.TRACE,
        hope=0.6,
    )


def newton(placed: Placed, penalties: tuple[float, float, float], start: Solution | None, max_iter: int) -> Algorithm:
    """Semismooth Newton, as in `newton`; its state is written with ADMM's penalties, so that either may go on."""
    program, A, y, place = placed.program, placed.A, placed.y, placed.place
    (n, d), P = program.X.shape, program.patterns.shape[1]
    tau, rho, sigma = penalties
    if start is None:
        U, lam, mu, factor = np.zeros((2, P, d)), np.zeros((2, P, d)), np.zeros((n, 2, P)), FIRST
    else:
        _, U, _, lam, nu, _, _, _, old_rho, old_sigma = start.state
        lam, mu, factor = old_rho * lam, np.maximum(-old_sigma * nu, 0), FIRST * WARM
    first = (jnp.asarray(value * factor, y.dtype) for value in (rho, sigma))
    at = Multipliers(place(lam, None), place(mu), *first)
    reg = jnp.asarray(program.reg, y.dtype)

    def advance(run: semismooth.Newton, target: Array, earliest: int, limit: int) -> semismooth.Newton:
        # a pause for the bar ends no round, so that the iterates do not notice it
        return semismooth.run_newton(run, A, y, reg, target, limit, max_iter, program.loss)

    def read(run: semismooth.Newton) -> tuple[tuple[np.ndarray, ...], tuple]:
        U, V, lam, mu = (np.asarray(a) for a in (run.U, run.V, run.at.lam, run.at.mu))
        XV = np.asarray(program.X @ V.reshape(-1, d).T).reshape(n, 2, P)
        D = program.patterns
        S = np.maximum((2 * D - 1)[:, None] * XV, 0).astype(U.dtype)
        fit = (D * (XV[:, 0] - XV[:, 1])).sum(axis=1).astype(U.dtype)
        squared = program.loss == "squared"
        T = program.y.astype(U.dtype) if squared else fit
        pi = np.zeros_like(fit) if squared else program.loss_function.derivative(fit, program.y.astype(U.dtype)) / tau
        return (U, V, lam, -mu), (U, V, S, lam / rho, -mu / sigma, T, pi, tau, rho, sigma)

    return Algorithm(
        run=jax.jit(semismooth.start_newton, static_argnames="slots")(place(U, None), at, slots=TRACE_SLOTS),
        advance=advance,
        count=lambda run: int(run.k),
        weights=lambda run: run.U,
        read=read,
        table=lambda run: np.asarray(run.trace)[: int(run.length)],
        columns=semismooth.TRACE,
        hope=0.6,
        stuck=lambda run: int(run.idle) >= semismooth.PATIENCE,
    )


def fista(placed: Placed, start: Solution | None) -> Algorithm:
    """Accelerated proximal gradient, as in `gated`."""
    program, y = placed.program, placed.y
    rotated, Q, metric = gated.rotate(placed.A)
    U = jnp.zeros((1, program.patterns.shape[1], program.X.shape[1]), y.dtype)
    if start is not None:
        U = placed.place(start.v[None], None) @ Q
    reg = jnp.asarray(program.reg, y.dtype)

    def advance(run: gated.GatedRun, target: Array, earliest: int, limit: int) -> gated.GatedRun:
        return gated.run_gated(run, rotated, y, reg, metric, target, limit, program.loss)

    def read(run: gated.GatedRun) -> tuple[tuple[np.ndarray, ...], tuple]:
        point = np.asarray(run.Z @ Q.T)
        return (point,), (point,)

    return Algorithm(
        run=gated.start_gated(rotated, U, TRACE_SLOTS),
        advance=advance,
        count=lambda run: int(run.k),
        weights=lambda run: run.Z,
        read=read,
        table=lambda run: np.asarray(run.trace)[: int(run.k)],
        columns=gated.TRACE,
        hope=0.8,
    )
