"""The command line: it writes a checkpoint, and bad input ends in one sentence and exit code 2."""

import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from coala_lib import CoalaHead, cli
from coala_lib.corpora import alternate, conversations, make_world, read_jsonl
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.features import read_features

MODEL = Path(__file__).resolve().parents[2] / "notebooks" / "fixtures" / "edu-lm"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def coala(*arguments: str) -> Done:
    """The command as a shell runs it, but in this process: imports are what costs."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["coala", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def test_pretrain_writes_a_checkpoint_with_its_card(tmp_path: Path) -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules rely on it
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


def test_a_place_that_cannot_be_written_is_refused_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = coala("pretrain", "--out", str(tmp_path / "file" / "lm"), "--steps", "1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "train" not in done.stderr


def test_a_line_separator_inside_a_message_ends_no_row(triplets: Path, tmp_path: Path) -> None:
    row = json.loads(triplets.read_text().splitlines()[0])
    row["chosen"][0]["content"] += "\u2028and more"
    (tmp_path / "odd.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_jsonl(tmp_path / "odd.jsonl") == [row]


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = alternate(conversations(make_world(0), n=30, seed=9), source="edu")
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def features(triplets: Path) -> Path:
    out = triplets.parent / "features"
    done = coala("features", str(triplets), "--out", str(out), "--model", str(MODEL))
    assert done.returncode == 0, done.stderr
    return out


def test_pairs_become_a_head(features: Path, tmp_path: Path) -> None:
    done = coala("fit", str(features), "--out", str(tmp_path / "head"), "--n-gates", "4", "--reg", "0.3")
    assert done.returncode == 0, done.stderr
    X, _ = read_features(features)
    head = CoalaHead.load(tmp_path / "head")
    assert head.score_pairs(*np.split(X, 2)) > 0.5
    assert head.certificate_.gap >= 0


def test_an_empty_response_stops_before_any_work(triplets: Path, tmp_path: Path) -> None:
    row = json.loads(triplets.read_text().splitlines()[0])
    row["rejected"][0]["content"] = " "
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(row) + "\n")
    done = coala("features", str(bad), "--out", str(tmp_path / "out"), "--model", str(MODEL))
    assert done.returncode == 2
    assert "row 0: field 'rejected' holds an empty message" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n{")
    done = coala("features", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "row 1: not a JSON object" in done.stderr


def test_a_truncated_checkpoint_is_one_sentence(triplets: Path, tmp_path: Path) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    (model / "model.safetensors").write_bytes((MODEL / "model.safetensors").read_bytes()[:100_000])
    done = coala("features", str(triplets), "--out", str(tmp_path / "out"), "--model", str(model))
    assert done.returncode == 2
    assert "truncated" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_features_with_nan_lose_no_former_head(features: Path, tmp_path: Path) -> None:
    bad, head = shutil.copytree(features, tmp_path / "features"), tmp_path / "head"
    X, _ = read_features(features)
    CoalaHead(n_gates=2, reg=0.3).fit_pairs(*np.split(X, 2)).save(head)
    before = (head / "head.safetensors").read_bytes()
    X[3, 5] = np.nan
    save_file({"features": X}, bad / "features.safetensors")
    done = coala("fit", str(bad), "--out", str(head))
    assert done.returncode == 2
    assert "NaN" in done.stderr
    assert "Traceback" not in done.stderr
    assert (head / "head.safetensors").read_bytes() == before
