"""Configurations in the wild: read with transformers' own defaults, refused in one sentence, written back unchanged."""

import pytest

from coala_lib.lm.config import DecoderConfig, RopeScaling
from coala_lib.lm.families import read_config, write_config
from tests.numerics import tiny_models

LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


def test_what_a_file_leaves_out_means_what_it_means_in_transformers():
    config = read_config(LLAMA)
    assert (config.num_key_value_heads, config.head_dim, config.rope_theta) == (4, 8, 10000.0)
    assert (config.tie_word_embeddings, config.norm_eps, config.hidden_act) == (False, 1e-6, "silu")
    assert read_config(LLAMA | {"model_type": "mistral", "num_key_value_heads": 2}).sliding_window == 4096
    assert read_config(GPT2).tie_word_embeddings


def test_both_spellings_of_the_rotary_base():
    assert read_config(LLAMA | {"rope_parameters": {"rope_theta": 5e5}}).rope_theta == 5e5
    assert read_config(LLAMA | {"rope_theta": 5e5, "rope_scaling": None}).rope_theta == 5e5


def test_llama3_stretch():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 64
    config = read_config(LLAMA | {"rope_theta": 5e5, "rope_scaling": scaling})
    assert (config.rope_theta, config.rope_scaling) == (5e5, RopeScaling("llama3", 8.0, 1.0, 4.0, 64))


def test_windows_of_some_layers():
    config = read_config(tiny_models.CASES["qwen2-window-above"])
    assert [config.slides(layer) for layer in range(3)] == [False, True, True]
    assert read_config(tiny_models.CASES["qwen2-bias"] | {"sliding_window": 5}).sliding_window is None
    assert all(map(read_config(tiny_models.CASES["mistral-window"]).slides, range(3)))


@pytest.mark.parametrize("case", tiny_models.CASES)
def test_written_and_read_again(case):
    config = read_config(tiny_models.CASES[case])
    assert read_config(write_config(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported; this decoder reads llama, mistral, qwen2"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantised; give the checkpoint in"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is not supported: its positions depend on"),
        ({"rope_scaling": {"type": "odd", "factor": 2.0}}, "rope_parameters .*'odd'.* are not supported; known are"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_parameters .*'yarn'.* are not supported"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor.* not supp"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "Missing required keys in `rope_parameters`"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported; known are silu, gelu"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads"),
        ({"hidden_size": 33}, "hidden size \\(33\\) is not a multiple of the number of attention heads \\(4\\)"),
        ({"hidden_size": "32"}, "Field 'hidden_size' expected int, got str"),
        ({"num_hidden_layers": 0}, "the sizes must be positive whole numbers"),
        ({"vocab_size": None, "hidden_size": None}, "the configuration lacks vocab_size, hidden_size"),
        ({"model_type": "gpt2"}, "the configuration lacks n_embd, n_layer, n_head, n_positions"),
    ],
)
def test_configurations_that_are_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as refused:
        read_config(LLAMA | change)
    assert "\n" not in str(refused.value)


def test_gpt2_options_that_change_the_numbers():
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx and add_cross_attention are not supported"):
        read_config(GPT2 | {"scale_attn_by_inverse_layer_idx": True})


def test_heads_must_divide():
    with pytest.raises(ValueError, match="4 attention heads do not divide hidden size 33"):
        DecoderConfig(61, 33, 48, 2, 4, 2, 128)
