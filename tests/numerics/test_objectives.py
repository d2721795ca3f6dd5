"""The objectives against automatic differentiation, TRL's formula, and the counterexamples of the printed Eq. 8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.preference import Eq8, from_rows, pairwise, pointwise

N, M = 30, 4


@pytest.fixture(scope="module")
def hidden():
    rng = np.random.default_rng(0)
    return np.maximum(rng.normal(0.3, 1, (N, M)), 0), np.maximum(rng.normal(0, 1, (N, M)), 0)


def family(chosen, rejected):
    rng = np.random.default_rng(1)
    more = {"weights": rng.random(N), "smoothing": 0.2, "ridge": 0.3, "anchor": rng.normal(size=M)}
    return {
        "eq8": Eq8(chosen, rejected, 0.7, 0.4),
        "pairwise": pairwise(chosen, rejected, 0.7, 0.4, **more),
        "pointwise": pointwise(chosen, np.sign(rng.normal(size=N)), 0.7, rng.normal(size=N), **more),
    }


@pytest.mark.parametrize("name", ["eq8", "pairwise", "pointwise"])
def test_derivatives_are_those_of_the_value(hidden, name):
    objective = family(*hidden)[name]
    rng = np.random.default_rng(2)
    theta, v = rng.normal(size=M), rng.normal(size=M)
    with jax.enable_x64(True):
        traced = jax.tree.map(jnp.asarray, objective)
        automatic = jax.jit(lambda o, t, v: (*jax.jvp(jax.grad(o.value), (t,), (v,)), o.gradient(t), o.hvp(t, v)))
        gradient, curved, *closed = automatic(traced, jnp.asarray(theta), jnp.asarray(v))
    np.testing.assert_allclose(objective.gradient(theta), gradient, atol=1e-13)
    np.testing.assert_allclose(objective.hvp(theta, v), curved, atol=1e-13)
    # the same closed forms on jax arrays, and the whole Hessian column by column
    np.testing.assert_allclose(closed, [gradient, curved], atol=1e-13)
    columns = [objective.hvp(theta, e) for e in np.eye(M)]
    np.testing.assert_allclose(objective.hessian(theta), columns, atol=1e-14)


@pytest.mark.parametrize("name", ["eq8", "pairwise", "pointwise"])
def test_no_curvature_exceeds_the_lipschitz_constant(hidden, name):
    objective = family(*hidden)[name]
    thetas = np.random.default_rng(3).normal(0, 2, size=(200, M))
    curvature = [np.abs(np.linalg.eigvalsh(objective.hessian(theta))).max() for theta in thetas]
    assert max(curvature) <= objective.lipschitz()
    assert max(curvature) > objective.lipschitz() / 50


def test_losses_stay_exact_far_out():
    # the naive log(1 + exp(800)) overflows, and 1 - sigma loses the small side
    objective = from_rows(np.array([[1.0]]))
    assert float(objective.value(np.array([-800.0]))) == 800.0
    assert float(objective.value(np.array([50.0]))) == pytest.approx(np.exp(-50.0), rel=1e-12)
    assert float(objective.gradient(np.array([50.0]))[0]) == pytest.approx(-np.exp(-50.0), rel=1e-12)
    assert float(Eq8(np.ones((1, 1)), -np.ones((1, 1))).value(np.array([-800.0]))) == 800.0


@pytest.mark.parametrize("delta", [0.0, 0.37])
def test_pointwise_is_trls_bco_pair(hidden, delta):
    """TRL's two-sided loss of a pair: the chosen reward above a threshold, the rejected one below it."""
    chosen, rejected = hidden
    beta, theta = 0.3, np.random.default_rng(4).normal(size=M)
    rewards = beta * chosen @ theta, beta * rejected @ theta

    def minus_log_sigmoid(t):
        return np.log1p(np.exp(-np.abs(t))) + np.maximum(-t, 0)

    theirs = (minus_log_sigmoid(rewards[0] - delta) + minus_log_sigmoid(-(rewards[1] - delta))).mean()
    labels = np.repeat([1.0, -1.0], N)
    ours = pointwise(np.concatenate(hidden), labels, beta, labels * delta).value(theta)
    assert 2 * ours == pytest.approx(theirs, abs=1e-12)


