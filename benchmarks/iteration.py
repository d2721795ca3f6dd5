"""What an iteration of Phase I costs: over its own matrix products, as sizes grow, in memory and compilation."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import Problem, gaussian
from coala_lib.cvxnn import ConvexProgram, cronos, sample_gates
from coala_lib.cvxnn import newton as semismooth
from coala_lib.cvxnn.augmented import Multipliers
from coala_lib.cvxnn.linsolve import Penalties
from coala_lib.cvxnn.operators import Features
from coala_lib.cvxnn.state import initial_state


def _timed(function: Callable[[], object], repeats: int = 5) -> float:
    jax.block_until_ready(function())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def _iterate(program: ConvexProgram, cg_steps: int, count: int) -> Callable[[], object]:
    """A function that runs `count` iterations of exactly `cg_steps` CG steps, checks included.

    A tiny reg keeps the u-step from ending early; the work of an iteration does not depend on it otherwise.
    """
    A = Features(jnp.asarray(program.X), jnp.asarray(np.ascontiguousarray(program.X.T)), jnp.asarray(program.patterns))
    y = jnp.asarray(program.y)
    sigma = 0.3
    rho = 0.1 * sigma * float(np.square(program.X).sum()) / program.X.shape[1]
    penalties = Penalties(*(jnp.asarray(value, y.dtype) for value in (1.0, rho, sigma)))

    def run() -> object:
        begin = cronos.start_run(initial_state(A, y), A, penalties, "cg", 1, 64)
        zero = jnp.zeros((), y.dtype)
        return cronos.run(
            begin, A, y, jnp.asarray(1e-9, y.dtype), zero, 0, count, "squared", "cg", 1, cg_steps, False
        ).state.U

    return run


def _iteration_seconds(program: ConvexProgram, cg_steps: int, counts: tuple[int, int] = (20, 120)) -> float:
    """Seconds an iteration: the difference of two runs, so that setup drops out."""
    low, high = (_timed(_iterate(program, cg_steps, count), 3) for count in counts)
    return (high - low) / (counts[1] - counts[0])


def roofline(problem: Problem, cg_steps: int = 4, repeats: int = 5) -> dict:
    """Seconds of an iteration over seconds of its matrix products alone, at the same shapes, measured in turns."""
    program = problem.program
    X = jnp.asarray(program.X)
    XT, P = jnp.asarray(np.ascontiguousarray(program.X.T)), program.patterns.shape[1]
    loops = 50

    def pair(columns: int) -> float:
        @jax.jit
        def go(U: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, loops, lambda _, U: (XT @ (X @ U)) * jnp.asarray(1e-6, U.dtype), U)

        U = jnp.ones((X.shape[1], columns), X.dtype)
        return _timed(lambda: go(U)) / loops

    # an iteration: X^T s and X u on 2P columns, and a product pair on P columns for every CG step and for its residual
    rounds = [(_iteration_seconds(program, cg_steps), pair(2 * P) + (cg_steps + 1) * pair(P)) for _ in range(repeats)]
    iteration, products = np.median(rounds, axis=0)
    ratios = [iteration / products for iteration, products in rounds]
    return {
        "cg_steps": cg_steps,
        "iteration_seconds": iteration,
        "products_seconds": products,
        "ratio": np.median(ratios),
        "range": [min(ratios), max(ratios)],
    }


def growth(repeats: int = 5) -> dict:
    """Seconds an iteration as n, d or P grows over two decades, the others fixed: rounds, each over all sizes."""
    sizes = {"n": (300, 1000, 3000, 10000, 30000), "d": (8, 25, 80, 250, 800), "P": (2, 6, 20, 60, 200)}

    def program(shape: dict[str, int]) -> ConvexProgram:
        X, y = gaussian(shape["n"], shape["d"])
        return ConvexProgram(X, y, sample_gates(X, shape["P"]), reg=1.0)

    found = {}
    for axis, values in sizes.items():
        programs = [program({"n": 2000, "d": 64, "P": 32} | {axis: value}) for value in values]
        rounds = [[_iteration_seconds(each, 4, (20, 60)) for each in programs] for _ in range(repeats)]
        found[axis] = {"values": values, "rounds": rounds}
    return found


def memory(problem: Problem) -> dict[str, dict]:
    """Bytes each compiled loop holds, inputs included, over the bytes of X and of 4 n P + 4 d P floats."""
    program = problem.program
    (n, d), P = program.X.shape, program.patterns.shape[1]
    A = Features(jnp.asarray(program.X), jnp.asarray(np.ascontiguousarray(program.X.T)), jnp.asarray(program.patterns))
    y = jnp.asarray(program.y)
    one, blocks = jnp.ones((), y.dtype), jnp.zeros((2, P, d), y.dtype)
    admm = cronos.start_run(initial_state(A, y), A, Penalties(one, one, one), "cg", 1, 64)
    newton = semismooth.start_newton(blocks, Multipliers(blocks, jnp.zeros((n, 2, P), y.dtype), one, one), 64)
    loops = {
        "admm": cronos.run.lower(admm, A, y, one, one, 0, 10, "squared", "cg", 1, 4, True),
        "newton": semismooth.run_newton.lower(newton, A, y, one, one, 10, 10, "squared"),
    }
    unit, found = 4 * (n * d + 4 * n * P + 4 * d * P), {}
    for name, lowered in loops.items():
        began = time.perf_counter()
        analysis = lowered.compile().memory_analysis()
        seconds = time.perf_counter() - began
        held = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes
        found[name] = {"bytes": held, "unit_bytes": unit, "ratio": held / unit, "compile_seconds": seconds}
    return found
