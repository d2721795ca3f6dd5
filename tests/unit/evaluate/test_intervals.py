import numpy as np
import pytest
from scipy.stats import binomtest

from coala_lib.evaluate import mean_interval, preference_metrics


def test_independent_rows_give_the_binomial_interval() -> None:
    values = np.repeat([1.0, 0.0], [300, 200])
    metric = mean_interval(values, "fraction")
    exact = binomtest(300, 500).proportion_ci(method="wilson")
    assert (metric.value, metric.n) == (0.6, 500)
    assert metric.low == pytest.approx(exact.low, abs=0.01)
    assert metric.high == pytest.approx(exact.high, abs=0.01)


def test_clusters_that_agree_inside_count_once() -> None:
    one_a_cluster = np.random.default_rng(0).random(100) < 0.6
    values, groups = np.repeat(one_a_cluster, 9).astype(float), np.repeat(np.arange(100), 9)
    wide, narrow = mean_interval(values, "fraction", groups), mean_interval(values, "fraction")
    assert (wide.n, narrow.n) == (100, 900)
    assert wide.high - wide.low == pytest.approx(3 * (narrow.high - narrow.low), rel=0.15)


def test_coverage_is_about_nominal() -> None:
    rng = np.random.default_rng(1)
    covered = [
        (metric := mean_interval(rng.random(80) < 0.7, "fraction", seed=k)).low <= 0.7 <= metric.high
        for k in range(200)
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_no_spread_no_interval() -> None:
    metric = mean_interval(np.ones(20), "reward")
    assert (metric.value, metric.low, metric.high, metric.n) == (1.0, None, None, 20)
    assert not metric.above(0.5)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval(np.array([]), "fraction")


def test_preference_metrics_agree_with_their_definitions() -> None:
    chosen, rejected = np.array([1.0, 2.0, 0.0, 1.0]), np.array([0.0, 3.0, 0.0, -1.0])
    metrics = preference_metrics(chosen, rejected)
    assert metrics["rewards/margins"].value == pytest.approx((chosen - rejected).mean())
    assert metrics["rewards/accuracies"].value == pytest.approx((2 + 0.5) / 4)
    assert metrics["rewards/margins"].value == pytest.approx(
        metrics["rewards/chosen"].value - metrics["rewards/rejected"].value
    )
