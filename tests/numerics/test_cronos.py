"""The solver and its certificate against CVXPY/Clarabel, and the laws that every iterate obeys."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import ConvexProgram, reg_max, sample_gates, solve, to_relu_network
from coala_lib.cvxnn.certificate import certify, dual_bound, project_cones
from coala_lib.cvxnn.cronos import initial_state, step
from coala_lib.cvxnn.linsolve import factor
from coala_lib.cvxnn.program import cones, cones_adjoint, fit, fit_adjoint
from coala_lib.solution import Status

INSTANCES = [(40, 5, 8, 0.1), (25, 4, 10, 0.05), (25, 4, 10, 0.5), (25, 4, 10, 2.0)]


@pytest.fixture(scope="module", params=INSTANCES, ids=lambda p: "n{}-d{}-P{}-reg{}".format(*p))
def solved(request, make_program):
    program = make_program(*request.param)
    # the best penalty grows with reg / reg_max; convergence to 1e-8 wants one of the right size
    return program, solve(program, tol=1e-8, max_iter=100_000, sigma=min(2.0, 2 * program.reg))


def test_optimum_equals_the_interior_point_solver(solved, optimum):
    program, sol = solved
    best = optimum(program)
    assert sol.status is Status.SOLVED
    assert sol.primal == pytest.approx(best, rel=1e-6)
    assert sol.dual == pytest.approx(best, rel=1e-6)
    assert sol.certificate.kkt_residual < 1e-4
    assert sol.gap == sol.primal - sol.dual


def test_certified_point_is_feasible_and_has_the_certified_value(solved):
    program, sol = solved
    U = np.stack([sol.v, sol.w])
    assert cones(program.X, program.patterns, U).min() >= -1e-11
    assert sol.certificate.cone_violation < 1e-11
    assert program.objective(sol.v, sol.w) == sol.primal
    assert program.objective(1.01 * sol.v, sol.w) > sol.primal


def test_network_equals_the_convex_model(solved):
    program, sol = solved
    net = to_relu_network(program, sol)
    output = fit(program.X, program.patterns, np.stack([sol.v, sol.w]))
    np.testing.assert_allclose(net(program.X), output, atol=1e-10)
    loss = 0.5 * np.sum((net(program.X) - program.y) ** 2)
    decay = program.reg / 2 * (np.sum(net.theta1**2) + np.sum(net.theta2**2))
    assert loss + decay == pytest.approx(sol.primal, rel=1e-10)
    nonzero = sum(int(np.linalg.norm(block) > 0) for block in np.concatenate([sol.v, sol.w]))
    assert len(net.theta2) == nonzero > 0


@pytest.mark.parametrize("shape", [(12, 3, 4), (20, 3, 5), (18, 6, 4)], ids=str)
def test_bounds_hold_wherever_the_solver_stops(shape, make_program, optimum):
    loose = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        program = make_program(*shape, reg=float(10 ** rng.uniform(-2, 1)), seed=seed)
        sol = solve(program, tol=1e-9, max_iter=int(rng.choice([1, 5, 20, 100])))
        best = optimum(program)
        assert sol.dual - 1e-6 <= best <= sol.primal + 1e-6
        assert sol.certificate.cone_violation < 1e-11
        loose += sol.gap > 1e-3
        # any direction and any multipliers bound the optimum from below; negative ones count as zero
        r, mu = rng.normal(size=shape[0]), rng.normal(size=(2, shape[0], program.patterns.shape[1]))
        assert max(dual_bound(program, r, mu), dual_bound(program, program.y), dual_bound(program, -r)) <= best + 1e-6
    assert loose >= 5  # else the stops were too late to say anything


def test_multipliers_of_the_wrong_sign_prove_nothing(make_program, optimum):
    # G^T is onto, so multipliers of any sign could cancel the constraint altogether and "prove" every bound
    program = make_program(20, 3, 5, reg=0.5)
    X, D, y = program.X, program.patterns, program.y
    mu = np.zeros((2, *D.shape))
    for half, c in enumerate(fit_adjoint(X, D, y)):
        for i in range(D.shape[1]):
            A = (2 * D[:, i : i + 1] - 1) * X
            mu[half, :, i] = np.linalg.lstsq(A.T, -c[i])[0]
    assert np.abs(fit_adjoint(X, D, y) + cones_adjoint(X, D, mu)).max() < 1e-10
    assert dual_bound(program, y, mu) <= optimum(program)


def test_invariants_after_every_step(make_program):
    program, rho, sigma = make_program(40, 5, 8, reg=0.1), 0.7, 0.2
    with jax.enable_x64(True):
        X, D, y = (jnp.asarray(a) for a in (program.X, program.patterns, program.y))
        weights = (jnp.asarray(value) for value in (program.reg, rho, sigma))
        advance = jax.jit(partial(_one_step, factor(X, D, rho, sigma), X, D, fit_adjoint(X, D, y), *weights))
        state = initial_state(program)
        for _ in range(150):
            state = advance(state)
            assert float(state.nu.max()) <= 0
            assert float(jnp.linalg.norm(rho * state.lam, axis=-1).max()) <= program.reg * (1 + 1e-9)
            assert float(state.S.min()) >= 0
    assert int(state.k) == 150
    assert np.asarray(state.nu).min() < -1e-6
    assert np.asarray(state.V).any()


def _one_step(inverses, X, D, Fty, reg, rho, sigma, state):
    return step(state, inverses, X, D, Fty, reg, rho, sigma)


@pytest.mark.parametrize(("share", "zero"), [(0.9, False), (1.1, True)])
def test_solution_is_zero_exactly_above_reg_max(make_program, share, zero):
    probe = make_program(30, 4, 6, reg=1.0)
    program = replace(probe, reg=share * reg_max(probe))
    sol = solve(program, tol=1e-5, max_iter=50_000)
    assert sol.status is Status.SOLVED
    assert (sol.primal == 0.5 * np.sum(program.y**2)) == zero
    if zero:
        with pytest.raises(ValueError, match="too large for these data; lower it"):
            to_relu_network(program, sol)
    else:
        assert len(to_relu_network(program, sol).theta2) >= 1


@pytest.mark.parametrize("share", [0.999, 1.001])
def test_reg_max_is_sharp(make_program, share):
    program = make_program(30, 4, 6, reg=1.0)
    X, D, y = program.X, program.patterns, program.y
    projected = project_cones(X, D, fit_adjoint(X, D, y))
    norms = np.linalg.norm(projected, axis=-1)
    steepest = np.where((norms == norms.max())[:, :, None], projected, 0) / norms.max()
    slope, curve = norms.max() - share * reg_max(program), np.sum(fit(X, D, steepest) ** 2)
    point = max(slope, 1e-3) / curve * steepest
    falls = replace(program, reg=share * reg_max(program)).objective(*point) < 0.5 * y @ y
    assert falls == (share < 1)


def test_tampering_shows_in_the_certificate(solved):
    program, sol = solved
    U, rng = np.stack([sol.v, sol.w]), np.random.default_rng(0)
    r, rows = program.y - fit(program.X, program.patterns, U), np.zeros((2, *program.patterns.shape))
    _, honest = certify(program, U, U, np.zeros_like(U), rows)
    _, moved = certify(program, U, U + 0.1 * rng.normal(size=U.shape), np.zeros_like(U), rows)
    _, bent = certify(program, U + 0.1 * rng.normal(size=U.shape), U, np.zeros_like(U), rows)
    assert honest.primal == pytest.approx(sol.primal, rel=1e-9)
    assert moved.primal > sol.primal * (1 + 1e-6)
    assert bent.dual < sol.dual
    # zero multipliers bound less than the solver's own, and a flipped residual proves nothing
    assert dual_bound(program, r) < sol.dual
    assert dual_bound(program, -r) == 0


def test_statuses(make_program):
    program = make_program(40, 5, 8, reg=0.1)
    early = solve(program, tol=1e-9, max_iter=7)
    assert early.status is Status.MAX_ITER
    assert early.n_iter == 7
    assert "raise max_iter" in str(early.status)
    X = (1e25 * program.X).astype(np.float32)  # its square is no float32
    with np.errstate(over="ignore"):
        lost = solve(ConvexProgram(X, program.y, sample_gates(program.X, 4), reg=0.1), max_iter=50)
    assert lost.status is Status.DIVERGED
    assert "float64" in str(lost.status)
    assert np.isfinite([lost.primal, lost.dual]).all()
    assert not lost.v.any()


def test_trace_ends_in_the_certificate(make_program):
    sol = solve(make_program(40, 5, 8, reg=0.1), tol=1e-4, max_iter=20_000, sigma=0.1)
    assert sol.trace["iteration"][-1] == sol.n_iter
    assert sol.trace["relative_gap"][-1] == sol.certificate.relative_gap <= 1e-4
    assert (np.diff(sol.trace["relative_gap"]) <= 0).all()
    assert sol.trace["kkt_residual"][-1] < sol.trace["kkt_residual"][0]


def test_float32_and_float64_agree(make_program):
    wide, narrow = (make_program(60, 6, 8, reg=1.0, dtype=dtype) for dtype in (np.float64, np.float32))
    exact, rough = solve(wide, tol=1e-6, max_iter=30_000), solve(narrow, tol=1e-3, max_iter=30_000)
    assert rough.status is Status.SOLVED
    assert rough.primal == pytest.approx(exact.primal, rel=1e-3)
    assert rough.dual <= exact.primal * (1 + 1e-6)
