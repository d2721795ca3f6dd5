"""Three counters of the same steps: the traced program with its trips, XLA on unrolled layers, and the closed form.

Models are wide and shallow: at such widths matrix products dominate, and nothing is computed here.
"""

from collections.abc import Iterator

import jax
import pytest

from coala_lib.evidence.flops import count_flops, xla_flops
from coala_lib.lm import closed_form
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.lora import LoraConfig
from coala_lib.lm.lowering import (
    Abstract,
    decoding_step,
    feature_step,
    pair_batch,
    reference_step,
    response_batch,
    training_step,
)
from coala_lib.lm.memory import n_parameters
from coala_lib.lm.policy import Policy
from coala_lib.lm.preference_training import preference_loss
from coala_lib.lm.shapes import SHAPES, lora_targets
from coala_lib.lm.train import finetuning

SIZES = (1024, 512, 1536, 3, 8, 2, 2048)
BIASES = {"qkv_bias": True, "output_bias": True, "mlp_bias": True}
FAMILIES = {
    "llama": DecoderConfig(*SIZES, tie_word_embeddings=False),
    "mistral": DecoderConfig(*SIZES, family="mistral", sliding_window=64, tie_word_embeddings=False),
    "qwen3": DecoderConfig(*SIZES, family="qwen3", qk_norm=True),
    "gpt2": DecoderConfig(1024, 512, 2048, 3, 8, 8, 1024, family="gpt2", hidden_act="gelu_new", **BIASES),
}
PAIRS, PROMPT, RESPONSE = 4, 96, 32
LENGTH = PROMPT + RESPONSE
every_family = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
DPO, BATCH = preference_loss("dpo"), pair_batch(PAIRS, LENGTH)


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules rely on it
        yield


def adapters(config: DecoderConfig) -> LoraConfig:
    return LoraConfig(16, targets=lora_targets(config))


def ours(step: Abstract, by_hand: float, **more: object) -> None:
    """The scale in front of attention's weights is all that may differ: a table of angles, some pooled sums."""
    assert count_flops(*step.parts, **more) == pytest.approx(by_hand, rel=1e-3)


def xlas(step: Abstract, by_hand: float) -> None:
    assert xla_flops(*step.parts) == pytest.approx(by_hand, rel=1e-2)


@every_family
def test_a_training_step_in_a_loop_in_a_list_and_by_hand(config):
    for lora, remat in ((None, False), (adapters(config), True)):
        how = {"lora": lora, "remat": remat}
        in_a_loop, in_a_list = (training_step(config, DPO, BATCH, scan=scan, **how) for scan in (True, False))
        ours(in_a_loop, closed_form.training_flops(config, 2 * PAIRS, LENGTH, **how))
        by_hand = closed_form.training_flops(config, 2 * PAIRS, LENGTH, scan=False, **how)
        ours(in_a_list, by_hand)
        xlas(in_a_list, by_hand)
    assert xla_flops(*in_a_loop.parts) < 0.5 * by_hand  # the trap: the loop's body counts once


@every_family
def test_features_whole_shared_and_from_an_earlier_layer(config):
    for layer in (-1, 2):
        deep = None if layer == -1 else layer
        whole, shared = (
            feature_step(config, PAIRS, PROMPT, RESPONSE, layer=layer, shared=share) for share in (False, True)
        )
        ours(whole, closed_form.forward_flops(config, 2 * PAIRS, LENGTH, layer=deep))
        by_hand = closed_form.shared_flops(config, PAIRS, PROMPT, RESPONSE, layer=deep)
        ours(shared, by_hand)
        xlas(shared, by_hand)


def test_the_other_steps():
    config = FAMILIES["gpt2"]
    ours(reference_step(config, PAIRS, LENGTH), closed_form.forward_flops(config, 2 * PAIRS, LENGTH, logits=True))
    rows = training_step(config, finetuning, response_batch(PAIRS, LENGTH), accumulate=2)
    ours(rows, closed_form.training_flops(config, PAIRS, LENGTH))
    for candidates, chunk in ((1, 8), (5, 2)):
        step = decoding_step(config, PROMPT, Policy(candidates, chunk, 8))
        by_hand = closed_form.decoding_flops(config, PROMPT, 8, candidates)
        ours(step, by_hand, trips=(8 // chunk, chunk))


def test_shapes_have_the_published_numbers_of_parameters():
    published = {
        "distilgpt2": 81_912_576,
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "Llama-3.2-3B": 3_212_749_824,
        "Mistral-7B": 7_241_732_096,
        "Dolphin-2.6-7B": 7_241_732_096 + 2 * 4096,
        "Llama-3.1-8B": 8_030_261_248,
    }
    assert {name: n_parameters(config) for name, config in SHAPES.items()} == published


def test_the_rule_of_thumb_holds_at_8b():
    llama = SHAPES["Llama-3.1-8B"]
    dpo, read = closed_form.training_flops(llama, 2, 256), closed_form.forward_flops(llama, 2, 256)
    assert dpo == pytest.approx(6 * n_parameters(llama) * 2 * 256, rel=0.08)
    assert read == pytest.approx(2 * n_parameters(llama) * 2 * 256, rel=0.15)
