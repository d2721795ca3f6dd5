"""Checkpoints out and in, and what a damaged one says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from coala_lib.lm.checkpoint import fingerprint, load_decoder, model_files, save_decoder, tensor_shapes
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import fingerprint_of
from coala_lib.lm.shards import CheckpointError

TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2, 6]])


@nnx.jit
def hidden(decoder):
    return decoder(TOKENS)[0]


@pytest.fixture
def folder(tiny, tmp_path):
    return save_decoder(tiny, tmp_path / "model", jnp.float32)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 0), ("float16", 2e-2), ("bfloat16", 2e-1)])
def test_round_trip(tiny, tmp_path, dtype, atol):
    loaded = load_decoder(save_decoder(tiny, tmp_path, jnp.dtype(dtype)))
    assert loaded.config == tiny.config
    np.testing.assert_allclose(hidden(loaded), hidden(tiny), atol=atol)
    assert (fingerprint_of(loaded) == fingerprint_of(tiny)) == (dtype == "float32")
    # what was read from half precision is written to it unchanged
    save_decoder(loaded, tmp_path / "again", jnp.dtype(dtype))
    assert fingerprint(tmp_path, "model.safetensors", "config.json") == fingerprint(
        tmp_path / "again", "model.safetensors", "config.json"
    )


def test_layout_is_hugging_faces(tiny, folder):
    tensors = load_file(folder / "model.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == tensor_shapes(tiny.config)
    assert tensors["model.embed_tokens.weight"].shape == (61, 32)
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (16, 32)
    assert tensors["model.layers.0.mlp.down_proj.weight"].shape == (32, 48)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_untied_output_matrix(tmp_path):
    config = DecoderConfig(61, 32, 48, 1, 4, 2, 128, tie_word_embeddings=False)
    decoder = Decoder(config, nnx.Rngs(0))
    loaded = load_decoder(save_decoder(decoder, tmp_path, jnp.float32))
    states = decoder(TOKENS)[0][0]
    np.testing.assert_array_equal(loaded.logits(states), decoder.logits(states))
    assert not np.allclose(decoder.logits(states), states @ decoder.embed.embedding[...].T)


def test_loading_in_half_precision(folder):
    decoder = load_decoder(folder, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(decoder))} == {jnp.dtype("bfloat16")}


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def without_one(tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"]


def with_another(tensors):
    tensors["model.layers.2.mlp.up_proj.weight"] = np.zeros((1, 1), np.float32)


def with_a_wrong_shape(tensors):
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][:-1])


def with_whole_numbers(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)


def with_nan(tensors):
    tensors["model.layers.1.input_layernorm.weight"][5] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one, "lacks 1 tensors, first 'model.layers.1.mlp.up_proj.weight'"),
        (with_another, "holds 1 unknown tensors, first 'model.layers.2.mlp.up_proj.weight'"),
        (with_a_wrong_shape, r"'model.layers.0.self_attn.q_proj.weight' has shape \(31, 32\), config.json asks for"),
        (with_whole_numbers, r"tensor 'model.norm.weight' is I8; readable are F32, F16, BF16"),
        (with_nan, r"model.safetensors: 'model.layers.1.input_layernorm.weight' is not finite as float32"),
    ],
)
def test_foreign_tensors_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_decoder(folder)


def test_weights_too_large_for_the_dtype_are_refused(folder):
    rewrite(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(0, 1e6))
    assert load_decoder(folder).config
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' is not finite as float16"):
        load_decoder(folder, jnp.float16)


def test_a_file_of_the_model_without_its_head(folder, tiny):
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): value for name, value in tensors.items()}
    frequencies = {"layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}  # older files carry them
    save_file(bare | frequencies, folder / "model.safetensors")
    np.testing.assert_array_equal(hidden(load_decoder(folder)), hidden(tiny))


def test_a_second_copy_of_the_tied_matrix_is_welcome(folder, tiny):
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    np.testing.assert_array_equal(hidden(load_decoder(folder)), hidden(tiny))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_weights_give_one_sentence(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"^[^\n]*model.safetensors is truncated or no safetensors file[^\n]*$"):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "holds no config.json; give the folder of a Hugging Face checkpoint"),
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[]", "config.json is no JSON object"),
        ("config.json", '{"model_type": "mamba"}', "config.json: model_type 'mamba' is not supported"),
        ("config.json", '{"model_type": "llama"}', "config.json: the configuration lacks vocab_size"),
        ("model.safetensors", None, "model.safetensors is missing; a checkpoint needs it, or model.safetensors.index"),
    ],
)
def test_missing_and_damaged_files_are_named(folder, name, text, message):
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_decoder(folder)


def test_a_failed_save_leaves_the_old_checkpoint(tiny, folder, monkeypatch):
    before = fingerprint(folder, "model.safetensors", "config.json")

    def full_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("coala_lib.lm.checkpoint.write_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_decoder(tiny, folder)
    assert fingerprint(folder, "model.safetensors", "config.json") == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_fingerprint_sees_every_byte(folder):
    before = fingerprint(folder, "config.json")
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert fingerprint(folder, "config.json") != before
    assert len(before) == 16


@pytest.fixture
def shards(tiny, tmp_path):
    return save_decoder(tiny, tmp_path / "shards", jnp.float32, shard_bytes=20_000)


@pytest.mark.parametrize("scan", [False, True])
def test_shards_out_and_in(tiny, shards, scan):
    files = sorted(shards.glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    places = json.loads((shards / "model.safetensors.index.json").read_text())["weight_map"]
    assert places.keys() == tensor_shapes(tiny.config).keys()
    assert all(name in load_file(shards / file) for name, file in places.items())
    loaded = load_decoder(shards, scan=scan)
    assert loaded.scan == scan
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded.with_scan(False)), nnx.state(tiny))
    # and back to one file, from either layout; nothing of the shards stays behind
    save_decoder(loaded, shards, jnp.float32)
    assert sorted(file.name for file in shards.iterdir()) == ["config.json", "model.safetensors"]
    assert load_file(shards / "model.safetensors").keys() == places.keys()


def test_every_shard_is_part_of_the_model(shards, folder):
    assert model_files(folder) == ("config.json", "model.safetensors")
    before = fingerprint(shards, *model_files(shards))
    file = shards / "model-00003-of-00004.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(shards, *model_files(shards)) != before


def swapped(folder, places):
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def absent(folder, places):
    (folder / "model-00002-of-00004.safetensors").unlink()


def truncated(folder, places):
    file = folder / "model-00003-of-00004.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def emptied(folder, places):
    places.clear()


def elsewhere(folder, places):
    places["model.norm.weight"] = "../outside.safetensors"


def incomplete(folder, places):
    del places["model.norm.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, r"model-00001-of-00004.safetensors lacks '.*', which model.safetensors.index.json places there"),
        (absent, r"index.json names model-00002-of-00004.safetensors, which is missing; fetch the other shards"),
        (truncated, r"model-00003-of-00004.safetensors is truncated or no safetensors file"),
        (emptied, r"index.json has no weight_map"),
        (elsewhere, r"places 'model.norm.weight' in '../outside.safetensors', which is no file name"),
        (incomplete, r"lacks 1 tensors, first 'model.norm.weight'"),
    ],
)
def test_damaged_shards_give_one_sentence(shards, change, message):
    file = shards / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(shards, index["weight_map"])
    file.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_decoder(shards)
    assert "\n" not in str(refused.value)


def test_pickled_weights_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds pickled weights only, which may run code; get its safetensors"):
        load_decoder(folder)
