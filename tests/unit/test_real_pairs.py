"""The benchmark on real pairs: its helpers, and the committed aggregates that the book reads."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks.real_pairs import CHECKPOINTS, PENALTIES, SOURCES, TARGET, best_probe, hits


@pytest.fixture(scope="module")
def rows():
    return json.loads(TARGET.read_text(encoding="utf-8"))["rows"]


def test_hits_count_a_tie_as_one_half():
    assert hits(lambda side: side, [[2.0, 1.0, 1.0], [1.0, 2.0, 1.0]]).tolist() == [1.0, 0.0, 0.5]


def test_the_probe_is_chosen_on_the_pairs_that_choose():
    rng = np.random.default_rng(0)
    # one feature is small and always right, the other large and noisy; strong penalties look at the large one
    train = [sign * np.stack([np.full(400, 0.3), rng.normal(0.5, 1, 400)], 1) for sign in (1, -1)]
    choice = [side * [1, -1] for side in train]
    probes = [make_pipeline(LogisticRegression(C=C)) for C in PENALTIES]
    best = best_probe(probes, train, choice)
    shares = [hits(probe.decision_function, choice).mean() for probe in probes]
    assert hits(best.decision_function, choice).mean() == max(shares) > min(shares)


def test_the_committed_rows_are_aggregates_with_intervals(rows):
    assert set(rows) == {f"{name}, {model}" for name in SOURCES for model in CHECKPOINTS}
    for row in rows.values():
        assert 0 <= row["gap"] <= 1e-2
        assert not [value for value in row.values() if isinstance(value, str)]
        for rate in row["rates"].values():
            assert 0 <= rate["low"] < rate["value"] < rate["high"] <= 1


def test_coins_know_nothing_and_the_difference_is_the_difference(rows):
    for row in rows.values():
        coins = row["rates"]["random labels"]
        assert abs(coins["value"] - 0.5) < 0.05
        difference = row["rates"]["head"]["value"] - row["rates"]["logistic regression"]["value"]
        assert row["head less logistic"]["value"] == pytest.approx(difference, abs=1e-9)
