"""How often the audit is wrong: coverage of its intervals, false alarms on clean data, faults it misses."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.real_data_audit import TARGET, audited
from coala_lib.corpora import alternate, conversations, make_world, split
from coala_lib.corpora.audit import audit
from coala_lib.corpora.edu import Style
from coala_lib.corpora.faults import copy_across, number_turns, pad_chosen
from coala_lib.corpora.rates import Rate, gain, rate

SEEDS = range(24)


def rows_of(seed, n=200, **style):
    return alternate(conversations(make_world(seed), n=n, seed=seed, style=Style(**style)), source="edu")


# --- the interval


def test_independent_rows_give_clopper_and_pearson():
    values = np.repeat([1.0, 0.0], [30, 20])
    found = Rate(0.6, 50, 50.0)
    exact = binomtest(30, 50, 0.5, alternative="greater")
    assert found.interval == pytest.approx(tuple(binomtest(30, 50).proportion_ci(method="exact")))
    assert found.p_above(0.5) == pytest.approx(exact.pvalue)
    assert found.p_away(0.5) == pytest.approx(binomtest(30, 50, 0.5).pvalue)
    # measured, the design effect of independent rows is close to one
    assert rate(values, np.random.default_rng(0).permutation(50)).n_effective == pytest.approx(50, rel=0.05)


def test_copies_of_rows_count_once():
    values = np.random.default_rng(0).random(200) < 0.7
    once, thrice = rate(values, np.arange(200)), rate(np.repeat(values, 3), np.repeat(np.arange(200), 3))
    assert thrice.n_effective == pytest.approx(once.n_effective, rel=1e-9)
    assert thrice.interval == pytest.approx(once.interval)


def test_ties_are_sharper_than_coins():
    """200 rows that split evenly, against 20 of them and 180 ties: the second rate is nearly certain."""
    coins, ties = np.arange(200) % 2, np.where(np.arange(200) < 20, np.arange(200) % 2, 0.5)
    wide, narrow = (np.ptp(rate(values, np.arange(200)).interval) for values in (coins, ties))
    assert narrow == pytest.approx(wide / np.sqrt(10), rel=0.1)
    # and where all that differ differ one way, the p-value is about that of a sign test
    found = rate(np.where(np.arange(200) < 10, 1.0, 0.5), np.arange(200))
    assert found.p_away(0.5) == pytest.approx(binomtest(10, 10).pvalue, rel=0.5)


@pytest.mark.parametrize(("value", "interval"), [(0.0, (0.0, 0.3085)), (1.0, (0.6915, 1.0))])
def test_rates_at_the_ends(value, interval):
    found = rate(np.full(20, value), np.repeat(np.arange(10), 2))
    assert found.n_effective == 10
    assert found.interval == pytest.approx(interval, abs=1e-4)
    assert found.p_away(0.5) == pytest.approx(2 * 0.5**10)


@pytest.mark.parametrize(("mean", "spread"), [(0.5, 0.0), (0.5, 0.3), (0.05, 0.04), (0.9, 0.1)])
def test_coverage(mean, spread):
    """The true rate lies in the interval in at least 95 % of 1,000 draws (less three standard errors)."""
    rng, missed = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(100), 3)
    for _ in range(1000):
        of_talk = rng.uniform(mean - spread, mean + spread, 100).clip(0, 1)
        low, high = rate(rng.random(300) < of_talk[groups], groups).interval
        missed += not low <= mean <= high
    assert missed <= 1000 * 0.05 + 3 * np.sqrt(1000 * 0.05 * 0.95)


def test_a_paired_gain_is_sharper_than_two_rates():
    rng = np.random.default_rng(0)
    worse = rng.random(400) < 0.6
    better = worse | (rng.random(400) < 0.1)
    groups = np.arange(400) // 2
    found = gain(better, worse, groups)
    assert found["value"] == pytest.approx(better.mean() - worse.mean())
    assert 0 < found["low"] < found["value"] < found["high"] < 0.1
    assert rate(better, groups).interval[0] < rate(worse, groups).interval[1]


def test_a_rate_needs_rows():
    with pytest.raises(ValueError, match="at least one row"):
        rate(np.array([]), [])


# --- the family


def test_clean_data_raise_no_alarm():
    """No alarm in 24 clean worlds at alpha = 0.01; the rate is then at most 0.117 (one-sided 95 %).

    240 worlds of 300 conversations gave none at 0.01, and two at 0.05: the correction is cautious.
    """
    reports = [audit(rows_of(seed), seed=seed) for seed in SEEDS]
    assert [report.artefacts for report in reports if report.artefacts] == []
    assert binomtest(0, len(reports), alternative="less").proportion_ci(0.95).high < 0.12
    # probes that never learn would raise no alarm either: their accuracies must scatter as coins do
    z = [(r[n].value - 0.5) / np.sqrt(0.25 / r.n_test) for r in reports for n in ("length", "words", "turn")]
    assert 0.7 < np.std(z) < 1.3


FAULTS = {
    "length": lambda rows, seed: (pad_chosen(rows, 0.5, seed), None),
    "greetings": lambda rows, seed: (rows_of(seed, greeting=0.5, farewell=0.5), None),
    "turn": lambda rows, seed: (
        alternate(number_turns(conversations(make_world(seed), n=200, seed=seed), 0.5, seed), source="edu"),
        None,
    ),
    "prompts across the split": lambda rows, seed: (
        (halves := split(rows, 0.5, seed))[0],
        copy_across(*halves, 0.3, seed),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name):
    for seed in SEEDS[:3]:
        assert name in audit(*FAULTS[name](rows_of(seed), seed), seed=seed).artefacts


# --- real conversations


def test_the_committed_aggregates_are_those_of_the_data(shared):
    if not (shared / "data" / "tutoring").is_dir():
        pytest.skip(f"no tutoring conversations in {shared}")
    committed = json.loads(TARGET.read_text(encoding="utf-8"))["data"]["CIMA, alternating"]
    found = audited(shared / "data", "CIMA, alternating")
    assert found["counts"] == committed["counts"]
    assert {name: f["verdict"] for name, f in found["findings"].items()} == {
        name: f["verdict"] for name, f in committed["findings"].items()
    }
    for name, rates in committed["rates"].items():
        assert found["rates"][name] == pytest.approx(rates, abs=0.01)
