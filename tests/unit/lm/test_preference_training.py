"""Preference fine-tuning: log-probabilities, the cached reference, what is trained, and a run that was killed."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from coala_lib.lm.decoder import Decoder, DecoderConfig
from coala_lib.lm.grpo_training import GrpoConfig, head_reward, train_grpo
from coala_lib.lm.lora import Adapter, LoraConfig, add_lora
from coala_lib.lm.pairs import pair_rows, read_pairs
from coala_lib.lm.preference_training import train_preferences
from coala_lib.lm.reference import with_reference
from coala_lib.lm.tokenizer import Encoded
from coala_lib.lm.train import TrainConfig, make_optimiser
from coala_lib.preference.baselines import objective

pytestmark = pytest.mark.usefixtures("compiled_quickly")
CONFIG = TrainConfig(steps=6, batch=4, context=12, learning_rate=1e-2)
SHAPE = DecoderConfig(20, 16, 16, 1, 2, 1, 16)


@pytest.fixture(autouse=True)
def optax_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


def make(dtype=jnp.float32, **layout):
    return Decoder(SHAPE, nnx.Rngs(0), dtype, **layout)


@pytest.fixture(scope="module")
def pairs():
    """Ten pairs whose chosen replies like the token 7, and the rejected ones the token 3."""
    rng = np.random.default_rng(0)

    def reply(liked):
        return tuple(np.where(rng.random(n := rng.integers(1, 8)) < 0.6, liked, rng.integers(1, 20, n)).tolist())

    prompts = [tuple(rng.integers(1, 20, rng.integers(2, 5)).tolist()) for _ in range(10)]
    return [(Encoded(p + reply(7), len(p)), Encoded(p + reply(3), len(p))) for p in prompts]


@pytest.fixture(scope="module")
def rows(pairs):
    return pair_rows(pairs, CONFIG.context)


def test_sums_leave_prompt_and_padding_out(pairs, rows):
    decoder = make()
    found = read_pairs(decoder, rows, batch=7)
    flat = jnp.asarray(rows.tokens.reshape(-1, CONFIG.context + 1))
    logps = np.asarray(nnx.jit(lambda model: jax.nn.log_softmax(model.logits(model(flat)[0][-1])))(decoder))
    for side, sums, lengths in ((0, found.chosen, found.chosen_tokens), (1, found.rejected, found.rejected_tokens)):
        for k, pair in enumerate(pairs):
            ids, n_prompt = pair[side].ids, pair[side].n_prompt
            expected = sum(logps[2 * k + side, at - 1, ids[at]] for at in range(n_prompt, len(ids)))
            assert sums[k] == pytest.approx(expected, abs=1e-5)
            assert lengths[k] == len(ids) - n_prompt


def test_every_step_reports_trls_metrics_and_lowers_the_loss(rows):
    start = make()
    fixed = with_reference(start, rows)
    trained, history = train_preferences(start, fixed, "dpo", CONFIG)
    assert set(history) == {"loss", "logps/chosen", "logps/rejected"} | {
        f"rewards/{what}" for what in ("chosen", "rejected", "margins", "accuracies")
    }
    assert {len(values) for values in history.values()} == {CONFIG.steps}
    assert history["loss"][0] == pytest.approx(np.log(2), abs=1e-6)
    assert history["rewards/margins"][0] == pytest.approx(0, abs=1e-6)
    after = objective("dpo")(read_pairs(trained, fixed))
    assert after.mean() < np.log(2) - 0.01


def test_parts_stacked_layers_and_remat_change_nothing(rows):
    def losses(parts=1, **layout):
        return train_preferences(make(**layout), rows, "orpo", replace(CONFIG, accumulate=parts))[1]["loss"]

    whole = losses()
    assert np.ptp(whole) > 1e-3
    np.testing.assert_allclose(losses(parts=2, scan=True, remat=True), whole, rtol=1e-4)


def test_adapters_move_and_nothing_else_on_half_precision(rows):
    adapted = add_lora(make(jnp.bfloat16), LoraConfig(rank=2), jax.random.key(0))
    config = replace(CONFIG, optimizer="rmsprop")
    trained, history = train_preferences(adapted, rows, "dpo", config, trainable=Adapter)
    _, before, frozen = nnx.split(adapted, Adapter, ...)
    _, after, still = nnx.split(trained, Adapter, ...)
    jax.tree.map(np.testing.assert_array_equal, frozen, still)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {np.dtype("float32")}
    assert all(np.abs(a - b).max() > 0 for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    assert history["rewards/margins"][-1] > 0
    found = read_pairs(trained, rows)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    with pytest.raises(ValueError, match="the decoder has no LoRAParam to train; add adapters first"):
        train_preferences(make(), rows, "simpo", CONFIG, trainable=Adapter)


def test_rmsprop_is_optaxs():
    params = nnx.state(make())
    grads = jax.tree.map(lambda leaf: 3 * jnp.ones_like(leaf), params)
    rule = make_optimiser(replace(CONFIG, optimizer="rmsprop", warmup=0.0))
    _, state = rule.update(grads, rule.init(params), params)  # the schedule's first rate is 0
    updates, _ = rule.update(grads, state, params)
    n = sum(leaf.size for leaf in jax.tree.leaves(params))
    square = (1 - 0.9**2) / n  # of a gradient clipped to length 1, seen twice at decay 0.9
    expected = -CONFIG.learning_rate * n**-0.5 / (square + 1e-8) ** 0.5
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, expected, rtol=1e-4)


def test_the_reference_is_read_once_and_kept(rows, tmp_path):
    file, decoder = tmp_path / "reference.safetensors", make()
    first = with_reference(decoder, rows, batch=3, cache=file)
    np.testing.assert_allclose(first.reference[:, 0], read_pairs(decoder, rows).chosen, rtol=1e-6)
    written = file.stat().st_mtime_ns
    np.testing.assert_array_equal(with_reference(decoder, rows, cache=file).reference, first.reference)
    assert file.stat().st_mtime_ns == written
    other = rows._replace(tokens=np.where(rows.tokens == 7, 8, rows.tokens))
    with pytest.raises(ValueError, match=r"holds reference sums of another pairs .*; delete it or name another file"):
        with_reference(decoder, other, cache=file)
    with pytest.raises(ValueError, match="holds reference sums of another model"):
        with_reference(Decoder(SHAPE, nnx.Rngs(1)), rows, cache=file)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"is damaged .*; delete it, and the sums are computed again"):
        with_reference(decoder, rows, cache=file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_reference_of_ones_own_and_checkpoints_of_another_run(rows, tmp_path):
    file, seen = tmp_path / "state.safetensors", []
    given = {"name": "dpo", "config": CONFIG, "reference": Decoder(SHAPE, nnx.Rngs(1))}
    _, history = train_preferences(
        make(), rows, checkpoint=file, stop_after=2, on_step=lambda step, told: seen.append(told), **given
    )
    # the loss compares with the model that was named, not with the start
    assert history["loss"][0] != pytest.approx(np.log(2), abs=1e-3)
    assert [told["rewards/margins"] for told in seen] == history["rewards/margins"]
    for changed in ({"name": "simpo"}, {"hyper": {"beta": 0.5}}, {"config": replace(CONFIG, seed=1)}):
        with pytest.raises(ValueError, match=r"is of another run .*; delete it or name another file"):
            train_preferences(make(), rows, checkpoint=file, **(given | changed))


def test_what_is_refused_before_any_work(pairs, without_annotations):
    for change, says in (
        ({"name": "pdo"}, "'pdo' is no baseline"),
        ({"hyper": {"gamma": 1.0}}, "dpo has no hyper-parameter 'gamma'"),
        ({"pairs": []}, "there are no pairs to train on"),
        ({"config": replace(CONFIG, context=4)}, r"chosen response of row \d: .* in at most 5 tokens"),
    ):
        with pytest.raises(ValueError, match=says):
            train_preferences(**{"decoder": make(), "pairs": pairs, "name": "dpo", "config": CONFIG} | change)
    with pytest.raises(ValueError, match="optimizer is 'adamw' or 'rmsprop'; got 'sgd'"):
        replace(CONFIG, optimizer="sgd")


# a run that kills itself with SIGKILL behind step 5, and one that goes on from what it left
SCRIPT = """
import os, signal, sys
import numpy as np
from flax import nnx
from safetensors.numpy import save_file
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.preference_training import train_preferences
from coala_lib.lm.tokenizer import Encoded
from coala_lib.lm.train import TrainConfig, make_optimiser
import jax

