"""Other solvers on the same program; each yields (seconds so far, error) as it goes.

The error of a peer is max(|objective - p*| / p*, ||cone violation|| / ||X U||) at its own iterate, with p* from our
certified solve in float64: milder than the duality gap asked of our solver. Times leave out compilation, and
CVXPY's translation of the program.
"""

import time
import warnings
from collections.abc import Iterator

import numpy as np

from coala_lib.cvxnn import ConvexProgram
from coala_lib.cvxnn.operators import cones_of, fit_of, products

Curve = Iterator[tuple[float, float]]
PUBLISHED_RHOS = (0.01, 0.1, 1.0, 10.0)  # penalties of the published ADMM, of which the best is used
SCNN_TOLS = (1e-6, 1e-9)  # of pyscnn's ReLU solver: its own, which ends early, and one that does not
SIGMAS = (0.25, 1.0, 4.0, 16.0)  # penalties of our ADMM held to the peers' error, likewise
RATES = (1e-3, 1e-2, 1e-1)  # learning rates of Adam, of which the best is used


def error_of(program: ConvexProgram, U: np.ndarray, best: float) -> float:
    """The peers' error of blocks (H, P, d)."""
    A = program.features()
    XU = products(A, U.astype(float))
    loss = program.loss_function.value(fit_of(A, XU), program.y.astype(float))
    value = loss + program.reg * np.linalg.norm(U, axis=-1).sum()
    violation = 0.0
    if program.variant == "relu":
        violation = np.linalg.norm(np.minimum(cones_of(A, XU), 0)) / max(np.linalg.norm(XU), 1e-300)
    return float(max(abs(value - best) / abs(best), violation))


def uncertified(program: ConvexProgram, best: float, sigma: float, chunk: int = 20) -> Curve:
    """Our own ADMM with fixed penalties, held to the peers' error, without a certificate. Setup is counted."""
    import jax.numpy as jnp

    from coala_lib.cvxnn import cronos
    from coala_lib.cvxnn.linsolve import Penalties
    from coala_lib.cvxnn.operators import Features
    from coala_lib.cvxnn.state import initial_state

    X, d = program.X, program.X.shape[1]
    A = Features(jnp.asarray(X), jnp.asarray(np.ascontiguousarray(X.T)), jnp.asarray(program.patterns))
    y, reg = jnp.asarray(program.y), jnp.asarray(program.reg, X.dtype)
    zero, rho = jnp.zeros((), y.dtype), 0.1 * sigma * float(np.square(X).sum()) / d
    penalties = Penalties(*(jnp.asarray(value, y.dtype) for value in (1.0, rho, sigma)))
    for warm in (False, True):
        began, limit = time.perf_counter(), 0
        run = cronos.start_run(initial_state(A, y), A, penalties, "cg", 1, 64)
        total = 0.0
        while True:
            limit += chunk
            run = cronos.run(run, A, y, reg, zero, 0, limit, program.loss, "cg", 1, 8, False)
            V = np.asarray(run.state.V)
            total += time.perf_counter() - began
            if not warm:
                break
            yield total, error_of(program, V, best)
            began = time.perf_counter()


def published(program: ConvexProgram, best: float, rho: float, chunk: int = 200, every: int = 20) -> Curve:
    """Algorithm 2 with its s-step repaired: Nystrom rank 20, 32 CG steps, unit dual step.

    Like the listing and the authors' code it multiplies by G and its transpose in every CG step. The clock is read
    after each chunk, whose iterations are taken to last equally long; the sketch is made anew for each.
    """
    from coala_lib.cvxnn.published import published_admm

    state, total = None, 0.0
    published_admm(program, rho, chunk, every=every)
    while True:
        began = time.perf_counter()
        state, trace = published_admm(program, rho, chunk, every=every, seed_state=state)
        spent = time.perf_counter() - began
        errors = np.maximum(np.abs(trace["primal"].astype(float) - best) / abs(best), trace["cone_violation"])
        for k, error in zip(trace["iteration"], errors, strict=True):
            yield total + spent * float(k) / chunk, float(error)
        total += spent


def _scnn_problem(program: ConvexProgram) -> tuple[np.ndarray, np.ndarray, dict]:
    """(X, y, settings) of its `optimize_model`."""
    import logging

    from scnn import regularizers

    logging.getLogger("scnn").setLevel(logging.ERROR)
    penalty = regularizers.NeuronGL1(program.reg / len(program.X))  # its loss is ours over n
    return program.X, program.y.reshape(-1, 1), {"regularizer": penalty, "return_convex": True, "unitize_data": False}


