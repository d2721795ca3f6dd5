"""Feature files: right whatever shares the batch or the prompt, resumable, and refused when stale or damaged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

import coala_lib.lm.features as features
from coala_lib.lm.batches import Batching, plan_batches
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import (
    FeatureFileError,
    pooled_features,
    read_features,
    sweep_features,
    write_features,
    write_sweep,
)
from coala_lib.lm.pooling import Reading
from coala_lib.lm.table import Table
from coala_lib.lm.tokenizer import Encoded, encode, load_tokenizer

NAMES = {"model": "m" * 16, "tokenizer": "t" * 16}
READINGS = [Reading(layer, pooling) for layer in (1, -1) for pooling in ("mean", "last", "attention")]
SMALL = Batching(tokens=200, narrowest=16, worth=0)  # prompts are shared, whatever that takes to compile
PLAIN = Batching(tokens=200)  # one program, several batches


def some(rng, n: int) -> tuple[int, ...]:
    return tuple(rng.integers(1, 61, n).tolist())


@pytest.fixture(scope="module")
def siblings() -> list[Encoded]:
    """Six prompts with one, two, five, one, two and two responses, out of order."""
    rng = np.random.default_rng(1)
    prompts = [some(rng, n) for n in (40, 45, 36, 4, 44, 33)]
    owners, lengths = (0, 1, 2, 1, 2, 2, 3, 2, 2, 4, 5, 5, 4), (5, 9, 3, 14, 15, 8, 6, 12, 7, 3, 4, 16, 1)
    return [Encoded(prompts[p] + some(rng, n), len(prompts[p])) for p, n in zip(owners, lengths, strict=True)]


@pytest.fixture(scope="module")
def states(tiny):
    """Hidden states of one row alone, by layer; causal, so what stands behind a row cannot change it."""
    forward = nnx.jit(lambda decoder, tokens: decoder(tokens, layers=(0, 1, -1))[0])

    def call(sequence):
        tokens = np.zeros((1, 64), np.int32)
        tokens[0, : len(sequence.ids)] = sequence.ids
        found = np.asarray(forward(tiny, tokens))[:, 0, : len(sequence.ids)].astype(float)
        return dict(zip((0, 1, -1), found, strict=True))

    return call


@pytest.fixture(scope="module")
def by_hand(states, siblings):
    """reading -> features: one forward a row, no cache, and pooling in numpy."""

    def call(reading):
        return np.stack([pooled_by_hand(states(s)[reading.layer], s.n_prompt, reading) for s in siblings])

    return call


def pooled_by_hand(states, n_prompt, reading):
    response, query = states[n_prompt:][: reading.first], states[n_prompt - 1]
    if reading.pooling == "mean":
        return response.mean(axis=0)
    if reading.pooling == "last":
        return response[-1]
    cosine = response @ query / np.linalg.norm(response, axis=1) / np.linalg.norm(query)
    return softmax(np.sqrt(len(query)) * cosine) @ response


@pytest.mark.parametrize("batching", [SMALL, PLAIN, Batching()], ids=str)
def test_features_do_not_depend_on_batches_padding_or_shared_prompts(tiny, siblings, by_hand, batching):
    found = sweep_features(tiny, siblings, READINGS, batching)
    assert list(found) == READINGS
    for reading, X in found.items():
        np.testing.assert_allclose(X, by_hand(reading), atol=1e-5, err_msg=str(reading))


def test_an_early_layer_alone_is_read_behind_a_shared_prompt(tiny, siblings, by_hand):
    early = Reading(1)  # the layers above do not run, and their part of the cache stays empty
    np.testing.assert_allclose(sweep_features(tiny, siblings, [early], SMALL)[early], by_hand(early), atol=1e-5)


def test_the_shared_path_was_taken_and_saves(tiny, siblings):
    plan = plan_batches(siblings, SMALL, 128)
    assert {batch.rows.shape[1] for batch in plan.batches} == {1, 2, 4}
    assert plan.saved > 0.3
    assert any(len(batch.rows) < batch.lines for batch in plan.batches)


def test_rows_keep_their_order(tiny, siblings, by_hand):
    order = np.random.default_rng(0).permutation(len(siblings))
    shuffled = sweep_features(tiny, [siblings[i] for i in order], READINGS, SMALL)
    np.testing.assert_allclose(shuffled[Reading()], by_hand(Reading())[order], atol=1e-5)


def test_bfloat16_weights_share_prompts_too(tiny, siblings, by_hand):
    half = Decoder(tiny.config, nnx.Rngs(0), jnp.bfloat16)
    nnx.update(half, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.state(tiny)))
    found, expected = pooled_features(half, [siblings[1], siblings[3]], batching=SMALL), by_hand(Reading())[[1, 3]]
    assert found.dtype == np.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.05  # it did run in bfloat16, and it is no other model's


def test_the_first_tokens_are_the_features_of_a_shorter_reply(tiny, siblings, by_hand):
    readings = [Reading(1, pooling, first) for pooling in ("mean", "last", "attention") for first in (1, 4, 99)]
    found = sweep_features(tiny, siblings, readings, PLAIN)
    for reading in readings:
        np.testing.assert_allclose(found[reading], by_hand(reading), atol=1e-5, err_msg=str(reading))


@pytest.fixture
def write(tiny, siblings, tmp_path):
    """Write the feature file in small batches; keywords change what is written."""

    def call(folder="f", rows=siblings, **changes):
        return write_features(tmp_path / folder, tiny, rows, **(NAMES | {"batching": PLAIN} | changes))

    return call


@pytest.mark.parametrize(
    ("bad", "changes", "message"),
    [
        (Encoded((1, 2, 3), 3), {}, "row 2: the response has no tokens; remove the row"),
        (Encoded((), 0), {}, "row 2: the response has no tokens"),
        (Encoded((1,) * 129, 3), {}, "row 2: 129 tokens, the model reads 128; shorten the prompt"),
        (Encoded((1, 61), 1), {}, "row 2: token 61 is none of the model's 61; use its own tokenizer"),
        (Encoded((1, -1), 1), {}, "row 2: token -1 is none of the model's 61"),
        (Encoded((1,), 0), {"pooling": "attention"}, "row 2: pooling by attention needs a prompt"),
        (Encoded((1, 2), 1), {"layer": 3}, r"layer 3 is none of this model's: it has 0 \(embeddings\) to 2"),
        (Encoded((1, 2), 1), {"dtype": "float8"}, "stored as float32, float16, bfloat16; got 'float8'"),
    ],
)
@pytest.mark.usefixtures("without_annotations")
def test_bad_rows_are_named_before_any_work(write, siblings, tmp_path, bad, changes, message):
    with pytest.raises(ValueError, match=message):
        write(rows=[*siblings[:2], bad, *siblings[2:]], **changes)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_refused(tiny):
    with pytest.raises(ValueError, match="there are no rows"):
        pooled_features(tiny, [])


def test_a_row_of_100_kb_is_named(edu_lm):
    decoder, tokenizer = load_decoder(edu_lm), load_tokenizer(edu_lm)
    ask, say = ([{"role": role, "content": "why?"}] for role in ("user", "assistant"))
    long = [{"role": "assistant", "content": "momentum " * 12_000}]
    rows = [encode(tokenizer, ask, say), encode(tokenizer, ask, long)]
    with pytest.raises(
        ValueError, match=rf"row 1: \d+ tokens, the model reads {decoder.config.max_position_embeddings}"
    ):
        pooled_features(decoder, rows)


def test_write_and_read(write, by_hand):
    found, manifest = read_features(write(model_id="some/model", revision="abc"))
    assert isinstance(found, np.memmap)
    np.testing.assert_allclose(found, by_hand(Reading()), atol=1e-5)
    assert (manifest.rows, manifest.dimension) == found.shape == (13, 32)
    assert (manifest.model, manifest.layer, manifest.pooling, manifest.dtype) == ("m" * 16, -1, "mean", "float32")
    assert (manifest.model_id, manifest.revision, manifest.reading) == ("some/model", "abc", Reading())


def test_the_file_is_safetensors_and_maps_without_harm(write):
    folder = write()
    found, _ = read_features(folder)
    before = load_file(folder / "features.safetensors")["features"]
    np.testing.assert_array_equal(found, before)
    found[0, 0] = 7
    np.testing.assert_array_equal(load_file(folder / "features.safetensors")["features"], before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_storage_rounds_and_nothing_else(write, dtype):
    whole, half = (read_features(write(folder=name, dtype=name))[0] for name in ("float32", dtype))
    assert half.dtype.name == dtype
    np.testing.assert_array_equal(half, np.asarray(whole).astype(half.dtype))


def test_what_a_dtype_cannot_hold_is_refused_by_row(tmp_path):
    table = Table(tmp_path / "features.safetensors", 5, 2, "float16")
    table.prepare()
    with pytest.raises(ValueError, match="row 4: the features leave the range of float16; store bfloat16 or float32"):
        table.put(np.array([1, 4]), np.array([[1, 2], [3, 1e6]], np.float32))
    with pytest.raises(ValueError, match="row 1: the features are NaN or infinite"):
        table.put(np.array([1, 4]), np.array([[np.nan, 2], [3, 4]], np.float32))
    assert not table.prepare().any()


def count_calls(monkeypatch, die_at=None):
    calls, real = [], features.run_batch

    def counted(decoder, sequences, batch, readings):
        calls.append(readings)
        if len(calls) == die_at:
            raise KeyboardInterrupt
        return real(decoder, sequences, batch, readings)

    monkeypatch.setattr(features, "run_batch", counted)
    return calls


def test_a_stopped_run_goes_on_where_it_was(write, monkeypatch, siblings):
    whole, batches = write("whole"), len(plan_batches(siblings, PLAIN, 128).batches)
    with monkeypatch.context() as patch:
        count_calls(patch, die_at=3)
        with pytest.raises(KeyboardInterrupt):
            write()
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        folder = write()
        assert len(calls) == batches - 2
        write()
        assert len(calls) == batches - 2  # and a finished file is kept
    for name in ("features.safetensors", "manifest.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == ["features.safetensors", "manifest.json"]


def test_a_journal_never_speaks_for_another_file(write, monkeypatch, tmp_path):
    whole = write("whole")
    with monkeypatch.context() as patch:
        count_calls(patch, die_at=3)
        with pytest.raises(KeyboardInterrupt):
            write()
    (tmp_path / "f" / "features.safetensors.partial").unlink()
    assert (write() / "features.safetensors").read_bytes() == (whole / "features.safetensors").read_bytes()
    (tmp_path / "f" / "features.safetensors.done").write_bytes(b"\1" * 13)  # killed between renaming and clearing up
    write()
    assert not (tmp_path / "f" / "features.safetensors.done").exists()


def test_a_sweep_reads_once_and_writes_whole_feature_files(tiny, siblings, tmp_path, monkeypatch, by_hand):
    batches = len(plan_batches(siblings, PLAIN, 128).batches)
    calls = count_calls(monkeypatch)
    folders = write_sweep(tmp_path, tiny, siblings, READINGS[:4], batching=PLAIN, **NAMES)
    assert len(calls) == batches
    more = write_sweep(tmp_path, tiny, siblings, READINGS, batching=PLAIN, **NAMES)
    assert calls[batches:] == [tuple(READINGS[4:])] * batches  # what is there is not read again
    assert more.items() > folders.items()
    for reading, folder in more.items():
        found, manifest = read_features(folder)
        assert manifest.reading == reading
        np.testing.assert_allclose(found, by_hand(reading), atol=1e-5)
    assert more[Reading(1, "attention")].name == "layer-1-attention"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "x" * 16}, f"model {'m' * 16} there and {'x' * 16} here"),
        ({"tokenizer": "x" * 16}, f"tokenizer {'t' * 16} there and {'x' * 16} here"),
        ({"pooling": "last", "layer": 1}, "layer -1 there and 1 here, pooling mean there and last here"),
        ({"dtype": "float16"}, "dtype float32 there and float16 here"),
        ({"rows": [Encoded((1, 2), 1)]}, "data .* there and .* here, rows 13 there and 1 here"),
    ],
)
def test_stale_files_are_refused_and_kept(write, change, reason):
    before = (write() / "features.safetensors").read_bytes()
    with pytest.raises(FeatureFileError, match=rf"holds features of another run: {reason}; use another folder"):
        write(**change)
    assert (write(model_id="a name is no part of it") / "features.safetensors").read_bytes() == before


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
    (folder / "manifest.json").write_text(json.dumps(manifest | {"rows": 12}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "holds no whole feature file .*; delete the folder and extract again"),
        (lambda folder: (folder / "features.safetensors").unlink(), "holds no whole feature file"),
        (lambda folder: save_file({"x": np.ones(2)}, folder / "features.safetensors"), "holds no whole feature file"),
        (lambda folder: (folder / "manifest.json").unlink(), "holds no whole feature file"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "holds no whole feature file"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "holds no whole feature file"),
        (with_nan, "or NaN, not what the manifest says"),
        (of_fewer_rows, r"features have shape \(13, 32\)"),
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