def fit(folder, kill_at):
    rng = np.random.default_rng(0)
    draw = lambda n: tuple(rng.integers(1, 20, n).tolist())
    pairs = [(Encoded(p + draw(3), 3), Encoded(p + draw(5), 3)) for p in (draw(3) for _ in range(9))]
    def on_step(step, _):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    decoder, history = train_preferences(
        Decoder(DecoderConfig(20, 8, 8, 1, 1, 1, 16), nnx.Rngs(0)), pairs, "dpo",
        TrainConfig(steps=7, batch=4, context=8), cache=folder + "/reference.safetensors",
        checkpoint=folder + "/state.safetensors", every=2, on_step=on_step,
    )
    leaves = {str(k): np.asarray(leaf) for k, leaf in enumerate(jax.tree.leaves(nnx.state(decoder)))}
    save_file(leaves | {"margins": np.array(history["rewards/margins"])}, folder + "/out.safetensors")

for folder, kill_at in [(sys.argv[1], None), (sys.argv[2], 4), (sys.argv[2], None)]:
    child = os.fork()  # before JAX starts its threads: imports are what costs
    if not child:
        fit(folder, kill_at)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(whole), str(killed)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(line) for line in done.stdout.split()] == [0, -signal.SIGKILL, 0], done.stderr
    a, b = (load_file(folder / "out.safetensors") for folder in (whole, killed))
    assert len(a["margins"]) == 7
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_grpo_learns_what_is_rewarded():
    """Replies of the token 7 are worth most; a KL term and two updates a batch do not stand in the way."""
    prompts = [Encoded((1, k), 2) for k in range(2, 8)]
    config = TrainConfig(steps=12, batch=32, context=12, learning_rate=2e-2)

    def sevens(asked, written):
        return np.array([np.mean([token == 7 for token in ids] or [0]) for ids in written.tokens])

    grpo = GrpoConfig(group=8, max_new_tokens=6, inner=2, beta_kl=0.01, reduction="grpo")
    _, history = train_grpo(make(), prompts, sevens, config, grpo, stop=0)
    assert set(history) == {"loss", "reward", "reward_std", "completion_length"}
    assert np.mean(history["reward"][-3:]) > 2 * np.mean(history["reward"][:3]) > 0


