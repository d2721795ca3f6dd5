"""A head on disk: the same scores back, or one sentence."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coala_lib import CoalaHead
from coala_lib.preference.artefact import HeadFileError

RNG = np.random.default_rng(0)
CHOSEN, REJECTED = RNG.normal(0.4, 1, (60, 5)), RNG.normal(-0.4, 1, (60, 5))
CHOSEN[:, 2] = REJECTED[:, 2] = 3.0  # a constant column: its scale is infinite, and must survive


@pytest.fixture(scope="module")
def head():
    return CoalaHead(n_gates=6, reg=0.2, ridge=1e-2).fit_pairs(CHOSEN, REJECTED)


@pytest.fixture
def folder(head, tmp_path):
    return head.save(tmp_path / "head")


def test_round_trip(head, folder):
    loaded = CoalaHead.load(folder)
    np.testing.assert_array_equal(loaded.decision_function(CHOSEN), head.decision_function(CHOSEN))
    np.testing.assert_array_equal(loaded.predict(REJECTED), head.predict(REJECTED))
    assert loaded.certificate_ == head.certificate_
    assert loaded.get_params() == head.get_params()
    features = jnp.asarray(CHOSEN, jnp.float32)
    np.testing.assert_array_equal(loaded.scorer(1)(features, None), head.scorer(1)(features, None))
    assert sorted(p.name for p in folder.iterdir()) == ["certificate.json", "config.json", "head.safetensors"]


def test_named_classes_survive(tmp_path):
    labels = np.repeat(["good", "bad"], 60)
    rows = np.concatenate([CHOSEN, REJECTED])
    head = CoalaHead(n_gates=6, reg=0.2).fit(rows, labels)
    np.testing.assert_array_equal(CoalaHead.load(head.save(tmp_path)).predict(rows), head.predict(rows))


def truncated(folder):
    file = folder / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def of_another_size(folder):
    tensors = load_file(folder / "head.safetensors")
    save_file(tensors | {"mean": np.zeros(4)}, folder / "head.safetensors")


def of_the_future(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "holds no whole head .*; save it again"),
        (of_another_size, "head.safetensors does not fit config.json"),
        (of_the_future, "does not fit config.json"),
        (lambda folder: (folder / "certificate.json").unlink(), "holds no whole head"),
        (lambda folder: (folder / "config.json").write_text("{"), "holds no whole head"),
        (lambda folder: (folder / "config.json").write_text("{}"), "holds no whole head"),
    ],
)
def test_damaged_heads_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(HeadFileError, match=rf"^[^\n]*{message}[^\n]*$"):
        CoalaHead.load(folder)


def test_parameters_of_a_search_are_saved(tmp_path, without_annotations):
    chosen, rejected = np.random.default_rng(0).normal([[[0.3]], [[-0.3]]], 1, size=(2, 60, 3))
    head = CoalaHead(n_gates=np.int64(2), reg=np.float32(0.1)).fit_pairs(chosen, rejected)
    assert CoalaHead.load(head.save(tmp_path / "head")).n_gates == 2
