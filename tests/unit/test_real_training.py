"""The benchmark that trains COALA and its rivals on real pairs: its parts, and the file it left."""

import json

import jax
import numpy as np
import pytest

from benchmarks.real_training import (
    FIT,
    RIVALS,
    SEEDS,
    TARGET,
    features,
    flipped,
    log_odds_of,
    mean_tokens,
    run_coala,
    run_rival,
)
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.pairs import pair_rows
from coala_lib.lm.reference import with_reference
from coala_lib.lm.tokenizer import Encoded
from coala_lib.preference.baselines import PairLogps, dpo

FIXTURES = TARGET.parent
NAMES = ("COALA, relu", "COALA, gated", *RIVALS)


def made(n, seed=0):
    """Pairs whose chosen reply holds smaller tokens."""
    rng = np.random.default_rng(seed)
    asked = [tuple(rng.integers(10, 500, 5).tolist()) for _ in range(n)]
    low, high = (rng.integers(*ends, (n, 6)).tolist() for ends in ((10, 200), (300, 500)))
    return [tuple(Encoded((*p, *reply), 5) for reply in both) for p, *both in zip(asked, low, high, strict=True)]


@pytest.fixture(scope="module")
def committed():
    return json.loads(TARGET.read_text(encoding="utf-8"))


def test_coins_flip_about_half_of_the_pairs_and_nothing_without_a_seed():
    pairs = made(200)
    assert flipped(pairs, None) == pairs
    swapped = np.mean([a == b[::-1] for a, b in zip(flipped(pairs, 3), pairs, strict=True)])
    assert 0.4 < swapped < 0.6
    assert flipped(pairs, 3) == flipped(pairs, 3) != flipped(pairs, 4)


def test_the_log_odds_are_those_that_the_loss_minimises():
    rng = np.random.default_rng(0)
    numbers = -rng.exponential(5, (4, 20))
    pairs = PairLogps(*numbers[:2], *np.full((2, 20), 3.0), *numbers[2:])
    np.testing.assert_allclose(np.log1p(np.exp(-log_odds_of("DPO, LoRA", pairs))), dpo(pairs), rtol=1e-12)


def test_tokens_are_counted_by_part():
    assert mean_tokens(made(10)) == (5, 6)


def test_a_head_and_a_rival_are_run_and_judged():
    decoder, train, test = load_decoder(FIXTURES / "edu-lm"), made(32), made(16, 1)
    coala = run_coala(decoder, train, features(decoder, test), "gated", 0.1, 0)
    assert coala.ahead.shape == (16,)
    assert coala.ahead.mean() > 0.9
    assert coala.margins[-1] > coala.margins[0]
    judge = with_reference(decoder, pair_rows(test, 15))
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules rely on it
        rival = run_rival(decoder, train, judge, "DPO, LoRA", 1e-3, 0)
    assert rival.ahead.shape == (16,)
    assert len(rival.margins) == 2  # steps of one epoch
    assert rival.margins[0] == pytest.approx(0, abs=1e-5)
    assert coala.operations < rival.operations


def test_the_committed_rows_are_rates_with_intervals(committed):
    assert set(committed["rows"]) == set(committed["sources"])
    assert committed["sizes"]["fit"] == FIT
    for row in committed["rows"].values():
        assert set(NAMES) < set(row["rates"])
        for rate in row["rates"].values():
            assert 0 <= rate["low"] < rate["value"] < rate["high"] <= 1
        for name in NAMES:
            assert len(row["margins"][name]) == SEEDS
            assert abs(row["rates"][f"{name}, random labels"]["value"] - 0.5) < 0.06
        spent = row["operations"]
        assert spent["COALA, gated"] < spent["COALA, relu"] < spent["DPO, LoRA"] < spent["DPO, full"]
        assert spent["ORPO, LoRA"] < spent["DPO, LoRA"]


def test_the_committed_gains_are_differences_of_the_rates(committed):
    for row in committed["rows"].values():
        for name, gain in row["gains"].items():
            ours, theirs = (row["rates"][each]["value"] for each in name.split(" less "))
            assert gain["value"] == pytest.approx(ours - theirs, abs=1e-9)
