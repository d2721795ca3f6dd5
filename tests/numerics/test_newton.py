"""Semismooth Newton: phi's derivatives against automatic ones, the rounds' invariants, the same optimum as ADMM."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import algorithms, augmented, newton, solve
from coala_lib.cvxnn.augmented import Multipliers
from coala_lib.cvxnn.losses import LOSSES
from coala_lib.cvxnn.operators import cones, features, fit, products
from coala_lib.solution import Status

N, D, P = 40, 5, 8


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", params=["squared", "logistic"])
def program(request, make_program):
    return make_program(N, D, P, reg=0.5, loss=request.param)


@pytest.fixture
def point(program):
    """Data, multipliers and a point where some blocks are inside the ball and some rows bend."""
    rng = np.random.default_rng(1)
    A = features(jnp.asarray(program.X), jnp.asarray(program.patterns))
    lam, _ = augmented.cut(jnp.asarray(rng.normal(size=(2, P, D))), jnp.asarray(program.reg))
    mu = jnp.asarray(np.maximum(rng.normal(size=(N, 2, P)), 0))
    U = jnp.asarray(rng.normal(size=(2, P, D)) * np.where(rng.random((2, P, 1)) < 0.6, 0.5, 0.01))
    lam = jnp.where((jnp.linalg.norm(U, axis=-1) < 0.1)[..., None], 0.5 * lam, lam)
    at = Multipliers(lam, mu, jnp.asarray(0.7), jnp.asarray(1.3))
    return A, jnp.asarray(program.y), jnp.asarray(program.reg), at, U


def phi(U, at, A, y, reg, loss):
    """The augmented Lagrangian, from its definition."""
    size = jnp.linalg.norm(at.rho * U + at.lam, axis=-1)
    envelope = jnp.where(size <= reg, size**2 / 2, reg * size - reg**2 / 2).sum() / at.rho
    outside = jnp.maximum(at.mu - at.sigma * cones(A, U), 0)
    return LOSSES[loss].value(fit(A, U), y) + envelope + (outside**2).sum() / (2 * at.sigma)


def test_gradient(program, point):
    A, y, reg, at, U = point
    seen = augmented.look(at, U, products(A, U), A, y, reg, program.loss)
    expected = jax.grad(phi)(U, at, A, y, reg, program.loss)
    assert (seen.size <= reg).any()
    assert (seen.size > reg).any()
    np.testing.assert_allclose(seen.gradient, expected, rtol=1e-11, atol=1e-11)


def sums(A, wanted):
    return jnp.einsum("nhp,nd,ne->hpde", wanted.astype(A.X.dtype), A.X, A.X)


def test_hessian_product(program, point):
    A, y, reg, at, U = point
    seen = augmented.look(at, U, products(A, U), A, y, reg, program.loss)
    gram = sums(A, seen.mu > 0)
    H = augmented.curvature(at, seen, gram, y, reg, program.loss)
    x = jnp.asarray(np.random.default_rng(2).normal(size=U.shape))
    _, expected = jax.jvp(lambda U: jax.grad(phi)(U, at, A, y, reg, program.loss), (U,), (x,))
    np.testing.assert_allclose(augmented.bend(H, A, x), expected, rtol=1e-5, atol=1e-5)  # FLOOR along the blocks


def test_the_preconditioner_inverts_the_hessian_of_patterns_of_one_half(program, point):
    A, y, reg, at, U = point
    seen = augmented.look(at, U, products(A, U), A, y, reg, program.loss)
    H = augmented.curvature(at, seen, sums(A, seen.mu > 0), y, reg, program.loss)
    weight = H.weights.mean()
    alike = H._replace(weights=jnp.full(N, weight), radial=jnp.zeros_like(U))
    x = jnp.asarray(np.random.default_rng(2).normal(size=U.shape))
    # every row in every pattern by half; what is left of a block of F^T F is half of X^T X, less what all share
    own = 0.25 * weight * jnp.einsum("de,hpe->hpd", A.XT @ A.X, x)
    r = augmented.bend(alike, A._replace(D=jnp.full_like(A.D, 0.5)), x) + own
    M = augmented.preconditioner(H, A.XT @ A.X)
    np.testing.assert_allclose(augmented.precondition(M, r), x, atol=1e-9)


def test_slope_along_a_step(program, point):
    A, y, reg, at, U = point
    x = jnp.asarray(np.random.default_rng(3).normal(size=U.shape))
    XU, Xx = products(A, U), products(A, x)
    slope = augmented.slope_along(
        at, augmented.look(at, U, XU, A, y, reg, program.loss), U, XU, x, Xx, A, y, reg, program.loss
    )
    for s in (0.0, 0.3, 1.0):
        expected = jax.grad(lambda s: phi(U + s * x, at, A, y, reg, program.loss))(jnp.asarray(s))
        np.testing.assert_allclose(slope(jnp.asarray(s)), expected, rtol=1e-10)


@pytest.mark.parametrize("few", [3, 16, 128], ids=["by block", "by block or together", "together"])
@pytest.mark.parametrize("shares", [(0.7, 0.2), (0.2, 0.95), (0.0, 0.6), (0.5, 0.5), (1.0, 0.0)])
def test_sums_are_corrected_by_the_rows_that_changed(point, monkeypatch, shares, few):
    monkeypatch.setattr(augmented, "FEW_ROWS", few)
    A, *_ = point
    rng = np.random.default_rng(4)
    held, wanted = (jnp.asarray(rng.random((N, 2, P)) < share) for share in shares)
    corrected = augmented.corrected_sums(A, sums(A, held), held, wanted, A.XT @ A.X)
    np.testing.assert_allclose(corrected, sums(A, wanted), atol=1e-12)


def test_conjugate_gradients_solve():
    rng = np.random.default_rng(5)
    root = rng.normal(size=(12, 12))
    M, b = jnp.asarray(root @ root.T + np.eye(12)), jnp.asarray(rng.normal(size=(2, 2, 3)))
    x, steps = newton.conjugate_gradients(
        lambda v: (M @ v.reshape(-1)).reshape(v.shape), lambda r: r, b, jnp.asarray(1e-10)
    )
    np.testing.assert_allclose((M @ x.reshape(-1)).reshape(b.shape), b, atol=1e-8)
    assert 0 < int(steps) <= newton.CG_STEPS


@pytest.mark.parametrize(("bottom", "expected"), [(2.0, 1.0), (1.0, 1.0), (0.25, 0.25), (1e-3, 1e-3)])
def test_step_length(bottom, expected):
    # the slope of (s - bottom)^2 with a kink: steeper after the bottom
    slope = lambda s: jnp.where(s < bottom, s - bottom, 50 * (s - bottom))  # noqa: E731
    length = newton.step_length(slope, slope(jnp.asarray(0.0)))
    assert abs(float(slope(length))) <= newton.FLATTER * bottom or float(length) == 1
    assert float(length) == pytest.approx(expected, rel=0.4)
    assert bottom < 1 or float(length) == 1


def test_multipliers_keep_their_signs_and_lengths(program):
    A, y, reg = features(jnp.asarray(program.X), jnp.asarray(program.patterns)), program.y, program.reg
    blocks = jnp.zeros((2, P, D))
    at = Multipliers(blocks, jnp.zeros((N, 2, P)), jnp.asarray(3.0), jnp.asarray(30.0))
    run = newton.start_newton(blocks, at, 64)
    for limit in range(6, 121, 6):
        run = jax.tree.map(jnp.array, run)  # the loop takes its argument's buffers
        run = newton.run_newton(run, A, jnp.asarray(y), jnp.asarray(reg), jnp.asarray(1e-9), limit, limit, program.loss)
        assert float(run.at.mu.min()) >= 0
        assert float(jnp.linalg.norm(run.at.lam, axis=-1).max()) <= reg * (1 + 1e-12)
        assert int(run.k) <= limit
    assert float(run.gap) < 1e-4
    assert float(run.at.mu.max()) > 0


def test_newton_and_admm_end_at_the_same_optimum_and_start_each_other(program):
    second, first = (solve(program, 1e-7, 50_000, algorithm=name) for name in ("newton", "admm"))
    assert second.status is first.status is Status.SOLVED
    assert second.primal == pytest.approx(first.primal, rel=2e-7)
    assert second.n_iter < 0.5 * first.n_iter
    near = program.with_reg(0.9 * program.reg)
    for start in (first, second):
        cold, warm = solve(near, 1e-5, algorithm="newton"), solve(near, 1e-5, algorithm="newton", start=start)
        assert warm.status is Status.SOLVED
        assert warm.n_iter < cold.n_iter
        assert solve(near, 1e-5, 20_000, algorithm="admm", start=start).status is Status.SOLVED


def test_penalties_grow_after_slow_rounds_only(program):
    trace = solve(program, 1e-9, algorithm="newton").trace
    fell, grew = trace["estimated_gap"][1:] / trace["estimated_gap"][:-1], trace["rho"][1:] > trace["rho"][:-1]
    # a row holds the gap after its round and the penalty that the round had
    assert grew.any()
    assert not (grew[1:] & (fell[:-1] <= newton.QUICK)).any()
    assert (fell[:-1] <= newton.QUICK).any()


def test_float32_says_where_it_stops(program):
    narrow = replace(program, X=program.X.astype(np.float32))
    solution = solve(narrow, tol=1e-12)
    assert solution.status is Status.STALLED
    assert "float64" in str(solution.status)
    assert 0 < solution.certificate.relative_gap < 1e-3


def test_admm_takes_over_where_asked_or_needed(program, monkeypatch):
    assert algorithms.choose_algorithm(program, sharded=True) == "admm"
    plain, admm = solve(program, 1e-2), solve(program, 1e-2, algorithm="admm")
    assert solve(program, 1e-2, method="cg").n_iter == solve(program, 1e-2, algorithm="admm", method="cg").n_iter
    assert plain.n_iter != admm.n_iter
    monkeypatch.setattr(algorithms, "MOST_BLOCKS", 2 * P * D**2 - 1)
    assert solve(program, 1e-2).n_iter == admm.n_iter
