"""Our decoder against transformers: logits and every layer's hidden states (references: `make parity`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.decoder import Decoder, empty_cache
from coala_lib.lm.tokenizer import load_tokenizer
from tests.numerics import tiny_models
from tests.numerics.parity import FAMILIES, MODEL, POSITIONS, REFERENCE, TEXTS

ROWS = json.loads(REFERENCE.read_text())["rows"]
REFERENCES = json.loads(FAMILIES.read_text())["cases"]


@nnx.jit(static_argnames="layers")
def _outputs(decoder: Decoder, tokens: np.ndarray, layers: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    hidden, _ = decoder(jnp.asarray(tokens), layers=layers)
    return decoder.logits(hidden[-1]), hidden


@pytest.fixture(scope="module")
def committed() -> tuple[np.ndarray, np.ndarray]:
    """(logits, hidden states of all layers) of the committed model on all texts, padded to one width."""
    decoder, tokens = load_decoder(MODEL), np.zeros((len(ROWS), max(len(row["ids"]) for row in ROWS)), np.int32)
    for at, row in enumerate(ROWS):
        tokens[at, : len(row["ids"])] = row["ids"]
    logits, hidden = _outputs(decoder, tokens, tuple(range(decoder.config.num_hidden_layers + 1)))
    return np.asarray(logits), np.asarray(hidden)


@pytest.mark.parametrize("at", range(len(TEXTS)))
def test_the_committed_model_equals_transformers(at: int, committed) -> None:
    row, (logits, hidden) = ROWS[at], committed
    last = len(row["ids"]) - 1
    assert load_tokenizer(MODEL)(TEXTS[at], add_special_tokens=False)["input_ids"] == row["ids"]
    positions = [last if position == -1 else position for position in POSITIONS]
    np.testing.assert_allclose(logits[at, positions, :64], row["logits"], atol=1e-4)
    np.testing.assert_allclose(hidden[:, at, last, :16], row["hidden"], atol=1e-4)


def test_every_case_has_its_reference() -> None:
    assert REFERENCES.keys() == tiny_models.CASES.keys()


@pytest.fixture(scope="module", params=tiny_models.CASES)
def case(request, tmp_path_factory, compiled_quickly) -> tuple[str, Decoder, np.ndarray, np.ndarray]:
    """(name, decoder, logits, hidden states of all layers)."""
    decoder = load_decoder(tiny_models.write(request.param, tmp_path_factory.mktemp(request.param)))
    return request.param, decoder, *outputs(decoder)


def outputs(decoder: Decoder) -> tuple[np.ndarray, np.ndarray]:
    logits, hidden = _outputs(decoder, tiny_models.tokens().astype(np.int32), (0, 1, 2, 3))
    return np.asarray(logits), np.asarray(hidden)


def test_every_family_equals_transformers(case) -> None:
    name, _, logits, hidden = case
    np.testing.assert_allclose(logits[:, POSITIONS], REFERENCES[name]["logits"], atol=1e-4)
    np.testing.assert_allclose(hidden[:, 1, -1, :16], REFERENCES[name]["hidden"], atol=1e-4)
    # the weights are large enough that the tolerance means something
    assert np.abs(logits).max() > 1


def test_stacked_layers_equal_listed_ones(case) -> None:
    _, decoder, logits, hidden = case
    stacked = decoder.with_scan(True)
    for found, expected in zip(outputs(stacked), (logits, hidden), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    back = stacked.with_scan(False)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(back), nnx.state(decoder))


def test_cached_decoding_equals_the_full_forward(case) -> None:
    """The first row from its start, the second behind padding; a long part at once, the rest token by token."""
    name, decoder, _, hidden = case
    scan = name in ("gpt2", "mistral-window")
    graph, state = nnx.split(decoder.with_scan(scan))
    step = jax.jit(lambda state, tokens, cache: nnx.merge(graph, state)(tokens, cache))
    tokens, pad, first = tiny_models.tokens(), 3, 15
    rows = np.zeros((2, tiny_models.LENGTH), np.int32)
    rows[0], rows[1, pad:] = tokens[0], tokens[1, :-pad]
    cache = empty_cache(decoder.config, jnp.array([0, pad], jnp.int32), tiny_models.LENGTH, decoder.dtype)
    found, cache = step(state, jnp.asarray(rows[:, :first]), cache)
    parts = [found]
    for at in range(first, tiny_models.LENGTH):
        found, cache = step(state, jnp.asarray(rows[:, at : at + 1]), cache)
        parts.append(found)
    cached = np.concatenate(parts, axis=2)[0]
    np.testing.assert_allclose(cached[0], hidden[-1, 0], atol=2e-5)
    np.testing.assert_allclose(cached[1, pad:], hidden[-1, 1, :-pad], atol=2e-5)


@pytest.mark.parametrize(
    ("name", "change"), [("mistral-window", {"sliding_window": 8}), ("llama3-rope", {"rope_scaling": None})]
)
def test_the_tolerance_would_see_a_wrong_option(name, change, tmp_path, compiled_quickly) -> None:
    folder = tiny_models.write(name, tmp_path)
    (folder / "config.json").write_text(json.dumps(tiny_models.CASES[name] | change))
    logits, _ = outputs(load_decoder(folder))
    assert np.abs(logits[:, POSITIONS] - REFERENCES[name]["logits"]).max() > 1e-2
