"""Checkpoints out and in, and what a damaged one says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from coala_lib.lm.checkpoint import CheckpointError, fingerprint, load_decoder, save_decoder, tensor_paths
from coala_lib.lm.decoder import Decoder, DecoderConfig
from coala_lib.lm.features import fingerprint_of

TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def hidden(decoder):
    return np.asarray(decoder(TOKENS)[0])


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
    assert tensors.keys() == tensor_paths(tiny.config).keys()
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one, "lacks 1 tensors, first 'model.layers.1.mlp.up_proj.weight'"),
        (with_another, "holds 1 unknown tensors, first 'model.layers.2.mlp.up_proj.weight'"),
        (with_a_wrong_shape, r"'model.layers.0.self_attn.q_proj.weight' has shape \(31, 32\), config.json asks for"),
    ],
)
def test_foreign_tensors_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_decoder(folder)


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
        ("config.json", '{"model_type": "gpt2"}', "config.json: model_type 'gpt2' is not supported"),
        ("config.json", '{"model_type": "llama"}', "config.json: the configuration lacks vocab_size"),
        ("model.safetensors", None, "model.safetensors is missing"),
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

    monkeypatch.setattr("coala_lib.lm.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_decoder(tiny, folder)
    assert fingerprint(folder, "model.safetensors", "config.json") == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_fingerprint_sees_every_byte(folder):
    before = fingerprint(folder, "config.json")
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert fingerprint(folder, "config.json") != before
    assert len(before) == 16
