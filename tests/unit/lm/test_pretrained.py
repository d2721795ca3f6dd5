"""A model with its tokenizer: folders, the Hub's cache without a connection, and what does not belong together."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.checkpoint import save_decoder
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.pretrained import fetch, load_pretrained, save_pretrained
from coala_lib.lm.shards import CheckpointError
from coala_lib.lm.tokenizer import train_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a b c d"] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def decoder(tokenizer):
    return Decoder(DecoderConfig(len(tokenizer), 16, 16, 1, 2, 1, 32), nnx.Rngs(0))


def test_out_and_in(decoder, tokenizer, tmp_path):
    folder = save_pretrained(decoder, tokenizer, tmp_path, jnp.float32)
    loaded, read = load_pretrained(folder)
    assert read("a b")["input_ids"] == tokenizer("a b")["input_ids"]
    assert read.chat_template == tokenizer.chat_template
    np.testing.assert_array_equal(loaded.embed.embedding[...], decoder.embed.embedding[...])
    # transformers' generate stops at the tokens that config.json names
    named = json.loads((folder / "config.json").read_text())
    assert (named["eos_token_id"], named["pad_token_id"]) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert not list(folder.glob(".writing-*"))


def test_the_hubs_cache_serves_without_a_connection(decoder, tokenizer, tmp_path, monkeypatch):
    repository = tmp_path / "models--some--tiny"
    save_pretrained(decoder, tokenizer, repository / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert fetch("some/tiny", COMMIT).name == COMMIT
    assert load_pretrained("some/tiny", revision=COMMIT)[0].config == decoder.config
    with pytest.raises(CheckpointError, match=r"'some/tiny' at v2 is not in this machine's cache and the Hub cannot"):
        fetch("some/tiny", "v2")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("some/tiny", r"a Hub id is read at one commit only: give revision=, a hash .*some/tiny/commits/main"),
        ("./nothing", "there is no folder ./nothing; give a checkpoint's folder or a Hub id"),
        ("a/b/c", "there is no folder a/b/c"),
    ],
)
def test_no_guess_where_to_read(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(source)


def test_a_tokenizer_of_another_model(decoder, tokenizer, tmp_path):
    known = len(tokenizer)
    small = Decoder(DecoderConfig(known - 1, 16, 16, 1, 2, 1, 32), nnx.Rngs(0))
    with pytest.raises(CheckpointError, match=f"writes {known} tokens, the model embeds {known - 1}; is it another"):
        save_pretrained(small, tokenizer, tmp_path)
    save_decoder(small, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"writes {known} tokens, the model embeds {known - 1}"):
        load_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        load_pretrained(tmp_path)
