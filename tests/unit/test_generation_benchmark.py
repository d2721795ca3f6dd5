"""The generation benchmark's bookkeeping, and the committed race that the book reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from benchmarks.generation import RESULTS, policies, race, ratios
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.guided import Policy


def test_ratios_are_paired_round_by_round():
    # a round in which the machine was three times slower for all leaves the ratio alone
    rows = {"a": {"seconds": [2.0, 6.0], "tokens": 10}, "b": {"seconds": [1.0, 3.0], "tokens": 20}}
    assert ratios(rows, "a") == {
        "a": {"median": 1.0, "low": 1.0, "high": 1.0},
        "b": {"median": 4.0, "low": 4.0, "high": 4.0},
    }


def test_a_race_counts_the_same_work_for_equal_candidates():
    decoder = Decoder(DecoderConfig(16, 8, 8, 1, 1, 1, 32), nnx.Rngs(0))
    found = race(decoder, policies(Policy(2, 2, 4), (2,)), n_prompts=2, width=4, rounds=2)
    assert {name: row["tokens"] for name, row in found.items()} == {"plain": 8, "best of 2": 16, "guided, chunk 2": 16}
    assert {row["passes"] for row in found.values()} == {5}
    assert [row["choices"] for row in found.values()] == [0, 2, 4]
    assert all(len(row["seconds"]) == 2 for row in found.values())


def test_the_committed_race_is_whole():
    found = json.loads(Path(RESULTS).read_text(encoding="utf-8"))
    names = set(policies(Policy(found["n_candidates"], 16, found["max_new_tokens"]), (1, 4, 8, 16)))
    assert set(found["policies"]) == names == set(found["tokens_a_second_over_best_of_n"])
    drawn = found["n_prompts"] * found["max_new_tokens"]
    for name, row in found["policies"].items():
        assert len(row["seconds"]) == found["rounds"]
        assert row["tokens"] == drawn * (1 if name == "plain" else found["n_candidates"])
    again = ratios(found["policies"], f"best of {found['n_candidates']}")
    for name, ratio in again.items():
        assert ratio["median"] == pytest.approx(found["tokens_a_second_over_best_of_n"][name]["median"])
        assert np.isfinite(ratio["high"])