def test_eq_8_is_eq_9_where_the_labels_are_complementary():
    """Audit E2: one feature vector, y_l = -y_w; 2000 draws."""
    rng = np.random.default_rng(5)
    apart = 0.0
    for _ in range(2000):
        phi, y, theta = rng.normal(size=(1, M)), rng.choice([-1.0, 1.0]), rng.normal(size=M)
        beta, margin = np.exp(rng.normal()), rng.normal()
        printed = Eq8(y * phi, -y * phi, beta, margin).value(theta)
        apart = max(apart, abs(float(printed - pointwise(phi, [y], beta, margin).value(theta))))
    assert apart < 1e-13


def test_one_sided_labels_are_degenerate(hidden):
    """Audit E2: 0.974 at zero, then nothing is left to learn along the ones."""
    objective = pointwise(hidden[0] + 0.05, np.ones(N), margin=0.5)
    losses = [float(objective.value(c * np.ones(M))) for c in (0, 1, 10, 100)]
    assert round(losses[0], 3) == 0.974
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[3] < 1e-6


def test_the_printed_objective_is_not_convex():
    """Audit E3, to the printed digits."""
    one = Eq8(np.zeros((1, 1)), np.ones((1, 1)))
    assert float(one.hessian(np.zeros(1))[0, 0]) == -1 / 16
    values = [float(one.value(np.array([t]))) for t in (0.0, 2.0, -2.0)]
    assert round(values[0], 6) == 0.693147
    assert round(sum(values[1:]) / 2, 6) == 0.614817
    assert values[0] == pytest.approx(np.log(1 + 2 * 0.5))
    positive = Eq8(np.array([[1.0, 0.2]]), np.array([[0.3, 1.0]]), 1.0, 0.5)
    eigenvalues = np.linalg.eigvalsh(positive.hessian(np.zeros(2)))
    assert [round(float(e), 4) for e in eigenvalues] == [-0.1199, 0.1785]


def test_random_draws_are_convex_in_our_forms_and_mostly_not_in_the_printed_one():
    rng = np.random.default_rng(6)
    lowest = {"printed": [], "ours": []}
    for _ in range(200):
        chosen, rejected = np.maximum(rng.normal(size=(2, 20, 5)), 0)
        theta, beta, margin = rng.normal(size=5), np.exp(rng.normal()), rng.normal()
        labels = rng.choice([-1.0, 1.0], 20)
        lowest["printed"].append(np.linalg.eigvalsh(Eq8(chosen, rejected, beta, margin).hessian(theta))[0])
        for objective in (pairwise(chosen, rejected, beta, margin), pointwise(chosen, labels, beta, margin)):
            lowest["ours"].append(np.linalg.eigvalsh(objective.hessian(theta))[0])
    assert min(lowest["ours"]) >= -1e-12
    assert np.mean(np.array(lowest["printed"]) < -1e-10) > 0.5


def test_pairs_against_labelled_rows():
    rng = np.random.default_rng(2)
    chosen, rejected = rng.normal(0.3, 1, (N, M)), rng.normal(-0.3, 1, (N, M))
    theta, prompt = rng.normal(size=M), 5 * rng.normal(size=(N, M))  # what both responses of a prompt share
    labels = np.repeat([1.0, -1.0], N)

    def pair(offset=0.0, margin=0.0):
        return float(pairwise(chosen + offset, rejected + offset, 1.0, margin).value(theta))

    def point(offset=0.0, margin=0.0):
        return float(pointwise(np.concatenate([chosen + offset, rejected + offset]), labels, 1.0, margin).value(theta))

    assert pair(prompt) == pytest.approx(pair(), rel=1e-12)
    assert abs(point(prompt) - point()) > 0.1
    # audit E4: pointwise is an upper bound on pairs with twice the margin
    for margin in (0.0, 0.5, 2.0):
        assert pair(margin=2 * margin) <= 2 * point(margin=margin)
