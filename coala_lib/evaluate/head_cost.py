"""What the convex half of COALA costs: Phase I and Phase II as the library runs them, traced at any shape.

The solvers' loops end when they are done, so a count needs to know how often they ran: `Effort`, read off a trace.

Differs from the paper: it reports no iterations; at its sizes an effort is assumed, and said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from coala_lib.cvxnn import cronos, gated, newton
from coala_lib.cvxnn.augmented import FEW_ROWS, Multipliers
from coala_lib.cvxnn.linsolve import Penalties
from coala_lib.cvxnn.operators import Features
from coala_lib.cvxnn.state import initial_state
from coala_lib.evidence.flops import count_flops
from coala_lib.preference import CoalaHead, optimizers
from coala_lib.preference.objectives import Objective


@dataclass(frozen=True)
class Effort:
    """How often the loops of Phase I ran.

    Attributes:
        rounds: of Newton's method between two updates of the multipliers; of ADMM, looks at the gap.
        steps: Newton steps, or iterations of ADMM, in all.
        cg_steps: steps of conjugate gradients in all.
    """

    rounds: int
    steps: int
    cg_steps: int


def effort_of(trace: Mapping[str, np.ndarray]) -> Effort:
    """The effort that a solver's trace tells of; the gated program's solver has neither rounds nor CG steps.

    Example:
        >>> effort_of({"iteration": np.array([4, 9]), "cg_steps": np.array([20, 60])})
        Effort(rounds=2, steps=9, cg_steps=60)
    """
    return Effort(len(trace["iteration"]), int(trace["iteration"][-1]), int(trace.get("cg_steps", [0])[-1]))


def _abstract(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def phase_one_flops(
    n: int, d: int, n_gates: int, effort: Effort, algorithm: Literal["newton", "admm", "fista"] = "admm"
) -> float:
    """Operations of Phase I, preparation included.

    Args:
        n, d: rows and columns of the features.
        n_gates: P.
        effort: how often the loops ran.
        algorithm: "newton", "admm" with conjugate gradients, or "fista" for the gated program; see `cvxnn.solve`.

    Returns:
        Floating-point operations; branches that a step may take count as taken.
    """
    A = Features(_abstract(n, d), _abstract(d, n), _abstract(n, n_gates))
    y, number, count = _abstract(n), _abstract(), jax.ShapeDtypeStruct((), jnp.int32)
    if algorithm == "fista":
        rotated, _, metric = jax.eval_shape(gated.rotate, A)
        run = jax.eval_shape(partial(gated.start_gated, slots=1), rotated, _abstract(1, n_gates, d))
        loop = partial(gated.run_gated, loss="squared")
        iterate = count_flops(loop, run, rotated, y, number, metric, number, count, trips=(effort.steps,))
        return count_flops(gated.rotate, A) + iterate
    state = jax.eval_shape(initial_state, A, y)
    if algorithm == "newton":
        at = Multipliers(state.lam, state.nu, number, number)
        run = jax.eval_shape(partial(newton.start_newton, slots=1), state.U, at)
        loop = partial(newton.run_newton, loss="squared")
        # a round sums its rows anew, at most half of them, in chunks; after that a chunk a step is enough
        chunks = 1 + -(-n // (2 * FEW_ROWS)) * effort.rounds / effort.steps
        trips = effort.rounds, effort.steps / effort.rounds, chunks, effort.cg_steps / effort.steps
        return count_flops(loop, run, A, y, number, number, count, count, trips=trips)
    penalties = Penalties(number, number, number)
    start = partial(cronos.start_run, method="cg", rank=1, slots=1)
    run = jax.eval_shape(start, state, A, penalties)
    step = partial(cronos.step, method="cg")
    each = count_flops(
        step, state, run.factors, A, y, number, penalties, number, trips=(effort.cg_steps / effort.steps,)
    )
    look = count_flops(partial(cronos.measure, loss="squared"), state, A, y, number, penalties)
    return count_flops(start, state, A, penalties) + effort.steps * each + effort.rounds * look


def phase_two_flops(n_pairs: int, d: int, neurons: int, steps: int) -> float:
    """Operations of Phase II on pairs by Newton's method, the first layer on all 2N rows included.

    Args:
        n_pairs: N.
        d: columns of the features.
        neurons: m of the recovered network, at most 2P.
        steps: Newton steps.

    Returns:
        Floating-point operations.
    """
    number, limit = _abstract(), jax.ShapeDtypeStruct((), jnp.int32)
    rows, weights, start = _abstract(n_pairs, neurons), _abstract(n_pairs), _abstract(neurons)

    def solve(rows: Array, weights: Array, start: Array, number: Array, limit: Array) -> optimizers.Run:
        objective = Objective(rows, weights, weights, number, number, number, start)
        return optimizers.newton(objective, start, number, limit, slots=2)

    layer = count_flops(lambda X, theta: X @ theta.T, _abstract(2 * n_pairs, d), _abstract(neurons, d))
    # a step is halved once, if at all
    return layer + count_flops(solve, rows, weights, start, number, limit, trips=(steps, 1))


def head_flops(head: CoalaHead) -> float:
    """Operations of both phases of a head that was fitted on pairs by the default solver of its variant."""
    d, algorithm = len(head.mean_), "fista" if head.variant == "gated" else "newton"
    first = phase_one_flops(head.n_rows_, d, head.n_gates, effort_of(head.trace_), algorithm)
    steps = head.phase_two_.n_iter if head.phase_two_ else 0
    return first + phase_two_flops(head.n_rows_ // 2, d, len(head.network_.theta2), steps)
