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
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from coala_lib import CoalaHead, cli, rows
from coala_lib.corpora import alternate, conversations, make_world, read_jsonl
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.features import read_features
from coala_lib.reward_model import MismatchError, RewardModel, check_features

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
    made = alternate(conversations(make_world(0), n=30, seed=9), source="edu")
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
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


@pytest.fixture(scope="module")
def head(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads") / "head"
    options = ["--n-gates", "4", "--reg", "0.3", "--name", "tutor", "--data", "thirty conversations"]
    done = coala("fit", str(features), "--out", str(out), "--held-out", str(features), *options)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def texts(triplets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows of each kind: pairs, single responses, several responses; 66 rows, so one chunk and a bit."""
    pairs = [json.loads(line) for line in triplets.read_text().splitlines()]
    some = (pairs * 3)[:66]
    kinds = {
        "pairs": some,
        "one": [{"prompt": r["prompt"], "response": r["chosen"][0]["content"]} for r in some],
        "many": [
            {"prompt": r["prompt"], "responses": [r[s][0]["content"] for s in ("rejected", "chosen")]} for r in some
        ],
    }
    folder = tmp_path_factory.mktemp("texts")
    for name, those in kinds.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in those))
    pd.DataFrame(kinds["one"]).to_parquet(folder / "parquet.parquet")
    return {file.stem: file for file in folder.iterdir()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_of_texts_are_those_of_features(head, features, texts, tmp_path) -> None:
    out = {kind: tmp_path / f"{kind}.jsonl" for kind in texts}
    for kind, source in texts.items():
        done = coala("score", str(head), str(source), "--out", str(out[kind]), "--model", str(MODEL))
        assert done.returncode == 0, done.stderr
        assert "66 rows scored, 0 of them before" in done.stdout
    X, _ = read_features(features)
    chosen, rejected = np.split(CoalaHead.load(head).decision_function(X), 2)
    n = len(chosen)
    for k, row in enumerate(lines(out["pairs"])):
        assert row["rewards/chosen"] == pytest.approx(chosen[k % n], abs=1e-4)
        assert row["rewards/margins"] == pytest.approx(chosen[k % n] - rejected[k % n], abs=1e-4)
    single = [row["reward"] for row in lines(out["one"])]
    np.testing.assert_allclose(single, chosen[np.arange(66) % n], atol=1e-4)
    assert [row["reward"] for row in lines(out["parquet"])] == single
    for row in lines(out["many"]):
        assert row["rewards"][row["ranking"][0]] == max(row["rewards"])
        assert row["best"] == row["responses"][row["ranking"][0]]
    done = coala("score", str(head), "--features", str(features), "--out", str(tmp_path / "all.jsonl"))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose([row["reward"] for row in lines(tmp_path / "all.jsonl")], [*chosen, *rejected])


def test_a_stopped_run_goes_on_and_another_run_is_not_touched(head, texts, tmp_path) -> None:
    arguments = ("--out", str(tmp_path / "out.jsonl"), "--model", str(MODEL))
    whole = tmp_path / "out.jsonl"
    coala("score", str(head), str(texts["one"]), *arguments)
    finished = whole.read_bytes()
    written = finished.splitlines(keepends=True)
    for stopped in (b"".join(written[:65]), b"".join(written[:65]) + written[65][:20], b"".join(written[:3]), b""):
        whole.write_bytes(stopped)
        done = coala("score", str(head), str(texts["one"]), *arguments)
        assert done.returncode == 0, done.stderr
        assert whole.read_bytes() == finished
    assert "64 of them before" in coala("score", str(head), str(texts["one"]), *arguments).stdout
    assert whole.read_bytes() == finished
    for other in (finished.replace(b'"head": "', b'"head": "0', 1), b"[]\n", b"{\n"):
        whole.write_bytes(other)
        done = coala("score", str(head), str(texts["one"]), *arguments)
        assert done.returncode == 2
        assert "line 1 is of another run" in done.stderr
        assert whole.read_bytes() == other
    whole.write_bytes(finished + written[0])
    assert "holds more rows" in coala("score", str(head), str(texts["one"]), *arguments).stderr


def test_features_of_another_model_layer_or_pooling_are_refused(head, triplets, tmp_path) -> None:
    for name, value in (("layer", "2"), ("pooling", "last")):
        other = tmp_path / name
        coala("features", str(triplets), "--out", str(other), "--model", str(MODEL), f"--{name}", value)
        done = coala("score", str(head), "--features", str(other), "--out", str(tmp_path / "x.jsonl"))
        assert done.returncode == 2
        assert f"{name} {value} here" in done.stderr
        assert not (tmp_path / "x.jsonl").exists()
        done = coala("fit", str(other), "--out", str(tmp_path / "h"), "--held-out", str(tmp_path / ".." / "nowhere"))
        assert done.returncode == 2
    model = shutil.copytree(MODEL, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * 2}, model / "model.safetensors")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Why?", "response": "Because."}\n')
    for command in ("score", "generate"):
        arguments = (str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "x.jsonl"), "--model", str(model))
        done = coala(command, str(head), *arguments)
        assert done.returncode == 2
        assert "not the features that the head was trained on: model" in done.stderr
        assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "Why?", "response": "So."}\n{"prompt": "Why?"}\n', "row 1: it needs 'response', 'responses'"),
        ('{"response": "So."}\n', "row 0: it needs a 'prompt'"),
        ('{"prompt": "Why?", "response": ""}\n', "row 0: it needs 'response'"),
        ('{"prompt": "Why?", "responses": []}\n', "row 0: it needs 'response'"),
        ("{\n", "row 0"),
        ("", "rows"),
    ],
)
def test_rows_that_cannot_be_scored_stop_before_any_work(head, tmp_path, content, message) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    arguments = (str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "x.jsonl"), "--model", str(MODEL))
    done = coala("score", str(head), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.jsonl").exists()


def test_what_to_score_is_one_of_two(head, texts, tmp_path) -> None:
    done = coala("score", str(head), "--out", str(tmp_path / "x.jsonl"))
    assert (done.returncode, "either rows with texts or --features" in done.stderr) == (2, True)
    done = coala("score", str(tmp_path), str(texts["one"]), "--out", str(tmp_path / "x.jsonl"))
    assert (done.returncode, "holds no whole head" in done.stderr) == (2, True)


def test_guided_replies_resume_with_the_same_words(head, texts, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rows, "CHUNK", 2)
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "replies.jsonl"
    prompts.write_text("".join(texts["one"].read_text().splitlines(keepends=True)[:4]))
    command = ("generate", str(head), str(prompts), "--out", str(out), "--model", str(MODEL))
    command += ("--n-candidates", "2", "--chunk", "2", "--max-new-tokens", "4")
    done = coala(*command)
    assert done.returncode == 0, done.stderr
    assert "4 replies" in done.stdout
    finished = out.read_bytes()
    assert all(isinstance(row["response"], str) for row in lines(out))
    out.write_bytes(b"".join(finished.splitlines(keepends=True)[:3]))
    assert "2 of them before" in coala(*command).stdout
    assert out.read_bytes() == finished
    done = coala(*command, "--seed", "1")
    assert (done.returncode, "another run" in done.stderr) == (2, True)


def test_the_card_is_printed_and_told_more(head, tmp_path) -> None:
    own = shutil.copytree(head, tmp_path / "head")
    done = coala("card", str(own))
    assert done.returncode == 0
    for words in ("Model card for tutor", "thirty conversations", "held-out pair accuracy", "| pooling | mean |"):
        assert words in done.stdout
    done = coala("card", str(own), "--license", "cc0-1.0")
    assert "license: cc0-1.0" in done.stdout
    assert "thirty conversations" in done.stdout
    assert CoalaHead.load(own).about_["license"] == "cc0-1.0"
    (own / "README.md").write_text("better than it is")
    assert coala("card", str(own)).returncode == 2


def test_texts_and_rankings(head) -> None:
    joined = RewardModel.load(head, MODEL)
    prompts = ["What is gravity?", [{"role": "user", "content": "What is gravity?"}]]
    rewards = joined.score_texts([*prompts, prompts[0]], ["A force.", "A force.", "No."])
    assert rewards[0] == pytest.approx(rewards[1])
    order = joined.rank(prompts[0], ["No.", "A force."])
    assert sorted(order.tolist()) == [0, 1]
    assert (order[0] == 1) == (rewards[0] > rewards[2])
    with pytest.raises(ValueError, match="must pair up; got 2 and 1"):
        joined.score_texts(prompts, ["A force."])
    with pytest.raises(MismatchError, match="does not say what its features are"):
        check_features(CoalaHead(), {})
