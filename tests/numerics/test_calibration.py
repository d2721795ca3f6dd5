"""Laplace intervals cover, temperatures are found again, and a reliability diagram adds up."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from coala_lib.preference import from_rows, minimise
from coala_lib.preference.calibration import fit_temperature, laplace, reliability


def drawn(seed, N=300, m=3):
    rng = np.random.default_rng(seed)
    truth, rows = np.array([1.0, -0.5, 0.25]), rng.normal(size=(N, m))
    rows *= np.where(rng.random(N) < expit(rows @ truth), 1, -1)[:, None]
    return truth, rows


@pytest.mark.parametrize("sandwich", [False, True])
def test_intervals_of_margins_cover_the_truth(sandwich):
    hits, probe = [], np.random.default_rng(99).normal(size=(20, 3))
    for seed in range(150):
        truth, rows = drawn(seed)
        objective = from_rows(rows, ridge=1e-6)
        posterior = laplace(objective, minimise(objective).theta, sandwich=sandwich)
        hits.append(np.abs(probe @ (posterior.theta - truth)) <= 1.96 * posterior.std(probe))
    # probes share a fit, so the standard error is that of 150 runs at worst: 1.8 points
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)


def test_covariance_is_that_of_logistic_regression_by_hand():
    _, rows = drawn(0)
    objective = from_rows(rows, ridge=1e-3)
    theta = minimise(objective, tol=1e-18).theta
    # our ridge is per row, scikit-learn's C counts all rows
    model = LogisticRegression(C=1 / (1e-3 * len(rows)), fit_intercept=False, tol=1e-10)
    model.fit(np.concatenate([rows, -rows]), np.repeat([1, 0], len(rows)), sample_weight=np.full(600, 0.5))
    np.testing.assert_allclose(theta, model.coef_[0], atol=1e-5)
    p = expit(rows @ theta)
    information = (rows.T * (p * (1 - p))) @ rows + 1e-3 * len(rows) * np.eye(3)
    np.testing.assert_allclose(laplace(objective, theta).covariance, np.linalg.inv(information), rtol=1e-9)


def test_the_sandwich_differs_where_the_model_is_wrong():
    # every row four times: the model believes in 1200 independent rows, n says that there are 300
    _, rows = drawn(1)
    objective = from_rows(np.repeat(rows, 4, axis=0), ridge=1e-6)
    theta = minimise(objective).theta
    naive, honest = laplace(objective, theta), laplace(objective, theta, n=300)
    np.testing.assert_allclose(2 * naive.std(rows), honest.std(rows), rtol=1e-9)


def test_posterior_probabilities_are_less_sure():
    _, rows = drawn(2, N=30)
    objective = from_rows(rows, ridge=1e-2)
    posterior = laplace(objective, minimise(objective).theta)
    plain, averaged = expit(rows @ posterior.theta), posterior.probability(rows)
    assert (np.abs(averaged - 0.5) < np.abs(plain - 0.5)).all()
    assert ((averaged > 0.5) == (plain > 0.5)).all()
    draws = np.random.default_rng(0).multivariate_normal(posterior.theta, posterior.covariance, 20_000)
    np.testing.assert_allclose(averaged, expit(draws @ rows.T).mean(axis=0), atol=0.01)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_temperature_is_found_again(temperature):
    rng = np.random.default_rng(3)
    z = 2 * rng.normal(size=20_000)
    z *= np.where(rng.random(20_000) < expit(z), 1, -1)
    assert fit_temperature(temperature * z) == pytest.approx(temperature, rel=0.05)
    before, after = (reliability(expit(temperature * z / T)).ece for T in (1.0, fit_temperature(temperature * z)))
    assert after < 0.02
    assert after <= before + 1e-9


def test_temperatures_that_do_not_exist():
    with pytest.raises(ValueError, match="no finite temperature"):
        fit_temperature(np.array([0.1, 2.0, 3.0]))
    with pytest.raises(ValueError, match="wrong way"):
        fit_temperature(np.array([-2.0, -1.0, 0.5]))


def test_reliability_adds_up():
    rng = np.random.default_rng(4)
    p = rng.random(5000)
    outcomes = rng.random(5000) < p
    found = reliability(p, outcomes)
    assert found.counts.sum() == 5000
    assert found.counts @ found.frequency == pytest.approx(((p >= 0.5) == outcomes).sum())
    assert found.counts @ found.confidence == pytest.approx(np.maximum(p, 1 - p).sum())
    assert found.ece < 0.03
    assert found.brier == pytest.approx(np.mean((p - outcomes) ** 2))
    turned = reliability(1 - p, ~outcomes)
    assert turned.ece == pytest.approx(found.ece)
    assert reliability(np.full(1000, 0.99), rng.random(1000) < 0.6).ece == pytest.approx(0.39, abs=0.05)
    edges = reliability(np.array([0.5, 1.0, 0.0, 0.75]), [True, True, False, True], n_bins=2)
    assert edges.counts.sum() == 4
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reliability(np.array([1.1]))