def test_grpo_goes_on_from_its_checkpoint_with_the_same_bits(tmp_path):
    prompts, file = [Encoded((1, k), 2) for k in range(2, 8)], tmp_path / "state.safetensors"
    config, grpo = TrainConfig(steps=5, batch=8, context=8, learning_rate=1e-2), GrpoConfig(4, 4)

    def shortest(asked, written):
        return np.array([-len(ids) for ids in written.tokens])

    class Killed(Exception):
        pass

    def killing(asked, written):
        if file.exists():  # behind the first state, which is written after the second batch
            raise Killed
        return shortest(asked, written)

    whole, told = train_grpo(make(), prompts, shortest, config, grpo, stop=0)
    kept = {"stop": 0, "checkpoint": file, "every": 2, "identity": "shortest"}
    with pytest.raises(Killed):
        train_grpo(make(), prompts, killing, config, grpo, **kept)
    again, history = train_grpo(make(), prompts, shortest, config, grpo, **kept)
    assert history == told
    for a, b in zip(*(jax.tree.leaves(nnx.state(model)) for model in (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    for changed in ({"identity": "longest"}, {"prompts": prompts[:-1]}, {"grpo": replace(grpo, clip=0.1)}):
        given = {"prompts": prompts, "reward": shortest, "config": config, "grpo": grpo} | kept | changed
        with pytest.raises(ValueError, match=r"is of another run .*; delete it or name another file"):
            train_grpo(make(), **given)


def test_grpo_with_a_head_as_reward_and_what_it_refuses(without_annotations):
    written = SimpleNamespace(features=np.arange(6.0).reshape(3, 2))
    assert head_reward(lambda features: features[:, 0])([], written).tolist() == [0, 2, 4]
    prompts, config = [Encoded((1, 2), 2)], TrainConfig(steps=1, batch=4, context=8)
    with pytest.raises(ValueError, match="a batch of 4 replies is no whole number of groups of 8"):
        train_grpo(make(), prompts, head_reward(len), config, stop=0)
    with pytest.raises(ValueError, match="group must be at least 2"):
        GrpoConfig(group=1)
