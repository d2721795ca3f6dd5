"""The table of costs: traced equals by hand for every method, and the ratios that theory asks for."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from coala_lib.evaluate.cost import METHODS, Workload, feature_cost, reply_cost, tuning_cost
from coala_lib.evaluate.head_cost import Effort, head_flops, phase_one_flops, phase_two_flops
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.policy import Policy
from coala_lib.lm.shapes import SHAPES

SMALL = DecoderConfig(512, 256, 768, 2, 4, 2, 1024, tie_word_embeddings=False)
WORK = Workload(pairs=40, prompt=24, response=8)
LLAMA = SHAPES["Llama-3.1-8B"]


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules rely on it
        yield


@pytest.mark.parametrize("name", METHODS)
def test_traced_is_by_hand(name):
    traced, by_hand = (tuning_cost(SMALL, WORK, METHODS[name], traced=traced) for traced in (True, False))
    assert traced.flops == pytest.approx(by_hand.flops, rel=1e-6)


def test_features_and_replies_traced_are_by_hand():
    for how in ({}, {"shared": True}, {"shared": True, "layer": 1}):
        traced, by_hand = (feature_cost(SMALL, WORK, traced=traced, **how) for traced in (True, False))
        assert traced.flops == pytest.approx(by_hand.flops, rel=1e-2)
    traced, by_hand = (reply_cost(SMALL, 24, Policy(2, 4, 8), traced=traced) for traced in (True, False))
    assert traced.flops == pytest.approx(by_hand.flops, rel=1e-2)


def llama(name: str, **changes: int) -> float:
    return tuning_cost(LLAMA, replace(Workload(), **changes), METHODS[name], traced=False).flops


def test_ratios_are_those_of_the_passes():
    features = feature_cost(LLAMA, Workload(), traced=False).flops
    # 2N of 6N, but without the output matrix and the embeddings
    assert features / llama("DPO, LoRA") == pytest.approx(1 / 3, rel=0.1)
    assert features / llama("DPO, full") == pytest.approx(1 / 4, rel=0.1)
    assert llama("ORPO, full") / llama("DPO, full") == pytest.approx(3 / 4)
    assert llama("ORPO, LoRA") / llama("DPO, LoRA") == pytest.approx(2 / 3, rel=0.01)
    assert llama("SFT, full") == pytest.approx(llama("SimPO, full") / 2)


def test_a_cached_reference_saves_nothing_in_one_epoch():
    assert llama("DPO, LoRA, cached reference") == llama("DPO, LoRA")
    saved = 1 - llama("DPO, LoRA, cached reference", epochs=10) / llama("DPO, LoRA", epochs=10)
    assert saved == pytest.approx(0.9 / 3, rel=0.03)


def test_sharing_and_half_the_layers_pay_as_they_should():
    work = Workload()
    whole, shared, half = (
        feature_cost(LLAMA, work, traced=False, **how).flops
        for how in ({}, {"shared": True}, {"shared": True, "layer": 16})
    )
    assert shared / whole == pytest.approx((128 + 256) / 512, rel=0.03)
    assert half / shared == pytest.approx(0.5, rel=0.02)


def test_guided_decoding_costs_its_candidates_and_waits_for_memory():
    one, five = (reply_cost(LLAMA, 128, Policy(n, 8, 64), traced=False) for n in (1, 5))
    assert 2 < five.flops / one.flops < 5
    assert five.intensity < 20 < feature_cost(LLAMA, Workload(), traced=False).intensity


def test_the_convex_phases_are_little_beside_an_8b_model():
    first = phase_one_flops(131_212, 4096, 10, Effort(50, 500, 4000))
    assert 1e13 < first < 0.01 * feature_cost(LLAMA, Workload(), traced=False).flops
    assert phase_two_flops(65_606, 4096, 20, 20) < 0.01 * first
    # twice the rows, nearly twice the work
    assert phase_one_flops(2 * 131_212, 4096, 10, Effort(50, 500, 4000)) / first == pytest.approx(2, rel=0.2)


def test_the_gated_program_is_two_products_an_iteration():
    n, d, P = 400, 16, 4
    once, often = (phase_one_flops(n, d, P, Effort(0, steps, 0), "fista") for steps in (1, 101))
    assert (often - once) / 100 == pytest.approx(2 * 2 * n * d * P, rel=0.05)


def test_a_fitted_head_is_charged_for_what_it_ran(without_annotations):
    trace = {"iteration": np.array([6, 11]), "cg_steps": np.array([30, 70])}
    parts = {"mean_": np.zeros(3), "n_rows_": 40, "n_gates": 2, "variant": "relu", "trace_": trace}
    parts |= {"network_": SimpleNamespace(theta2=np.zeros(4)), "phase_two_": SimpleNamespace(n_iter=5)}
    first = phase_one_flops(40, 3, 2, Effort(rounds=2, steps=11, cg_steps=70), "newton")
    assert head_flops(SimpleNamespace(**parts)) == pytest.approx(first + phase_two_flops(20, 3, 4, 5))
    longer = {**parts, "trace_": trace | {"cg_steps": np.array([30, 90])}}
    assert head_flops(SimpleNamespace(**longer)) > head_flops(SimpleNamespace(**parts))


def test_a_workload_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Workload(pairs=0)
