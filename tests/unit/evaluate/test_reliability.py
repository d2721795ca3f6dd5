"""Prefix reliability: right counts, ties, and a curve that rises where the signal comes late."""

import numpy as np
import pytest

from coala_lib.evaluate.reliability import prefix_reliability


def test_a_late_signal_makes_a_rising_curve() -> None:
    rng = np.random.default_rng(0)
    noise, zeros = rng.normal(size=(4, 400)), np.zeros(400)
    chosen = {k: noise[i] + signal for i, (k, signal) in enumerate({1: 0.0, 4: 0.5, 16: 3.0, 64: 3.0}.items())}
    found = prefix_reliability(chosen, dict.fromkeys(chosen, zeros))
    accuracy = found["accuracy"]
    assert not accuracy[1].above(0.5)
    assert accuracy[4].above(0.5)
    assert accuracy[16].low > accuracy[4].high
    for k, metric in accuracy.items():
        assert metric.value == np.mean(chosen[k] > 0)
        assert found["agreement"][k].value == np.mean((chosen[k] > 0) == (chosen[64] > 0))


def test_ties_count_one_half_and_conversations_are_the_units() -> None:
    found = prefix_reliability({2: np.array([1.0, 0.0, 0.0, 0.0])}, {2: np.array([1.0, 0.0, 1.0, 1.0])}, [0, 0, 1, 1])
    assert found["accuracy"][2].value == 0.25
    assert found["accuracy"][2].n == 2
    assert found["agreement"][2].value == 1.0


def test_the_whole_replies_may_be_given() -> None:
    ahead = {1: np.array([1.0, 1.0])}, {1: np.array([0.0, 0.0])}
    assert prefix_reliability(*ahead, whole=(np.array([1.0, 0.0]), np.array([0.0, 1.0])))["agreement"][1].value == 0.5


@pytest.mark.usefixtures("without_annotations")
def test_sides_with_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[1\] and \[2\]"):
        prefix_reliability({1: np.ones(2)}, {2: np.ones(2)})
    with pytest.raises(ValueError, match="at least one"):
        prefix_reliability({}, {})
