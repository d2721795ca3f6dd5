"""The laws that every ADMM iterate obeys: invariants, Theorem 1, and what the compiled loop does with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import ConvexProgram, cronos, solve
from coala_lib.cvxnn.linsolve import Penalties, prepare
from coala_lib.cvxnn.operators import cones, cones_adjoint, features, fit, fit_adjoint
from coala_lib.cvxnn.state import State, initial_state, measure

RHO, SIGMA = 0.7, 0.2


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", params=["squared", "logistic"])
def program(request, make_program):
    return make_program(40, 5, 8, reg=0.1, loss=request.param)


class Iteration:
    """`cronos.step` with everything but the state fixed."""

    def __init__(self, program: ConvexProgram, method: str, alpha: float, cg_steps: int = 8):
        self.A = features(jnp.asarray(program.X), jnp.asarray(program.patterns))
        self.y, self.reg = jnp.asarray(program.y), jnp.asarray(program.reg)
        tau = 1.0 if program.loss == "squared" else 0.25
        self.penalties = Penalties(*(jnp.asarray(value) for value in (tau, RHO, SIGMA)))
        self.factors = jax.jit(prepare, static_argnums=(2, 3, 4))(self.A, self.penalties, method, 2, 20)
        self.loss = program.loss
        go = partial(cronos.step, loss=program.loss, method=method, cg_steps=cg_steps, alpha=alpha)
        fixed = self.factors, self.A, self.y, self.reg, self.penalties, jnp.asarray(1e-12)
        self.step = jax.jit(lambda state: go(state, *fixed))

    def start(self, seed: int | None = None) -> State:
        zero = initial_state(self.A, self.y)
        if seed is None:
            return zero
        rng = np.random.default_rng(seed)
        return zero._replace(
            **{name: jnp.asarray(rng.normal(size=getattr(zero, name).shape)) for name in ("U", "V", "lam", "nu", "S")}
        )


@pytest.mark.parametrize("alpha", [1.0, 1.6, 1.8])
@pytest.mark.parametrize(("method", "cg_steps"), [("woodbury", 8), ("cg", 8), ("cg", 1)])
def test_invariants_after_every_step(program, method, cg_steps, alpha):
    iteration = Iteration(program, method, alpha, cg_steps)
    state = iteration.start()
    for _ in range(100):
        state, _ = iteration.step(state)
        assert float(state.nu.max()) <= 0
        assert float(jnp.linalg.norm(RHO * state.lam, axis=-1).max()) <= program.reg * (1 + 1e-9)
        assert float(state.S.min()) >= 0
    assert int(state.k) == 100
    assert float(state.nu.min()) < -1e-6
    assert np.asarray(state.V).any()


def test_invariants_hold_from_anywhere(program):
    # one step repairs multipliers of the wrong sign and size
    iteration = Iteration(program, "woodbury", 1.6)
    state = iteration.start(seed=0)
    assert float(state.nu.max()) > 1
    state, _ = iteration.step(state)
    assert float(state.nu.max()) <= 0
    assert float(jnp.linalg.norm(RHO * state.lam, axis=-1).max()) <= program.reg * (1 + 1e-9)


@pytest.mark.parametrize(("method", "cg_steps"), [("woodbury", 8), ("cg", 2), ("plain", 1)])
@pytest.mark.parametrize("seed", [None, 3])
def test_feasibility_of_the_average_is_an_identity(program, method, cg_steps, seed):
    # Theorem 1: B u_bar - z_bar = (lam_K - lam_0, nu_K - nu_0) / K, also where CG is cut short
    def largest_error(alpha):
        iteration = Iteration(program, method, alpha, cg_steps)
        state = start = iteration.start(seed)
        sums, error = [0.0, 0.0], 0.0
        for K in range(1, 41):
            state, _ = iteration.step(state)
            sums[0] += state.U - state.V
            sums[1] += cones(iteration.A, state.U) - state.S
            for total, now, before in zip(sums, (state.lam, state.nu), (start.lam, start.nu), strict=True):
                error = max(error, float(jnp.abs(total / K - (now - before) / K).max()))
        return error

    assert largest_error(alpha=1.0) < 1e-10
    assert largest_error(alpha=1.6) > 1e-4  # the identity is that of the plain iteration


def test_theorem_one_bounds_the_average(make_program, optimum):
    program = make_program(40, 5, 8, reg=0.1)
    best, exact = optimum(program), solve(program, tol=1e-8, max_iter=100_000)
    assert exact.primal == pytest.approx(best, rel=1e-6)
    star = dict(zip(State._fields, exact.state, strict=False))
    *_, rho, sigma = exact.state
    multipliers = rho * star["lam"], sigma * star["nu"]
    slack = cones(program.features(), star["V"])
    budget = 0.5 * (RHO * np.sum(star["V"] ** 2) + SIGMA * np.sum(slack**2))
    iteration = Iteration(program, "woodbury", alpha=1.0)
    state, below = iteration.start(), 0
    sums = jax.tree.map(jnp.zeros_like, state)
    for K in range(1, 301):
        state, _ = iteration.step(state)
        sums = jax.tree.map(jnp.add, sums, state)
        U, V, S = (np.asarray(a) / K for a in (sums.U, sums.V, sums.S))
        gap = 0.5 * np.sum((fit(program.features(), U) - program.y) ** 2) - best
        gap += program.reg * np.linalg.norm(V, axis=-1).sum()
        assert K * gap <= budget * (1 + 1e-6)
        residual = U - V, cones(program.features(), U) - S
        assert gap >= -sum(np.linalg.norm(m) * np.linalg.norm(r) for m, r in zip(multipliers, residual, strict=True))
        below += gap < -1e-6
    assert below  # where the printed one-sided statement says nothing


def test_measure_says_what_it_promises(program, optimum):
    iteration = Iteration(program, "woodbury", alpha=1.0)
    y, reg, best = iteration.y, iteration.reg, optimum(program)
    look = jax.jit(lambda state: measure(state, iteration.A, y, reg, iteration.penalties, program.loss))
    state = iteration.start()
    for _ in range(60):
        before, (state, _) = state, iteration.step(state)
        seen = look(state)
        assert float(seen.dual) <= best + 1e-7
        assert float(seen.primal) == pytest.approx(program.objective(*np.asarray(state.V)), rel=1e-10)
        if program.loss == "squared":
            # without over-relaxation and with an exact u-step the textbook dual residual is the KKT residual
            textbook = RHO * (state.V - before.V) + SIGMA * cones_adjoint(iteration.A, state.S - before.S)
            size = float(jnp.linalg.norm(textbook, axis=-1).max() / reg)
            assert float(seen.kkt_residual) == pytest.approx(size, rel=1e-6, abs=1e-9)
    assert float(seen.dual) > 0.5 * best


def test_the_optimum_is_a_fixed_point(program):
    solution = solve(program, tol=1e-9, max_iter=100_000)
    tau, rho, sigma = solution.state[-3:]
    iteration = Iteration(program, "woodbury", alpha=1.6)
    scaled = dict(zip(State._fields, solution.state, strict=False))
    scaled |= {"lam": scaled["lam"] * rho / RHO, "nu": scaled["nu"] * sigma / SIGMA}
    scaled |= {"pi": scaled["pi"] * tau / float(iteration.penalties.tau)}
    state = State(*(jnp.asarray(scaled[name]) for name in State._fields[:-1]), jnp.asarray(0, jnp.int32))
    after, _ = iteration.step(state)
    for name in ("U", "V", "S", "lam", "nu", "T", "pi"):
        np.testing.assert_allclose(getattr(after, name), getattr(state, name), atol=1e-3, err_msg=name)
    z = -(fit(program.features(), np.asarray(state.U)) - program.y)
    if program.loss == "squared":
        pull = fit_adjoint(program.features(), z, 2) - sigma * cones_adjoint(program.features(), solution.state[4])
        np.testing.assert_allclose(rho * solution.state[3], pull, atol=1e-3 * program.reg)


@pytest.mark.parametrize("method", ["woodbury", "cg"])
def test_balancing_keeps_the_multipliers(program, method):
    iteration = Iteration(program, method, alpha=1.6)

    def runs(balance):
        run = cronos.start_run(iteration.start(), iteration.A, iteration.penalties, method, 20, 64)
        fixed = {"A": iteration.A, "y": iteration.y, "reg": iteration.reg, "target": jnp.asarray(0.0), "earliest": 0}
        for limit in range(10, 210, 10):
            run = cronos.run(
                run, **fixed, limit=limit, loss=program.loss, method=method, rank=20, cg_steps=8, balance=balance
            )
            yield jax.tree.map(np.asarray, run)

    moved = 0
    for k, (fixed, free) in enumerate(zip(runs(False), runs(True), strict=True), start=1):
        assert int(free.state.k) == int(fixed.state.k) == 10 * k
        assert int(free.length) == k
        assert free.state.nu.max() <= 0
        assert np.linalg.norm(free.penalties.rho * free.state.lam, axis=-1).max() <= program.reg * (1 + 1e-9)
        assert float(fixed.penalties.rho) == RHO
        changed = float(free.penalties.rho) != RHO
        if changed and not moved:
            # this far the two runs were one; the new penalties leave the unscaled multipliers where they are
            for name, penalty in (("lam", "rho"), ("nu", "sigma"), ("pi", "tau")):
                old, new = (getattr(r.penalties, penalty) * getattr(r.state, name) for r in (fixed, free))
                np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-12)
            gram = free.factors.block @ (free.penalties.rho * np.eye(5) + free.penalties.sigma * free.factors.gram)
            np.testing.assert_allclose(gram, np.eye(5), atol=1e-9)
        moved += changed
    assert moved
    assert free.penalties.rho / free.penalties.sigma == pytest.approx(RHO / SIGMA)
    assert (float(free.penalties.tau) == 1.0) == (program.loss == "squared")
