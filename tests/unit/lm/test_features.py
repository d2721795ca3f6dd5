"""Feature files: right whatever shares the batch, resumable, and refused when stale or damaged."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import coala_lib.lm.features as features
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import FeatureFileError, pooled_features, read_features, write_features
from coala_lib.lm.tokenizer import Encoded

NAMES = {"model": "m" * 16, "tokenizer": "t" * 16}


@pytest.fixture(scope="module")
def expected(tiny, sequences):
    """pooling -> features by hand: one forward a row, no padding, numpy pooling."""
    forward = nnx.jit(Decoder.__call__)
    states = [np.asarray(forward(tiny, jnp.array([s.ids]))[0])[0, 0] for s in sequences]
    responses = [h[s.n_prompt :] for h, s in zip(states, sequences, strict=True)]
    return {"mean": np.stack([r.mean(axis=0) for r in responses]), "last": np.stack([r[-1] for r in responses])}


@pytest.mark.parametrize(
    ("bucket", "tokens", "pooling"), [(64, 4096, "mean"), (16, 40, "mean"), (16, 100, "last"), (128, 4096, "last")]
)
def test_features_do_not_depend_on_batches_or_padding(tiny, sequences, expected, monkeypatch, pooling, bucket, tokens):
    monkeypatch.setattr(features, "BUCKET", bucket)
    monkeypatch.setattr(features, "TOKENS_A_BATCH", tokens)
    np.testing.assert_allclose(pooled_features(tiny, sequences, pooling=pooling), expected[pooling], atol=1e-5)


def test_rows_keep_their_order(tiny, sequences, expected):
    order = np.random.default_rng(0).permutation(len(sequences))
    shuffled = pooled_features(tiny, [sequences[i] for i in order])
    np.testing.assert_allclose(shuffled, expected["mean"][order], atol=1e-5)
    assert np.abs(expected["mean"][0] - expected["mean"][1]).max() > 0.1


def test_layer_is_chosen(tiny, sequences):
    embedded = pooled_features(tiny, sequences, layer=0, pooling="last")
    table = np.asarray(tiny.embed.embedding[...])
    np.testing.assert_allclose(embedded, table[[s.ids[-1] for s in sequences]], atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Encoded((1, 2, 3), 3), "row 2: the response has no tokens; remove the row"),
        (Encoded((), 0), "row 2: the response has no tokens"),
        (Encoded((1,) * 129, 3), "row 2: 129 tokens, the model reads 128; shorten the prompt"),
    ],
)
def test_bad_rows_are_named(tiny, sequences, bad, message):
    with pytest.raises(ValueError, match=message):
        pooled_features(tiny, [*sequences[:2], bad, *sequences[2:]])


@pytest.fixture
def write(tiny, sequences, tmp_path, monkeypatch):
    """Write the feature file in parts of four rows; keywords change what is written."""
    monkeypatch.setattr(features, "ROWS_A_PART", 4)

    def call(folder="f", rows=sequences, **changes):
        return write_features(tmp_path / folder, tiny, rows, **(NAMES | changes))

    return call


def test_write_and_read(write, expected):
    found, manifest = read_features(write())
    np.testing.assert_allclose(found, expected["mean"], atol=1e-5)
    assert (manifest.rows, manifest.dimension) == found.shape == (11, 32)
    assert (manifest.model, manifest.layer, manifest.pooling, manifest.dtype) == ("m" * 16, -1, "mean", "float32")


def count_calls(monkeypatch, die_at=None):
    calls, real = [], features.pooled_features

    def counted(decoder, rows, *rest):
        calls.append(len(rows))
        if len(calls) == die_at:
            raise KeyboardInterrupt
        return real(decoder, rows, *rest)

    monkeypatch.setattr(features, "pooled_features", counted)
    return calls


def test_a_killed_run_goes_on_where_it_stopped(write, monkeypatch):
    whole, _ = read_features(write("whole"))
    with monkeypatch.context() as patch:
        count_calls(patch, die_at=3)
        with pytest.raises(KeyboardInterrupt):
            write()
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        folder = write()
        assert calls == [3]  # the third part alone
        write()
        assert calls == [3]  # and a finished file is kept
    np.testing.assert_array_equal(read_features(folder)[0], whole)
    assert sorted(p.name for p in folder.iterdir()) == ["features.safetensors", "manifest.json"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "x" * 16}, "model"),
        ({"tokenizer": "x" * 16}, "tokenizer"),
        ({"pooling": "last", "layer": 1}, "layer, pooling"),
        ({"rows": [Encoded((1, 2), 1)] * 11}, "data"),
        ({"rows": [Encoded((1, 2), 1)]}, "data, rows"),
    ],
)
def test_stale_files_are_refused_and_kept(write, change, named):
    before = read_features(write())[0]
    with pytest.raises(FeatureFileError, match=rf"features of another run \({named} differ\); use another folder"):
        write(**change)
    np.testing.assert_array_equal(read_features(write())[0], before)


def test_data_hash_sees_ids_and_prompt_lengths():
    rows = [Encoded((1, 2, 3), 1), Encoded((4,), 0)]
    hashes = {
        features.data_hash(r)
        for r in (rows, rows[::-1], [Encoded((1, 2, 3), 2), rows[1]], [Encoded((1, 2), 1), Encoded((3, 4), 0)])
    }
    assert len(hashes) == 4


def truncated(folder):
    file = folder / "features.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def with_nan(folder):
    table = load_file(folder / "features.safetensors")["features"]
    table[3, 3] = np.nan
    save_file({"features": table}, folder / "features.safetensors")


def of_fewer_rows(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"rows": 10}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "holds no whole feature file .*; delete the folder and extract again"),
        (lambda folder: (folder / "features.safetensors").unlink(), "holds no whole feature file"),
        (lambda folder: (folder / "manifest.json").unlink(), "holds no whole feature file"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "holds no whole feature file"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "holds no whole feature file"),
        (with_nan, "or NaN, not what the manifest says"),
        (of_fewer_rows, r"features have shape \(11, 32\)"),
    ],
)
def test_damaged_files_are_refused(write, damage, message):
    folder = write()
    damage(folder)
    with pytest.raises(FeatureFileError, match=message):
        read_features(folder)


def test_a_damaged_manifest_is_not_written_over(write):
    folder = write()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(FeatureFileError, match=r"manifest.json is damaged"):
        write()
