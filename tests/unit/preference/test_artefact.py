"""A head on disk: the same scores back, or one sentence; whole at every moment; readable with numpy alone."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from coala_lib import CoalaHead
from coala_lib.preference import artefact, scorer
from coala_lib.preference import folder as folders
from coala_lib.preference.artefact import HeadFileError
from coala_lib.preference.verify import VerificationError, verify_pairs

RNG = np.random.default_rng(0)
CHOSEN, REJECTED = RNG.normal(0.4, 1, (60, 5)), RNG.normal(-0.4, 1, (60, 5))
CHOSEN[:, 2] = REJECTED[:, 2] = 3.0  # a constant column: its scale is infinite, and must survive
FEATURES = {"model": "aa", "tokenizer": "bb", "layer": -1, "pooling": "mean", "dtype": "float32", "model_id": "me/lm"}
ABOUT = {"name": "a head for tests", "data": "120 Gaussian rows", "license": "cc0-1.0"}
NAMES = ["README.md", "SHA256SUMS", "certificate.json", "config.json", "head.safetensors"]
HEAVY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def head():
    return CoalaHead(n_gates=6, reg=0.2, ridge=1e-2).fit_pairs(CHOSEN, REJECTED)


@pytest.fixture(scope="module")
def gated():
    return CoalaHead(n_gates=6, reg=0.2, variant="gated").fit_pairs(CHOSEN, REJECTED)


@pytest.fixture
def saved(head, tmp_path):
    return head.save(tmp_path / "head", features=FEATURES, about=ABOUT)


def test_round_trip(head, gated, saved, tmp_path):
    for fitted, folder in ((head, saved), (gated, gated.save(tmp_path / "gated"))):
        loaded = CoalaHead.load(folder, pairs=(CHOSEN, REJECTED))
        np.testing.assert_array_equal(loaded.decision_function(CHOSEN), fitted.decision_function(CHOSEN))
        np.testing.assert_array_equal(loaded.predict(REJECTED), fitted.predict(REJECTED))
        assert loaded.certificate_ == fitted.certificate_
        assert loaded.get_params() == fitted.get_params()
        assert loaded.phase_two_.bound == fitted.phase_two_.bound
        features = jnp.asarray(CHOSEN, jnp.float32)
        np.testing.assert_array_equal(loaded.scorer(1)(features, None), fitted.scorer(1)(features, None))
        assert sorted(p.name for p in folder.iterdir()) == NAMES
        again = loaded.save(tmp_path / "again")
        assert [n for n in NAMES if (again / n).read_bytes() != (folder / n).read_bytes()] == []
    assert list(tmp_path.glob(".*")) == []


def test_named_classes_and_rows_survive(tmp_path):
    labels = np.repeat(["good", "bad"], 60)
    rows = np.concatenate([CHOSEN, REJECTED])
    head = CoalaHead(n_gates=6, reg=0.2, phase_two="none").fit(rows, labels)
    loaded = CoalaHead.load(head.save(tmp_path / "head"), rows=(rows, labels))
    np.testing.assert_array_equal(loaded.predict(rows), head.predict(rows))
    assert loaded.phase_two_ is None
    with pytest.raises(VerificationError, match="other rows"):
        CoalaHead.load(tmp_path / "head", rows=(rows, labels[::-1]))


def test_every_flipped_byte_is_noticed(saved):
    rng = np.random.default_rng(1)
    for name in NAMES:
        whole = (saved / name).read_bytes()
        for at in rng.integers(0, len(whole), 100):
            broken = bytearray(whole)
            broken[at] ^= 1 << rng.integers(8)
            (saved / name).write_bytes(broken)
            with pytest.raises(HeadFileError, match="is not the file that was saved"):
                CoalaHead.load(saved)
            if name != "SHA256SUMS":
                with pytest.raises(ValueError, match="not the file that was saved"):
                    scorer.load(saved)
        (saved / name).write_bytes(whole)
        CoalaHead.load(saved)


def sealed(folder):
    """Sums of what stands there now: the checks behind them must do the work."""
    (folder / "SHA256SUMS").write_text(artefact._sums(folder))


def truncated(folder):
    file = folder / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def of_another_size(folder):
    tensors = load_file(folder / "head.safetensors")
    save_file(tensors | {"mean": np.zeros(4)}, folder / "head.safetensors")


def of_another_dtype(folder):
    tensors = load_file(folder / "head.safetensors")
    save_file(tensors | {"mean": tensors["mean"].astype(np.float32)}, folder / "head.safetensors")


def of_the_future(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "holds no whole head .*; save it again"),
        (of_another_size, "head.safetensors does not fit config.json"),
        (of_another_dtype, "head.safetensors does not fit config.json"),
        (of_the_future, "does not fit config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "holds no whole head"),
        (lambda folder: (folder / "config.json").write_text("{}"), "holds no whole head"),
    ],
)
def test_damaged_heads_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(HeadFileError, match=r"^[^\n]* is not the file that was saved; save the head again$"):
        CoalaHead.load(saved)
    sealed(saved)
    with pytest.raises(HeadFileError, match=rf"^[^\n]*{message}[^\n]*$"):
        CoalaHead.load(saved)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(HeadFileError, match=rf"^[^\n]*holds no whole head .*{name}[^\n]*$"):
        CoalaHead.load(saved)


def test_a_head_that_is_not_what_it_claims_is_refused_on_its_data(saved, head):
    for name, spoil, message in (
        ("theta1", lambda t: t * 1.5, "certificate does not hold"),
        ("theta1", lambda t: t[:, ::-1], "no point of its program"),
        ("theta2_phase_one", lambda t: 0.5 * t, "certificate does not hold"),
        ("dual_point", lambda t: 0.9 * np.roll(t, 1), "certificate does not hold"),
        ("theta2", lambda t: t + 0.1, "nats from its optimum"),
    ):
        tensors = load_file(saved / "head.safetensors")
        save_file(tensors | {name: np.ascontiguousarray(spoil(tensors[name]))}, saved / "head.safetensors")
        sealed(saved)
        with pytest.raises(VerificationError, match=message):
            CoalaHead.load(saved, pairs=(CHOSEN, REJECTED))
        save_file(tensors, saved / "head.safetensors")
    with pytest.raises(VerificationError, match="trained on other pairs"):
        verify_pairs(head, REJECTED, CHOSEN)
    found = verify_pairs(head, CHOSEN, REJECTED)
    assert found.primal == pytest.approx(head.certificate_.primal, rel=1e-9)
    assert head.certificate_.dual <= found.dual * (1 + 1e-9)
    assert found.phase_two_bound <= 1e-9


def test_parameters_of_a_search_are_saved(tmp_path, without_annotations):
    head = CoalaHead(n_gates=np.int64(6), reg=np.float32(0.2)).fit_pairs(CHOSEN, REJECTED)
    assert CoalaHead.load(head.save(tmp_path / "head")).n_gates == 6


def test_the_sums_are_those_of_sha256sum(saved):
    lines = (saved / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [n for n in NAMES if n != "SHA256SUMS"]
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == digest


def test_the_card_says_what_is_known_and_no_more(saved, head, tmp_path):
    card = (saved / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "me/lm"
    assert front["license"] == "cc0-1.0"
    assert "reward-model" in front["tags"]
    assert f"| duality gap | {head.certificate_.gap:.2g} |" in card
    for words in (
        "120 Gaussian rows",
        "Margins",
        "are cheap",
        "None was recorded",
        head.fingerprint_,
        "| layer | -1 |",
    ):
        assert words in card
    bare = (head.save(tmp_path / "bare") / "README.md").read_text()
    assert "base_model" not in bare
    assert "Not recorded" in bare


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_another_process_scores_without_flax_and_transformers(saved, head, tmp_path):
    np.save(tmp_path / "X.npy", CHOSEN)
    code = HEAVY.replace("{blocked}", "{'flax', 'transformers', 'datasets', 'torch'}") + (
        "import numpy as np\nfrom coala_lib import CoalaHead\n"
        "print(CoalaHead.load(sys.argv[1]).decision_function(np.load(sys.argv[2])).tolist())"
    )
    np.testing.assert_allclose(
        json.loads(run(code, str(saved), str(tmp_path / "X.npy"))), head.decision_function(CHOSEN), atol=1e-6
    )


def test_one_file_scores_with_numpy_alone(saved, head, gated, tmp_path):
    source = Path(scorer.__file__).read_text()
    assert len(source.splitlines()) <= 60
    np.save(tmp_path / "X.npy", CHOSEN)
    blocked = "{'jax', 'flax', 'transformers', 'coala_lib', 'safetensors', 'sklearn', 'scipy'}"
    for fitted, folder in ((head, saved), (gated, gated.save(tmp_path / "gated"))):
        code = HEAVY.replace("{blocked}", blocked) + "__name__ = '__main__'\n" + source
        rewards = [float(line) for line in run(code, str(folder), str(tmp_path / "X.npy")).splitlines()]
        np.testing.assert_allclose(rewards, fitted.decision_function(CHOSEN), rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"features must be \(n, 5\)"):
        scorer.score(scorer.load(saved), CHOSEN[:, :4])


STEPS = ("save_file", "model_card", "_sums", "first rename", "second rename")


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_leaves_the_old_head(saved, head, monkeypatch, step):
    before = {name: (saved / name).read_bytes() for name in NAMES}
    renames = []

    def fail(*_):
        raise OSError("no space left on device")

    def rename(self, target, real=Path.rename):
        renames.append(target)
        if len(renames) == STEPS.index(step) - 2:
            fail()
        return real(self, target)

    with monkeypatch.context() as patch:
        if step.endswith("rename"):
            patch.setattr(Path, "rename", rename)
        else:
            patch.setattr(artefact, step, fail)
        with pytest.raises(OSError, match="no space"):
            CoalaHead(n_gates=6, reg=0.2).fit_pairs(REJECTED, CHOSEN).save(saved)
    assert {name: (saved / name).read_bytes() for name in NAMES} == before
    assert [path.name for path in saved.parent.iterdir()] == ["head"]


# the module needs the standard library only, so its source is the whole program
WRITER = """
import sys
for k in range(10**9):
    with replacing_folder(sys.argv[1]) as new:
        for name in "abcd":
            (new / name).write_text(str(k) * 2000)
    if k == 20:
        print("going", flush=True)
"""


def test_a_kill_leaves_one_whole_folder(tmp_path):
    target, source = tmp_path / "head", Path(folders.__file__).read_text()
    for delay in np.random.default_rng(2).uniform(0, 0.03, 12):
        with subprocess.Popen([sys.executable, "-c", source + WRITER, str(target)], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        found = folders.standing(target)
        assert sorted(p.name for p in found.iterdir()) == list("abcd")
        assert len({(found / name).read_text() for name in "abcd"}) == 1


def test_a_kill_between_the_two_renames(saved, head):
    saved.rename(saved.with_name(".head.previous"))
    assert CoalaHead.load(saved).score_pairs(CHOSEN, REJECTED) == head.score_pairs(CHOSEN, REJECTED)
    head.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["head"]


def test_a_folder_of_other_files_is_never_replaced(head, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(HeadFileError, match=r"holds other files, first 'thesis.txt'"):
        head.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
