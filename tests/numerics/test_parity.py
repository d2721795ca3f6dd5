"""Our decoder against transformers' Llama: logits and every layer's hidden states (reference: `make parity`)."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.tokenizer import load_tokenizer
from tests.numerics.parity import MODEL, POSITIONS, REFERENCE, TEXTS

ROWS = json.loads(REFERENCE.read_text())["rows"]


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_logits_and_hidden_states_equal_those_of_transformers(row: int) -> None:
    decoder, reference = load_decoder(MODEL), ROWS[row]
    assert load_tokenizer(MODEL)(TEXTS[row], add_special_tokens=False)["input_ids"] == reference["ids"]
    layers = tuple(range(decoder.config.num_hidden_layers + 1))
    hidden, _ = decoder(jnp.array([reference["ids"]]), layers=layers)
    logits = decoder.logits(hidden[-1])[0]
    np.testing.assert_allclose(logits[np.array(POSITIONS), :64], reference["logits"], atol=1e-3)
    np.testing.assert_allclose(hidden[:, 0, -1, :16], reference["hidden"], atol=1e-3)
