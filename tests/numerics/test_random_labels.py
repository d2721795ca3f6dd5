"""Margins are cheap: Phase II raises them on random labels too. Only held-out pairs tell the difference."""

import numpy as np
import pytest

from coala_lib import CoalaHead

N, D, HELD_OUT, SEEDS = 100, 8, 500, range(5)


@pytest.fixture(scope="module")
def runs():
    """shift -> (heads, held-out pair accuracies), one of each a seed; shift 0 means labels that say nothing."""

    def run(shift, seed):
        rng = np.random.default_rng(seed)
        chosen, rejected = (rng.normal(s * shift, 1, size=(N + HELD_OUT, D)) for s in (1, -1))
        head = CoalaHead(n_gates=6, reg=0.2, tol=1e-2, random_state=seed).fit_pairs(chosen[:N], rejected[:N])
        return head, head.score_pairs(chosen[N:], rejected[N:])

    return {shift: list(zip(*(run(shift, seed) for seed in SEEDS), strict=True)) for shift in (0.0, 0.3)}


def test_margins_rise_on_random_labels(runs):
    for head in runs[0.0][0]:
        assert head.phase_two_.margins[-1] > 1.2 * head.phase_two_.margins[0] > 0


def test_held_out_accuracy_stays_at_chance_on_random_labels(runs):
    accuracies = np.array(runs[0.0][1])
    # 2,500 pairs: the standard error is one point
    assert abs(accuracies.mean() - 0.5) < 0.04


def test_held_out_accuracy_rises_with_a_signal(runs):
    assert np.mean(runs[0.3][1]) > 0.7
