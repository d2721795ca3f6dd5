"""Memory of a training step: both bounds against the compiler's plan, and what fits a 24 GB card."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from coala_lib.lm.lora import LoraConfig
from coala_lib.lm.lowering import pair_batch, training_step
from coala_lib.lm.preference_training import preference_loss
from coala_lib.lm.shapes import SHAPES, lora_targets
from coala_lib.lm.training_memory import planned_bytes, training_bytes
from tests.unit.lm.test_lowering import FAMILIES, adapters


@pytest.mark.parametrize(("family", "lora", "remat"), [("llama", True, True), ("gpt2", False, False)])
def test_the_plan_lies_between_the_bounds(family, lora, remat):
    config = replace(FAMILIES[family], num_hidden_layers=4)
    how = {"lora": adapters(config) if lora else None, "remat": remat}
    step = training_step(config, preference_loss("dpo"), pair_batch(2, 128), dtype=jnp.float32, **how)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules rely on it
        plan = planned_bytes(step)
    by_hand, planned = training_bytes(config, 4, 128, dtype=jnp.float32, **how), sum(plan.values())
    assert by_hand.certain <= planned <= by_hand.total <= 2 * planned
    assert plan["arguments"] == pytest.approx(by_hand.weights + by_hand.optimizer, rel=1e-3)


def test_recomputation_decides_what_fits_24_gb():
    llama = SHAPES["Llama-3.1-8B"]
    lora = LoraConfig(16, targets=lora_targets(llama))
    assert training_bytes(llama, 4, 512, lora=lora).certain > 24e9
    assert training_bytes(llama, 4, 512, lora=lora, remat=True).total < 24e9
    assert training_bytes(llama, 4, 512, remat=True).certain > 40e9
    # adapters alone move: their memory is theirs, in float32
    assert training_bytes(llama, 4, 512, lora=lora).optimizer == 2 * 4 * 41_943_040
