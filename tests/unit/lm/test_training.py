"""The committed model is what its command makes: the same tokenizer, the same first losses."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.decoder import Decoder, DecoderConfig
from coala_lib.lm.offline import TEXT_SEED, OfflineConfig, make_decoder, make_rows, make_tokenizer
from coala_lib.lm.rows import packed, padded
from coala_lib.lm.tokenizer import Encoded
from coala_lib.lm.train import TrainConfig, _decays, finetuning, schedule, token_losses, train

STEPS = 8
SMALL = TrainConfig(steps=20, batch=4, context=16, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def optax_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def committed(edu_lm):
    return json.loads((edu_lm / "training.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(OfflineConfig())


def test_first_steps_repeat_the_trajectory(committed, tokenizer):
    config = OfflineConfig(
        **{name: value for name, value in committed["config"].items() if name != "train"},
        train=TrainConfig(**committed["config"]["train"]),
    )
    rows = make_rows(tokenizer, TEXT_SEED, config.train.context)
    _, losses = train(make_decoder(tokenizer, config), rows, config.train, stop_after=STEPS)
    expected = np.array(committed["losses"][:STEPS])
    residuals = np.array(losses) / expected - 1
    # another machine's rounding shows in the sixth digit; another b2 of Adam by 7e-4 at the eighth step
    np.testing.assert_allclose(residuals, 0, atol=3e-4)
    assert abs(residuals.mean()) < 5e-5
    assert losses[-1] < losses[0]


def test_committed_files_belong_together(committed, edu_lm, tokenizer):
    assert tokenizer.backend_tokenizer.to_str() == _read(edu_lm)
    decoder = load_decoder(edu_lm)
    assert decoder.config.vocab_size == len(tokenizer)
    assert len(committed["losses"]) == committed["config"]["train"]["steps"]
    assert committed["held_out_loss"] < 1 < committed["losses"][0]
    assert (edu_lm / "model.safetensors").stat().st_size < 5e6


def _read(folder):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).to_str()


def small_decoder():
    return Decoder(DecoderConfig(20, 16, 16, 1, 2, 1, 16), nnx.Rngs(0))


def rows_of(n):
    rng = np.random.default_rng(0)
    return iter([((rng.integers(20) + np.arange(SMALL.context + 1)) % 20).astype(np.int32) for _ in range(n)])


@pytest.fixture(scope="module")
def trained(compiled_quickly):
    """(start as it was, start now, what on_step saw, losses) of one short run."""
    start, steps = small_decoder(), []
    before = jax.tree.map(np.array, nnx.state(start))
    with jax.numpy_dtype_promotion("standard"):
        _, losses = train(start, rows_of(80), SMALL, on_step=lambda step, loss: steps.append((step, loss)))
    return before, start, steps, losses


def test_training_lowers_the_loss_and_leaves_the_start_alone(trained):
    before, start, steps, losses = trained
    assert steps == list(enumerate(losses))
    assert losses[0] == pytest.approx(np.log(20), abs=0.1)
    assert losses[-1] < losses[0] - 0.5
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(start))


def test_equal_seeds_and_early_stops_give_equal_losses(trained):
    decoder, again = train(small_decoder(), rows_of(80), SMALL, stop_after=5)
    assert again == trained[3][:5]
    # what comes back is the trained model
    kernels = [np.asarray(d.layers[0].q_proj.kernel[...]) for d in (decoder, trained[1])]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_rows_that_run_out():
    with pytest.raises(ValueError, match="the rows ran out at step 0 of 20; give more text"):
        train(small_decoder(), rows_of(3), SMALL)


def test_packed_rows_start_at_a_document():
    documents = [[1, 10, 11], [1, 20, 21, 22, 23, 24], [1, 30], [1, 40, 41, 42]]
    found = [row.tolist() for row in packed(documents, context=4)]
    assert found == [[1, 10, 11, 1, 20], [1, 30, 1, 40, 41]]


def test_schedule_rises_holds_and_falls():
    rate = schedule(replace(SMALL, steps=100, warmup=0.1, decay=0.3))
    assert [float(rate(step)) for step in (0, 5, 10, 50, 70, 85, 100)] == pytest.approx(
        [0, 5e-3, 1e-2, 1e-2, 1e-2, 5e-3, 0], abs=1e-9
    )


def test_parts_must_divide_the_batch():
    with pytest.raises(ValueError, match="a batch of 4 rows cannot be computed in 3 equal parts"):
        replace(SMALL, accumulate=3)


def test_parts_with_unequal_responses_weigh_every_token_the_same(compiled_quickly):
    """The mean over a batch, not the mean of its parts' means."""
    sequences = [Encoded(tuple(range(1, n)), 2) for n in (4, 5, 16, 17)]
    losses = [
        train(small_decoder(), padded(sequences, 16), replace(SMALL, accumulate=parts), stop_after=1, loss=finetuning)[
            1
        ][0]
        for parts in (1, 4)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    tokens, response = (np.stack(part) for part in zip(*padded(sequences, 16), strict=True))
    every = np.asarray(token_losses(small_decoder(), jnp.asarray(tokens)))
    assert losses[0] == pytest.approx(every[response].mean(), rel=1e-6)
    assert losses[0] != pytest.approx(np.mean([row[mask].mean() for row, mask in zip(every, response, strict=True)]))


def test_padded_rows_mark_the_response():
    tokens, response = next(padded([Encoded((5, 6, 7, 8), 2)], context=5))
    assert tokens.tolist() == [5, 6, 7, 8, 0, 0]
    # the target of position 1 is the response's first token
    assert response.tolist() == [False, True, True, False, False]
    for bad in (Encoded((5, 6), 2), Encoded((5, 6), 0), Encoded(tuple(range(7)), 2)):
        with pytest.raises(ValueError, match=r"row 0: .* training needs both parts, in at most 6 tokens"):
            next(padded([bad], context=5))


def test_weight_decay_is_for_matrices_in_both_layouts():
    config = DecoderConfig(20, 16, 16, 2, 2, 2, 16, family="gpt2", qkv_bias=True, hidden_act="gelu_new")
    for scan in (False, True):
        flat = nnx.to_flat_state(_decays(nnx.state(Decoder(config, nnx.Rngs(0), scan=scan))))
        assert {path[-1] for path, leaf in flat if leaf.get_value()} == {"kernel", "embedding"}
        assert {path[-1] for path, leaf in flat if not leaf.get_value()} == {"weight", "bias"}


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, compiled_quickly):
    config, file = replace(SMALL, steps=10), tmp_path / "state.safetensors"

    def kill(step, _):
        if step + 1 == 7:
            raise KeyboardInterrupt

    whole, losses = train(small_decoder(), rows_of(40), config)
    with pytest.raises(KeyboardInterrupt):
        train(small_decoder(), rows_of(40), config, on_step=kill, checkpoint=file, every=3)
    seen = []
    resumed, again = train(
        small_decoder(), rows_of(40), config, on_step=lambda step, _: seen.append(step), checkpoint=file, every=3
    )
    assert seen == [6, 7, 8, 9]
    assert again == losses
    jax.tree.map(np.testing.assert_array_equal, nnx.state(whole), nnx.state(resumed))
    # a finished run is not trained again
    assert train(small_decoder(), rows_of(40), config, checkpoint=file)[1] == losses


def test_states_that_do_not_fit(tmp_path, compiled_quickly):
    file = tmp_path / "state.safetensors"
    train(small_decoder(), rows_of(8), SMALL, stop_after=1, checkpoint=file)
    other = Decoder(DecoderConfig(20, 16, 16, 2, 2, 1, 16), nnx.Rngs(0))
    with pytest.raises(ValueError, match="is of another model or another choice of parameters"):
        train(other, rows_of(8), SMALL, stop_after=1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"is damaged .*; delete it and train again"):
        train(small_decoder(), rows_of(8), SMALL, stop_after=1, checkpoint=file)
