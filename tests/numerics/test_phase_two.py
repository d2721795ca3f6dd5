"""Phase II against scipy's trust region, its certificate, and what the algebra of the objective promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from coala_lib.preference import coala_loss, fit_phase_two

SHAPE = (60, 4)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(0.2, 1, size=SHAPE), rng.normal(size=SHAPE[1])


def reference(A, anchor, beta=1.0, margin=0.0, ridge=1e-2, start=None):
    """Minimiser and minimum by scipy, from the formulas of the text."""
    n, m = A.shape

    def value(t):
        return np.logaddexp(0, margin - beta * A @ t).mean() + ridge / 2 * np.sum((t - anchor) ** 2)

    def gradient(t):
        return -beta * A.T @ expit(margin - beta * A @ t) / n + ridge * (t - anchor)

    def hessian(t):
        p = expit(margin - beta * A @ t)
        return beta**2 * (A.T * (p * (1 - p))) @ A / n + ridge * np.eye(m)

    start = np.zeros(m) if start is None else start
    found = minimize(value, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-12})
    return found.x, found.fun


@pytest.mark.parametrize(
    ("beta", "margin", "ridge"), [(1.0, 0.0, 1e-2), (0.1, 1.5, 1e-1), (5.0, -1.0, 1e-2), (1.0, 4.0, 1e-4)]
)
def test_minimiser_equals_scipys(data, beta, margin, ridge):
    A, anchor = data
    found = fit_phase_two(A, anchor, beta, margin, ridge, tol=1e-18)
    theta, loss = reference(A, anchor, beta, margin, ridge)
    np.testing.assert_allclose(found.theta, theta, atol=1e-8)
    assert found.loss == pytest.approx(loss, abs=1e-12)
    assert found.theta.dtype == np.float64


def test_bound_bounds_after_every_step(data):
    A, anchor = data
    _, best = reference(A, anchor, ridge=1e-3)
    bounds = []
    for steps in (0, 2, 8):  # each one compiles
        found = fit_phase_two(A, anchor, ridge=1e-3, tol=1e-16, max_iter=steps)
        assert -1e-14 <= found.loss - best <= found.bound + 1e-14
        assert len(found.margins) == len(found.norms) == found.n_iter + 1
        bounds.append(found.bound)
    assert bounds[0] > 1e-3
    assert bounds[-1] < 1e-10


def test_bound_is_sharp_where_the_ridge_dominates(data):
    A, anchor = data
    found = fit_phase_two(1e-4 * A, anchor, ridge=1.0, tol=1e-16, max_iter=0)
    _, best = reference(1e-4 * A, anchor, ridge=1.0)
    assert found.bound == pytest.approx(found.loss - best, rel=1e-3)
    assert found.bound > 1e-12


def test_trace_starts_at_phase_one_and_ends_at_the_result(data):
    A, anchor = data
    found = fit_phase_two(A, anchor)
    assert found.margins[[0, -1]] == pytest.approx([(A @ anchor).mean(), (A @ found.theta).mean()])
    assert found.norms[[0, -1]] == pytest.approx([np.linalg.norm(anchor), np.linalg.norm(found.theta)])


@pytest.mark.parametrize("rows", [3, 60])
def test_separable_pairs_have_one_finite_minimiser(rows):
    # without the ridge the loss falls for ever along (1, 1, 1, 1)
    A = np.abs(np.random.default_rng(1).normal(size=(rows, 4))) + 0.1
    found = fit_phase_two(A, np.zeros(4), ridge=1e-3, tol=1e-16)
    assert found.bound <= 1e-16
    for start in (np.zeros(4), np.full(4, 10.0)):
        theta, _ = reference(A, np.zeros(4), ridge=1e-3, start=start)
        np.testing.assert_allclose(found.theta, theta, atol=1e-6)
    assert 1 < np.linalg.norm(found.theta) < 1e3


@pytest.mark.parametrize("beta", [0.1, 10.0])
def test_beta_only_rescales(data, beta):
    # L sees beta * theta: with the anchor and the ridge rescaled too, theta(beta) = theta(1) / beta
    A, anchor = data
    one = fit_phase_two(A, anchor, ridge=1e-2, tol=1e-18)
    other = fit_phase_two(A, anchor / beta, beta, ridge=1e-2 * beta**2, tol=1e-18)
    np.testing.assert_allclose(beta * other.theta, one.theta, atol=1e-7)
    # with the ridge left alone it is not: the ridge is then another problem's
    fixed = fit_phase_two(A, anchor / beta, beta, ridge=1e-2, tol=1e-18)
    assert np.abs(beta * fixed.theta - one.theta).max() > 1e-3


def test_gradient_by_finite_differences(data):
    A, theta = data
    with jax.enable_x64(True):
        A, theta, h = jnp.asarray(A), jnp.asarray(theta), 1e-6
        gradient = jax.grad(coala_loss)(theta, A, 0.7, 1.3)
        for i in range(SHAPE[1]):
            e = jnp.zeros(SHAPE[1]).at[i].set(h)
            slope = (coala_loss(theta + e, A, 0.7, 1.3) - coala_loss(theta - e, A, 0.7, 1.3)) / (2 * h)
            assert float(gradient[i]) == pytest.approx(float(slope), abs=1e-8)


def test_pairs_against_labelled_rows():
    rng = np.random.default_rng(2)
    chosen, rejected, theta = rng.normal(0.3, 1, SHAPE), rng.normal(-0.3, 1, SHAPE), rng.normal(size=SHAPE[1])
    prompt = 5 * rng.normal(size=SHAPE)  # what both responses of a prompt share

    def loss(rows, margin):
        with jax.enable_x64(True):
            return float(coala_loss(jnp.asarray(theta), jnp.asarray(rows), 1.0, margin))

    def pairwise(offset, margin=0.0):
        return loss((chosen + offset) - (rejected + offset), margin)

    def pointwise(offset, margin=0.0):
        return loss(np.concatenate([chosen + offset, -(rejected + offset)]), margin)

    assert pairwise(prompt) == pytest.approx(pairwise(0), rel=1e-12)
    assert abs(pointwise(prompt) - pointwise(0)) > 0.1
    # audit E4: pointwise is an upper bound on pairs with twice the margin
    for margin in (0.0, 0.5, 2.0):
        assert pairwise(0, 2 * margin) <= 2 * pointwise(0, margin)
