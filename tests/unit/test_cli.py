"""The command line: it writes a checkpoint, and bad input ends in one sentence and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from coala_lib.lm.checkpoint import load_decoder


def coala(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "coala_lib.cli", *arguments], capture_output=True, text=True)


def test_pretrain_writes_a_checkpoint_with_its_card(tmp_path: Path) -> None:
    done = coala("pretrain", "--out", str(tmp_path / "lm"), "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert "nats per token" in done.stdout
    assert "coala pretrain --steps 2 --seed 0" in (tmp_path / "lm" / "README.md").read_text()
    assert load_decoder(tmp_path / "lm").config.num_hidden_layers == 4


@pytest.mark.parametrize("arguments", [("--steps", "0"), ("--seed", "-1"), ("--colour", "red")])
def test_bad_values_are_refused_before_any_work(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = coala("pretrain", "--out", str(tmp_path / "lm"), *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert not (tmp_path / "lm").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = coala("pretrain", "--out", str(tmp_path / "file" / "lm"), "--steps", "1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
