"""The decoder against published outputs of real models, and against itself under padding and caching."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder, empty_cache
from coala_lib.lm.guided import Policy, generate
from coala_lib.lm.tokenizer import Encoded, load_tokenizer


@pytest.fixture(scope="module", params=["stories260K", "TinyStories-656K"])
def real(request, models):
    """(decoder, folder, reference outputs) of one pretrained model."""
    references = json.loads((models / "reference_outputs.json").read_text())
    mine = [r for r in references if r["model"] == request.param]
    assert mine
    return load_decoder(models / request.param), models / request.param, mine


def test_reference_outputs(real):
    decoder, folder, references = real
    tokenizer, widest = load_tokenizer(folder), max(len(r["greedy_ids"]) for r in references)
    tokens = np.zeros((len(references), widest), np.int32)
    for row, reference in enumerate(references):
        tokens[row, : len(reference["greedy_ids"])] = reference["greedy_ids"]
    hidden, _ = decoder(jnp.asarray(tokens))
    logits = np.asarray(decoder.logits(hidden[0]))
    losses = -np.asarray(jax.nn.log_softmax(logits, axis=-1))
    for row, reference in enumerate(references):
        ids, n = reference["greedy_ids"], len(reference["prompt_ids"])
        if reference["prompt"]:
            assert tokenizer(reference["prompt"])["input_ids"] == reference["prompt_ids"]
        assert ids[:n] == reference["prompt_ids"]
        np.testing.assert_allclose(logits[row, n - 1, reference["top5_ids"]], reference["top5_logits"], atol=1e-3)
        # the text that the reference wrote greedily is greedy here too, token by token
        assert logits[row, n - 1 : len(ids) - 1].argmax(axis=-1).tolist() == ids[n:]
        total = sum(losses[row, t, ids[t + 1]] for t in range(len(ids) - 1))
        assert total == pytest.approx(reference["sequence_nll_sum"], abs=1e-2)


def test_greedy_decoding_with_the_cache(real):
    decoder, _, references = real
    prompts = [Encoded(tuple(r["prompt_ids"]), len(r["prompt_ids"])) for r in references]
    policy = Policy(n_candidates=1, chunk=8, max_new_tokens=24, top_k=1)
    stop = decoder.config.vocab_size  # no token: nothing stops early
    written = generate(decoder, prompts, policy, stop=stop, batch=len(prompts)).tokens
    for reply, reference in zip(written, references, strict=True):
        expected = reference["greedy_ids"][len(reference["prompt_ids"]) :][:24]
        assert reply[: len(expected)] == expected


@nnx.jit(static_argnames="layers")
def forward(decoder, tokens, layers=(-1,)):
    return decoder(tokens, layers=layers)


def run(decoder, tokens, layers=(-1,)):
    return np.asarray(forward(decoder, jnp.asarray(tokens, jnp.int32), layers=layers)[0])


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    return [rng.integers(1, 61, length).tolist() for length in (9, 4, 7)]


@pytest.fixture(scope="module")
def alone(tiny, rows):
    """Final hidden states of each row with nothing around it."""
    return [run(tiny, [row])[0, 0] for row in rows]


def test_right_padding_and_batch_mates_change_nothing(tiny, rows, alone):
    tokens = np.zeros((3, 12), int)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    hidden = run(tiny, tokens)[0]
    for i, row in enumerate(rows):
        np.testing.assert_allclose(hidden[i, : len(row)], alone[i], atol=1e-5)
    # the tolerance means something: another token before them moves the same states far more
    tokens[:, 0] += 1
    assert np.abs(run(tiny, tokens)[0][0, 1:9] - alone[0][1:]).max() > 1e-2


@pytest.fixture(scope="module")
def decode(tiny):
    graph, state = nnx.split(tiny)
    step = jax.jit(lambda state, tokens, cache: nnx.merge(graph, state)(tokens, cache))
    return lambda tokens, cache: step(state, tokens, cache)


def padded_left(rows, width):
    tokens = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = row
    return tokens, jnp.array([width - len(row) for row in rows], jnp.int32)


def test_left_padding_with_a_cache_changes_nothing(tiny, decode, rows, alone):
    tokens, start = padded_left(rows, 10)
    hidden, cache = decode(jnp.asarray(tokens), empty_cache(tiny.config, start, slots=15))
    assert int(cache.filled) == 10
    for i, row in enumerate(rows):
        np.testing.assert_allclose(hidden[0, i, 10 - len(row) :], alone[i], atol=1e-5)
    assert bool(jnp.isfinite(hidden).all())


@pytest.mark.parametrize("first", [1, 3, 6])
def test_decoding_with_a_cache_equals_the_full_forward(tiny, decode, rows, alone, first):
    # the longest prompt part at once, the rest token by token
    tokens, start = padded_left([row[:-3] for row in rows], 6)
    cache = empty_cache(tiny.config, start, slots=9)
    _, cache = decode(jnp.asarray(tokens[:, :first]), cache)
    if first < 6:
        _, cache = decode(jnp.asarray(tokens[:, first:]), cache)
    for step in (-3, -2, -1):
        new = jnp.asarray([[row[step]] for row in rows], jnp.int32)
        hidden, cache = decode(new, cache)
        for i in range(3):
            np.testing.assert_allclose(hidden[0, i, 0], alone[i][step], atol=1e-5)
    assert int(cache.filled) == 9


def test_layers_are_counted_as_hugging_face_does(tiny, rows):
    states = run(tiny, [rows[0]], layers=(0, 1, 2, -1))
    np.testing.assert_array_equal(states[0, 0], tiny.embed.embedding[...][jnp.asarray(rows[0])])
    np.testing.assert_array_equal(states[2], states[3])
    assert not np.allclose(states[1], states[2])
    # the last one stands behind the final norm
    np.testing.assert_allclose(np.square(states[3]).mean(axis=-1), 1, rtol=1e-3)


def test_layers_that_do_not_exist(tiny):
    for layers in ((3,), (-4,), ()):
        with pytest.raises(ValueError, match=r"numbered 0 to 2, or -1 to -3 from the end"):
            tiny(jnp.array([[1, 2]]), layers=layers)


@pytest.mark.parametrize("layers", [(0,), (1,), (2, 0), (1, -1), (-2,)])
def test_stacked_layers_give_every_hidden_state(tiny, rows, layers):
    stacked = tiny.with_scan(True)
    assert jax.tree.leaves(nnx.state(stacked.layers))[0].shape[0] == 2
    np.testing.assert_allclose(run(stacked, [rows[0]], layers), run(tiny, [rows[0]], layers), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_gradients_are_the_same_in_both_layouts_and_with_remat(tiny, rows, scan, compiled_quickly):
    def gradient(decoder):
        graph, state = nnx.split(decoder)
        found = jax.jit(jax.grad(lambda s: nnx.merge(graph, s)(jnp.asarray([rows[0]]))[0].std()))(state)
        return nnx.merge(graph, found).with_scan(False)

    other = tiny.with_scan(scan)
    other.remat = True
    plain, remat = nnx.state(gradient(tiny)), nnx.state(gradient(other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, remat)
    assert np.abs(plain["layers"][0]["q_proj"]["kernel"].get_value()).max() > 1e-4


def test_equal_seeds_give_equal_weights_in_both_layouts(tiny):
    listed, stacked = (Decoder(tiny.config, nnx.Rngs(3), scan=scan) for scan in (False, True))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(listed), nnx.state(stacked.with_scan(False)))


def test_half_precision_keeps_norms_and_softmax_wide(tiny, rows):
    half = Decoder(tiny.config, nnx.Rngs(0), jnp.bfloat16)
    nnx.update(half, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.state(tiny)))
    assert half.dtype == jnp.bfloat16
    tokens = jnp.asarray([rows[0]])
    program = jax.make_jaxpr(lambda t: half.logits(half(t)[0][0]))(tokens)
    dtypes = re.findall(r":(\w+)\[[\d,]*\] = (exp|rsqrt|cos|sin)\b", str(program))
    assert {operation for _, operation in dtypes} == {"exp", "rsqrt", "cos", "sin"}
    assert {dtype for dtype, _ in dtypes} == {"f32"}
    assert program.out_avals[0].dtype == jnp.float32
    np.testing.assert_allclose(run(half, [rows[0]]).astype(np.float32), run(tiny, [rows[0]]), atol=0.2)


def test_learned_positions_end_and_padding_may_stand_beyond(tmp_path):
    decoder = Decoder(DecoderConfig(61, 32, 48, 1, 4, 4, 6, family="gpt2", hidden_act="gelu_new"), nnx.Rngs(0))
    tokens = np.zeros((1, 9), int)
    tokens[0, :5] = 1, 2, 3, 4, 5
    np.testing.assert_allclose(run(decoder, tokens)[0, 0, :5], run(decoder, tokens[:, :5])[0, 0], atol=1e-6)