def scnn(program: ConvexProgram, best: float, tol: float = 1e-9) -> Curve:
    """pyscnn: restarted FISTA for gated gates (its own trace), its augmented Lagrangian for ReLU (growing budgets)."""
    from scnn import metrics, models, optimize, solvers

    X, y, shared = _scnn_problem(program)

    def relu(budget: int) -> tuple[float, float]:
        model = models.ConvexReLU(program.gates)
        solver = solvers.AL(model, max_primal_iters=budget, max_dual_iters=10_000, tol=tol, constraint_tol=tol)
        began = time.perf_counter()
        model, _ = optimize.optimize_model(model, solver, metrics.Metrics(), X, y, **shared)
        seconds = time.perf_counter() - began
        # it drops duplicate patterns and orders the gates its own way
        theirs = ConvexProgram(X, program.y, np.asarray(model.G), program.reg)
        U = np.stack([np.asarray(w).reshape(-1, X.shape[1]) for w in model.parameters])
        return seconds, error_of(theirs, U, best)

    if program.variant == "relu":
        relu(100)
        for budget in 100 * 4 ** np.arange(8):
            yield relu(int(budget))
        return
    for attempt in range(2):
        model = models.ConvexGatedReLU(program.gates)
        solver = solvers.RFISTA(model, max_iters=5000, tol=tol)
        log = metrics.Metrics(metric_freq=5)
        _, log = optimize.optimize_model(model, solver, log, X, y, **shared)
        if attempt:
            for seconds, value in zip(np.cumsum(_increments(log.time)), log.objective, strict=True):
                yield float(seconds), abs(float(value) * len(X) - best) / abs(best)


def scnn_alone(program: ConvexProgram, best: float) -> Curve:
    """pyscnn's gated solver as a user calls it: one point, where its own rule of stopping ends it."""
    from scnn import metrics, models, optimize, solvers

    X, y, shared = _scnn_problem(program)
    for _ in range(2):
        model = models.ConvexGatedReLU(program.gates)
        began = time.perf_counter()
        model, _ = optimize.optimize_model(model, solvers.RFISTA(model), metrics.Metrics(), X, y, **shared)
        seconds = time.perf_counter() - began
    theirs = ConvexProgram(X, program.y, np.asarray(model.G), program.reg, "gated")
    yield seconds, error_of(theirs, np.asarray(model.parameters[0]).reshape(1, -1, X.shape[1]), best)


def _increments(times: list[float]) -> np.ndarray:
    """Its times are since the start; kept monotone in case a clock steps back."""
    return np.maximum(np.diff(np.asarray(times, float), prepend=0.0), 0)


def interior_point(program: ConvexProgram, best: float, solver: str) -> Curve:
    """CVXPY on the explicit matrices, G sparse: one solve to the solver's own tolerance, by the solver's own clock."""
    import cvxpy as cp
    from scipy import sparse

    X, patterns, relu = program.X.astype(float), program.patterns.astype(float), program.variant == "relu"
    blocks = [pattern[:, None] * X for pattern in patterns.T]
    F = np.hstack(blocks + [-block for block in blocks] * relu)
    u, d = cp.Variable(F.shape[1]), X.shape[1]
    norms = cp.norm(cp.reshape(u, (F.shape[1] // d, d), order="C"), 2, axis=1)
    cones = [(2 * pattern[:, None] - 1) * X for pattern in patterns.T] * program.halves
    constraints = [sparse.block_diag(cones, format="csc") @ u >= 0] * relu
    objective = 0.5 * cp.sum_squares(F @ u - program.y) + program.reg * cp.sum(norms)
    problem = cp.Problem(cp.Minimize(objective), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=solver)
    seconds = (problem.solver_stats.setup_time or 0) + problem.solver_stats.solve_time
    yield seconds, error_of(program, u.value.reshape(program.halves, -1, d), best)


def adam(program: ConvexProgram, best: float, chunk: int = 200) -> Curve:
    """Adam on the non-convex network with 2P neurons, the best of three learning rates; error is its excess over p*.

    Its excess may fall below zero, because its neurons choose patterns that were not sampled.
    """
    import jax
    import jax.numpy as jnp
    import optax

    X, y, reg = jnp.asarray(program.X), jnp.asarray(program.y), program.reg
    keys = jax.random.split(jax.random.key(0))
    m = 2 * program.patterns.shape[1]
    start = (
        jax.random.normal(keys[0], (m, X.shape[1])) / np.sqrt(X.shape[1]),
        jax.random.normal(keys[1], (m,)) / np.sqrt(m),
    )

    def loss(parameters: tuple) -> jax.Array:
        theta1, theta2 = parameters
        outputs = jnp.maximum(X @ theta1.T, 0) @ theta2
        return 0.5 * ((outputs - y) ** 2).sum() + reg / 2 * ((theta1**2).sum() + (theta2**2).sum())

    @jax.jit
    def advance(parameters: tuple, state: object, rate: float) -> tuple:
        optimiser = optax.scale_by_adam()

        def one(carry: tuple, _: None) -> tuple:
            parameters, state = carry
            updates, state = optimiser.update(jax.grad(loss)(parameters), state)
            return (optax.apply_updates(parameters, jax.tree.map(lambda g: -rate * g, updates)), state), None

        (parameters, state), _ = jax.lax.scan(one, (parameters, state), None, length=chunk)
        return parameters, state, loss(parameters)

    blank = optax.scale_by_adam().init(start)
    jax.block_until_ready(advance(start, blank, 0.0))
    pilots = {}
    for rate in RATES:
        parameters, state = start, blank
        for _ in range(5):
            parameters, state, value = advance(parameters, state, rate)
        pilots[rate] = float(value) if np.isfinite(float(value)) else np.inf
    rate, parameters, state, total, lowest = min(pilots, key=pilots.get), start, blank, 0.0, np.inf
    while True:
        began = time.perf_counter()
        parameters, state, value = jax.block_until_ready(advance(parameters, state, rate))
        total += time.perf_counter() - began
        lowest = min(lowest, float(value))
        yield total, (lowest - best) / abs(best)
