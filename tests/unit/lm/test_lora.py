"""Adapters: a start that changes nothing, training that moves nothing else, merging, and PEFT's files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from coala_lib.lm.adapters import load_adapter, save_adapter
from coala_lib.lm.checkpoint import load_decoder, save_decoder
from coala_lib.lm.lora import Adapter, LoraConfig, add_lora, merge_lora
from coala_lib.lm.rows import padded
from coala_lib.lm.shards import CheckpointError
from coala_lib.lm.tokenizer import Encoded
from coala_lib.lm.train import TrainConfig, finetuning, train
from tests.numerics import tiny_models

pytestmark = pytest.mark.usefixtures("compiled_quickly")
TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2, 6]])
CONFIG = LoraConfig(rank=3, alpha=6.0, targets=("q_proj", "down_proj"))


@nnx.jit
def hidden(decoder):
    return decoder(TOKENS)[0][0]


def moved(decoder):
    """The same adapters as if trained: B is no longer zero."""
    graph, adapters, rest = nnx.split(decoder, Adapter, ...)
    leaves, tree = jax.tree.flatten(adapters)
    drawn = [leaf + 0.1 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(leaves)]
    return nnx.merge(graph, jax.tree.unflatten(tree, drawn), rest)


@pytest.fixture(scope="module")
def adapted(tiny):
    return moved(add_lora(tiny, CONFIG, jax.random.key(0)))


@pytest.mark.parametrize("scan", [False, True])
def test_a_fresh_adapter_changes_nothing(tiny, scan):
    fresh = add_lora(tiny.with_scan(scan), CONFIG, jax.random.key(0))
    np.testing.assert_array_equal(hidden(fresh), hidden(tiny.with_scan(scan)))
    sizes = {leaf.shape for leaf in jax.tree.leaves(nnx.state(fresh, Adapter))}
    stack = (2,) if scan else ()
    assert sizes == {(*stack, 32, 3), (*stack, 3, 32), (*stack, 48, 3)}
    assert not hasattr(tiny.layers[0].q_proj, "a")  # the model itself is not touched


def test_a_is_drawn_as_peft_draws_it(tiny):
    fresh = add_lora(tiny, LoraConfig(rank=32, targets=("down_proj",)), jax.random.key(1))
    a = np.stack([np.asarray(layer.down_proj.a[...]) for layer in fresh.layers])
    bound = 48**-0.5  # kaiming_uniform(a=sqrt(5)) over 48 inputs
    assert 0.98 * bound < np.abs(a).max() <= bound
    assert a.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert np.abs(a[0] - a[1]).max() > bound


@pytest.mark.parametrize("scan", [False, True])
def test_merging_keeps_the_numbers(adapted, tiny, scan):
    decoder = adapted.with_scan(scan)
    merged = merge_lora(decoder)
    np.testing.assert_allclose(hidden(merged), hidden(adapted), atol=2e-5)
    assert not jax.tree.leaves(nnx.state(merged, Adapter))
    assert np.abs(hidden(merged) - hidden(tiny)).max() > 0.1
    # alpha over rank: the update of one matrix by hand
    layer = adapted.layers[1].q_proj
    by_hand = layer.base.kernel[...] + 2.0 * layer.a[...] @ layer.b[...]
    np.testing.assert_allclose(merged.with_scan(False).layers[1].q_proj.kernel[...], by_hand, atol=1e-5)


def test_half_precision_models_have_wide_adapters(tiny, tmp_path):
    half = load_decoder(save_decoder(tiny, tmp_path, jnp.bfloat16), jnp.bfloat16)
    fresh = add_lora(half, CONFIG, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(fresh, Adapter))} == {jnp.dtype("float32")}
    assert hidden(fresh).dtype == jnp.bfloat16 == merge_lora(fresh).layers[0].q_proj.kernel[...].dtype


def test_fine_tuning_moves_the_adapters_and_nothing_else(tiny):
    rng = np.random.default_rng(0)
    rows = [Encoded((7, int(x), 8, int(x), 9), 3) for x in rng.integers(10, 20, 400)]  # the reply repeats the prompt
    config = TrainConfig(steps=25, batch=16, context=6, learning_rate=2e-2)
    start = add_lora(tiny, CONFIG, jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):
        trained, losses = train(start, padded(rows, 6), config, loss=finetuning, trainable=Adapter)
    assert losses[-1] < 0.5 * losses[0]
    _, before, frozen = nnx.split(start, Adapter, ...)
    _, after, still = nnx.split(trained, Adapter, ...)
    jax.tree.map(np.testing.assert_array_equal, frozen, still)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_adapters_have_the_same_gradients_when_layers_are_computed_again(adapted):
    @jax.jit
    def gradients(moving, frozen):
        return [jax.grad(lambda m, g=g: nnx.merge(g, m, frozen)(TOKENS)[0].sum())(moving) for g in graphs]

    again = nnx.merge(*nnx.split(adapted))
    again.remat = True
    graphs = [nnx.split(decoder, Adapter, ...)[0] for decoder in (adapted, again)]
    plain, remat = gradients(*nnx.split(adapted, Adapter, ...)[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, remat)


def test_nothing_to_train(tiny):
    with pytest.raises(ValueError, match="the decoder has no LoRAParam to train; add adapters first"):
        train(tiny, iter([]), TrainConfig(), trainable=Adapter)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tiny: LoraConfig(rank=0), "a rank of at least 1 and a target"),
        (lambda tiny: add_lora(tiny, LoraConfig(targets=("c_attn",)), jax.random.key(0)), "no linear map 'c_attn'; it"),
        (lambda tiny: add_lora(add_lora(tiny, CONFIG, jax.random.key(0)), CONFIG, jax.random.key(0)), "adapters alre"),
        (lambda tiny: save_adapter(tiny, "nowhere"), "has no adapters to save"),
        (lambda tiny: save_decoder(add_lora(tiny, CONFIG, jax.random.key(0)), "nowhere"), "save merge_lora"),
    ],
)
def test_refusals(tiny, make, message):
    with pytest.raises(ValueError, match=message):
        make(tiny)


@pytest.mark.parametrize("scan", [False, True])
def test_peft_files_out_and_in(tiny, adapted, tmp_path, scan):
    folder = save_adapter(adapted.with_scan(scan), tmp_path, base="somewhere/tiny")
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"].shape == (3, 32)
    assert tensors["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"].shape == (32, 3)
    assert len(tensors) == 8
    described = json.loads((folder / "adapter_config.json").read_text())
    assert (described["r"], described["lora_alpha"], described["peft_type"]) == (3, 6.0, "LORA")
    loaded = load_adapter(tiny.with_scan(not scan), folder)
    np.testing.assert_allclose(hidden(loaded), hidden(adapted), atol=2e-5)


def test_gpt2_adapters_stand_on_its_own_names(tmp_path):
    decoder = load_decoder(tiny_models.write("gpt2", tmp_path / "model"))
    adapted = moved(add_lora(decoder, LoraConfig(rank=2, targets=("c_attn", "c_proj")), jax.random.key(0)))
    folder = save_adapter(adapted, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"].shape == (96, 2)
    assert "base_model.model.transformer.h.2.mlp.c_proj.lora_A.weight" in tensors
    assert json.loads((folder / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    np.testing.assert_allclose(hidden(load_adapter(decoder, folder)), hidden(adapted), atol=2e-5)


def rewritten(folder, **change):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def test_rank_stabilised_adapters_are_scaled_by_the_root(tiny, adapted, tmp_path):
    folder = save_adapter(adapted, tmp_path)
    rewritten(folder, use_rslora=True)
    assert load_adapter(tiny, folder).lora.scale == pytest.approx(6 / 3**0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported, only 'LORA'"),
        ({"use_dora": True, "bias": "all"}, "use_dora, bias is not supported"),
        ({"target_modules": "all-linear"}, "must give r, lora_alpha and target_modules, a list of names"),
        ({"target_modules": ["c_attn"]}, "adapter_config.json: the model has no linear map 'c_attn'"),
        ({"target_modules": ["q_proj"]}, "holds the unknown 'base_model.model.model.layers.0.mlp.down_proj.lora_A"),
        ({"target_modules": ["q_proj", "down_proj", "up_proj"]}, "lacks 'base_model.model.model.layers.0.mlp.up_proj"),
        ({"r": 4}, r"has shape \(3, .*\), this model needs \(4, "),
    ],
)
def test_adapters_that_do_not_fit(tiny, adapted, tmp_path, change, message):
    folder = save_adapter(adapted, tmp_path)
    rewritten(folder, **change)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(tiny, folder)


def test_damaged_adapters(tiny, adapted, tmp_path):
    folder = save_adapter(adapted, tmp_path)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file(tensors | {name: np.full_like(tensors[name], np.nan)}, file)
    with pytest.raises(CheckpointError, match="is not finite"):
        load_adapter(tiny, folder)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="truncated or no safetensors file"):
        load_adapter(tiny, folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no adapter_config\.json; give the folder of a PEFT adapter"):
        load_adapter(tiny, folder)
