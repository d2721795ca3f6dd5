"""The gated program: accelerated proximal gradient in the eigenbasis, with its own certificate."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import certify, dual_bound, mismatch, solve, to_relu_network
from coala_lib.cvxnn.gated import rotate, run_gated, start_gated
from coala_lib.cvxnn.operators import features, fit, fit_adjoint
from coala_lib.solution import Status


@pytest.fixture(scope="module", params=["squared", "logistic"])
def program(request, make_program):
    return make_program(40, 5, 8, reg=0.5, variant="gated", loss=request.param)


@pytest.fixture(scope="module")
def solution(program):
    return solve(program, tol=1e-9, max_iter=20_000)


def test_solution_satisfies_the_optimality_conditions(program, solution, optimum):
    assert solution.status is Status.SOLVED
    assert solution.primal == pytest.approx(optimum(program), rel=1e-7)
    assert not solution.w.any()
    A = program.features()
    pull = fit_adjoint(A, -program.loss_function.derivative(fit(A, solution.v[None]), program.y), 1)[0]
    sizes, norms = np.linalg.norm(pull, axis=-1), np.linalg.norm(solution.v, axis=-1)
    assert (sizes <= program.reg * (1 + 1e-6)).all()
    np.testing.assert_allclose(sizes[norms > 0], program.reg, rtol=1e-4)
    cosine = (pull * solution.v).sum(axis=-1)[norms > 0] / (sizes * norms)[norms > 0]
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)
    assert solution.certificate.kkt_residual < 1e-3
    assert solution.certificate.cone_violation == 0


def test_without_cones_the_optimum_is_lower(program, solution):
    assert solution.primal < solve(replace(program, variant="relu"), tol=1e-4, max_iter=20_000).dual


def test_rotation_changes_no_output(program):
    with jax.enable_x64(True):
        A = features(jnp.asarray(program.X), jnp.asarray(program.patterns))
        rotated, Q, metric = jax.tree.map(np.asarray, rotate(A))
    U = np.random.default_rng(0).normal(size=(1, 8, 5))
    np.testing.assert_allclose(Q.T @ Q, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(fit(program.features(), U), fit(rotated, U @ Q), atol=1e-12)
    gram = rotated.XT @ rotated.X
    np.testing.assert_allclose(gram, np.diag(np.diagonal(gram)), atol=1e-10)
    assert (metric >= np.diagonal(gram)).all()
    np.testing.assert_array_equal(rotated.XT, rotated.X.T)


def test_loop_keeps_what_it_says(program, optimum):
    best = optimum(program)
    with jax.enable_x64(True):
        A = features(jnp.asarray(program.X), jnp.asarray(program.patterns))
        y, reg = jnp.asarray(program.y), jnp.asarray(program.reg)
        rotated, Q, metric = rotate(A)
        run = start_gated(rotated, jnp.zeros((1, 8, 5)), 500)
        for limit in (1, 7, 500):
            run = run_gated(run, rotated, y, reg, metric, jnp.asarray(1e-7), limit, program.loss)
            assert int(run.k) <= limit
            # the fits ride along without products of their own
            np.testing.assert_allclose(run.FZ, fit(rotated, run.Z), atol=1e-9)
            np.testing.assert_allclose(run.FU, fit(rotated, run.U), atol=1e-9)
            assert float(run.dual) <= best + 1e-9
        assert float(run.gap) <= 1e-7
        value = program.objective(np.asarray(run.Z @ Q.T)[0])
    assert value - best <= 2e-7 * best
    k, gap, dual = np.asarray(run.trace)[: int(run.k)].T
    np.testing.assert_array_equal(k, np.arange(int(run.k)))
    assert (np.diff(dual) >= 0).all()
    assert gap[-1] == float(run.gap)


def test_bound_without_multipliers_is_exact(program, solution):
    z = -program.loss_function.derivative(fit(program.features(), solution.v[None]), program.y)
    assert dual_bound(program, z) == pytest.approx(solution.primal, rel=1e-6)
    assert certify(program, solution.v[None])[1].dual == dual_bound(program, z)


def test_network_has_the_gated_outputs_at_a_larger_decay(program, solution):
    network = to_relu_network(program, solution)
    np.testing.assert_allclose(network(program.X), fit(program.features(), solution.v[None]), atol=1e-9)
    assert network.objective(program) > solution.primal
    relu = replace(program, variant="relu")
    assert mismatch(relu, solution.v, solution.w) > 1e-3  # u itself lies in no cone


def test_a_full_trace_ends_no_solve(program):
    with jax.enable_x64(True):
        A = features(jnp.asarray(program.X), jnp.asarray(program.patterns))
        rotated, _, metric = rotate(A)
        y, reg = jnp.asarray(program.y), jnp.asarray(program.reg)
        run = start_gated(rotated, jnp.zeros((1, 8, 5)), 4)
        run = run_gated(run, rotated, y, reg, metric, jnp.asarray(1e-6), 1000, program.loss)
    assert float(run.gap) <= 1e-6
    assert np.asarray(run.trace)[:, 0].tolist() == [0, 1, 2, 3]
