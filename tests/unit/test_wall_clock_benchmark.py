"""The race of COALA and DPO: its bookkeeping, and the committed race that the book reads."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.wall_clock import METHODS, RESULTS, ratios, share, until

RUNS = [
    {"method": "COALA", "seconds": 4.0, "feature_seconds": 1.0, "accuracy": 0.7},
    {"method": "DPO, LoRA", "seconds": 8.0, "curve": [[0, 1.0, 0.5], [2, 2.0, 0.7], [4, 8.0, 0.9]]},
    {"method": "COALA", "seconds": 6.0, "feature_seconds": 2.0, "accuracy": 0.95},
    {"method": "DPO, LoRA", "seconds": 12.0, "curve": [[0, 1.0, 0.5], [4, 12.0, 0.9]]},
]


def test_ratios_are_paired_round_by_round():
    found = ratios(RUNS)
    assert found["coala_over_lora_dpo"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert found["features_over_lora_dpo"]["high"] == pytest.approx(1 / 6)
    # the second run never gets there: all of its time counts
    assert found["at_equal_accuracy"] == {"value": 1.25, "low": 0.5, "high": 2.0}


def test_an_accuracy_is_reached_once_or_never():
    assert until(RUNS[1]["curve"], 0.6) == (2, 2.0)
    assert until(RUNS[1]["curve"], 0.95) is None


def test_ties_count_half():
    assert share(np.array([1.0, 0.0, -1.0])) == 0.5


def test_the_committed_race_is_whole():
    found = json.loads(Path(RESULTS).read_text(encoding="utf-8"))
    assert [run["method"] for run in found["runs"]] == [*METHODS] * found["rounds"]
    assert found["ratios"] == ratios(found["runs"])
    for run in found["runs"]:
        assert 0.5 < run["accuracy"] <= 1
        assert run["peak_bytes"] > run["start_bytes"]
        if run["method"] != "COALA":
            steps = [point[0] for point in run["curve"]]
            assert steps[-1] == found["sizes"]["train_pairs"] // found["batch"]
            assert run["seconds"] == run["curve"][-1][1]
