"""Every baseline against golden values, TRL's formulas written anew, and its own derivative by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_expit

from coala_lib.preference import baselines
from coala_lib.preference.baselines import BASELINES, PairLogps, hyper_parameters, log1mexp, log_odds, objective
from coala_lib.preference.grpo import group_advantages, grpo_loss

ONE = {"chosen": -1.7, "rejected": -4.9, "chosen_tokens": 3, "rejected_tokens": 5, "ref_chosen": -2, "ref_rejected": -4}
GOLDEN = [
    ("sft", {}, 0.566667),
    ("dpo", {"beta": 0.1}, 0.634946),
    ("ipo", {"tau": 0.1}, 14.44),
    ("sppo_hard", {"beta": 0.1}, 38.9),
    ("simpo", {"beta": 2.0, "margin": 1.0}, 0.783565),
    ("r_dpo", {"beta": 0.1, "alpha": 0.05}, 0.683197),
    ("orpo", {"lam": 0.1}, 0.604376),
    ("cpo", {"beta": 0.1, "lam": 1.0, "nll": "mean"}, 1.112560),
    ("cpo", {"beta": 0.1, "lam": 1.0, "nll": "sum"}, 2.245893),
    ("rrhf", {"lam": 1.0}, 0.566667),
]


def pairs_of(values):
    return PairLogps(**{name: np.atleast_1d(np.asarray(value, float)) for name, value in values.items()})


def random_pairs(N=40, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, (2, N)).astype(float)
    policy, reference = (-lengths * rng.exponential(1.2, (2, N)) - 1e-3 for _ in range(2))
    return PairLogps(*policy, *lengths, *reference)


@pytest.mark.parametrize(("name", "hyper", "expected"), GOLDEN)
def test_golden_values(name, hyper, expected):
    assert objective(name, **hyper)(pairs_of(ONE))[0] == pytest.approx(expected, abs=1e-6)


def test_rrhf_with_the_roles_swapped():
    swapped = {k: ONE[k.replace("rejected", "?").replace("chosen", "rejected").replace("?", "chosen")] for k in ONE}
    assert baselines.rrhf(pairs_of(swapped), lam=1.0)[0] == pytest.approx(1.393333, abs=1e-6)


def theirs(name, p, h):
    """TRL's trainers, from their formulas: `logits`, `beta`, and what is added to them."""
    cw, cl = p.chosen / p.chosen_tokens, p.rejected / p.rejected_tokens
    logits = (p.chosen - p.rejected) - (p.ref_chosen - p.ref_rejected) if "dpo" in name or name == "ipo" else None
    if name == "dpo":
        return -log_expit(h["beta"] * logits)
    if name == "r_dpo":
        return -log_expit(h["beta"] * logits - h["alpha"] * (p.rejected_tokens - p.chosen_tokens))
    if name == "ipo":
        return (logits - 1 / (2 * h["tau"])) ** 2
    if name == "sppo_hard":
        a, b = p.chosen - p.ref_chosen, p.rejected - p.ref_rejected
        return (a - 0.5 / h["beta"]) ** 2 + (b + 0.5 / h["beta"]) ** 2
    if name == "simpo":  # the trainer subtracts gamma / beta before it multiplies by beta
        return -log_expit(h["beta"] * ((cw - cl) - h["margin"] / h["beta"]))
    if name == "cpo":
        return -log_expit(h["beta"] * (p.chosen - p.rejected)) - h["lam"] * cw
    if name == "orpo":
        log_odds = (cw - cl) - (np.log1p(-np.exp(cw)) - np.log1p(-np.exp(cl)))
        return -cw - h["lam"] * log_expit(log_odds)
    if name == "rrhf":
        return np.where(cl > cw, cl - cw, 0) - h["lam"] * cw
    return -cw


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("seed", range(3))
def test_trls_formulas_on_random_inputs(name, seed):
    pairs, hyper = random_pairs(seed=seed), hyper_parameters(name)
    np.testing.assert_allclose(objective(name)(pairs), theirs(name, pairs, hyper), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_float32_on_the_device_agrees(name):
    pairs = random_pairs()
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), pairs)
    np.testing.assert_allclose(objective(name)(single), objective(name)(pairs), rtol=3e-5, atol=3e-5)


def test_dpo_starts_at_log_2_with_half_beta_for_both_sides():
    pairs = random_pairs()
    start = PairLogps(
        pairs.chosen, pairs.rejected, pairs.chosen_tokens, pairs.rejected_tokens, pairs.chosen, pairs.rejected
    )
    np.testing.assert_allclose(baselines.dpo(start), math.log(2), atol=1e-15)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda p: baselines.dpo(p, 0.3).sum())(jax.tree.map(jnp.asarray, start))
    np.testing.assert_allclose(gradient.chosen, -0.15, atol=1e-15)
    np.testing.assert_allclose(gradient.rejected, 0.15, atol=1e-15)


# d loss / d (l_w, l_l) by hand, as the chapter prints them
def by_hand(name, p, h):
    nw, nl, (cw, cl) = p.chosen_tokens, p.rejected_tokens, p.means
    if name in ("dpo", "r_dpo"):
        rw, rl = p.ratios
        weight = h["beta"] * expit(-h["beta"] * (rw - rl) - h.get("alpha", 0) * (nw - nl))
        return -weight, weight
    if name == "simpo":
        weight = h["beta"] * expit(h["margin"] - h["beta"] * (cw - cl))
        return -weight / nw, weight / nl
    if name == "cpo":
        weight = h["beta"] * expit(-h["beta"] * (p.chosen - p.rejected))
        return -weight - h["lam"] / nw, weight
    if name == "rrhf":
        wrong = (cl > cw).astype(float)
        return -(wrong + h["lam"]) / nw, wrong / nl
    if name == "orpo":  # lo'(a) = 1 / (1 - e^a)
        weight = h["lam"] * expit(log_odds(cl) - log_odds(cw))
        return -(1 + weight / -np.expm1(cw)) / nw, weight / -np.expm1(cl) / nl
    return -1 / nw, np.zeros_like(nl)


@pytest.mark.parametrize("name", ["sft", "dpo", "r_dpo", "simpo", "orpo", "cpo", "rrhf"])
def test_gradients_are_those_by_hand(name):
    pairs = random_pairs(seed=4)
    with jax.enable_x64(True):
        found = jax.grad(lambda p: objective(name)(p).sum())(jax.tree.map(jnp.asarray, pairs))
    expected = by_hand(name, pairs, hyper_parameters(name))
    np.testing.assert_allclose([found.chosen, found.rejected], expected, rtol=1e-9, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.floats(-700, -1e-300))
def test_log1mexp_keeps_its_digits(a):
    # 1 - e^a from the series where a is small, from e^a where it is large
    exact = math.log(-math.expm1(a)) if a > -1e-3 else math.log1p(-math.exp(a))
    assert float(log1mexp(np.array([a]))[0]) == pytest.approx(exact, rel=1e-12, abs=1e-300)


def test_log_odds_and_their_gradient_stay_finite():
    a = jnp.array([-1e4, -80.0, -0.6931472, -1e-6, -1e-20, 0.0], jnp.float32)
    assert np.isfinite(log_odds(a)).all()
    assert np.isfinite(jax.grad(lambda a: log_odds(a).sum())(a)).all()
    np.testing.assert_allclose(log_odds(a)[:5], [-1e4, -80, 0, 13.8155, 46.0517], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["simpo", "orpo", "cpo", "rrhf", "sft"])
def test_reference_free_losses_look_at_no_reference(name):
    pairs = random_pairs()
    bare = PairLogps(pairs.chosen, pairs.rejected, pairs.chosen_tokens, pairs.rejected_tokens)
    np.testing.assert_array_equal(objective(name)(bare), objective(name)(pairs))
    assert not BASELINES[name].needs_reference


@pytest.mark.parametrize("name", [name for name, baseline in BASELINES.items() if baseline.needs_reference])
def test_the_others_ask_for_one(name):
    bare = PairLogps(*(np.ones(2),) * 4)
    with pytest.raises(ValueError, match="give ref_chosen and ref_rejected"):
        objective(name)(bare)


def test_what_is_refused(without_annotations):
    for bad, says in (
        (lambda: hyper_parameters("pdo"), "'pdo' is no baseline; there are sft, dpo"),
        (lambda: objective("dpo", lam=1), "dpo has no hyper-parameter 'lam'; it has beta"),
        (lambda: objective("sft", beta=1), "sft has no hyper-parameter 'beta'; it has none"),
        (lambda: objective("dpo", beta=-1), "beta of dpo must be a finite number of at least 0; got -1"),
        (lambda: baselines.cpo(random_pairs(), nll="max"), "nll is 'mean' .* or 'sum' .*; got 'max'"),
    ):
        with pytest.raises(ValueError, match=says):
            bad()


def test_metrics_by_trls_names():
    pairs = random_pairs()
    found = baselines.pair_metrics("simpo", pairs, beta=2.5)
    assert list(found) == [f"rewards/{x}" for x in ("chosen", "rejected", "margins", "accuracies")] + [
        "logps/chosen",
        "logps/rejected",
    ]
    np.testing.assert_allclose(found["rewards/chosen"], 2.5 * pairs.chosen / pairs.chosen_tokens)
    np.testing.assert_array_equal(found["rewards/accuracies"], found["rewards/margins"] > 0)
    odds = baselines.pair_metrics("orpo", pairs)["log_odds_chosen"]
    np.testing.assert_allclose(baselines.orpo(pairs, 2.0), -pairs.means[0] - 2 * log_expit(odds))
    tie = PairLogps(*(np.full(1, -2.0), np.full(1, -2.0), *(np.ones(1),) * 2))
    assert baselines.pair_metrics("cpo", tie)["rewards/accuracies"] == 0.5


def test_group_advantages():
    found = np.asarray(group_advantages(jnp.array([[1.0, 0, 0, 1], [3, 3, 3, 3]])))
    np.testing.assert_allclose(found[0], [0.865875, -0.865875, -0.865875, 0.865875], atol=1e-6)
    assert (found[1] == 0).all()
    np.testing.assert_allclose(group_advantages(jnp.array([[1.0, 0, 0, 1]]), scale=False)[0], [0.5, -0.5, -0.5, 0.5])
    with pytest.raises(ValueError, match="a group of one reply"):
        group_advantages(jnp.ones((3, 1)))


def grpo(logps, old, advantages=(1.0,), mask=None, **options):
    logps, old = jnp.atleast_2d(jnp.asarray(logps, jnp.float32)), jnp.atleast_2d(jnp.asarray(old, jnp.float32))
    mask = jnp.ones(logps.shape, bool) if mask is None else jnp.asarray(mask)
    return grpo_loss(logps, old, mask, jnp.asarray(advantages, jnp.float32), **options)


def test_the_ratio_is_clipped_on_the_winning_side_only():
    assert float(grpo(np.log(1.5), 0.0)) == pytest.approx(-1.2)
    assert float(grpo(np.log(1.5), 0.0, (-1.0,))) == pytest.approx(1.5)
    assert float(grpo(np.log(0.5), 0.0, (-1.0,))) == pytest.approx(0.8)


def test_the_kl_term(without_annotations):
    apart = jnp.array([[0.3]])
    value = grpo(0.0, 0.0, (0.0,), ref_logps=apart, beta_kl=1.0)
    assert float(value) == pytest.approx(0.0498588, abs=1e-6)
    with pytest.raises(ValueError, match="a KL term needs ref_logps"):
        grpo(0.0, 0.0, beta_kl=1.0)
    with pytest.raises(ValueError, match="reduction is one of grpo, dapo, dr_grpo; got 'mean'"):
        grpo(0.0, 0.0, reduction="mean")


def test_reductions_weigh_tokens_as_they_say():
    mask, zeros = [[True, False, False, False], [True] * 4], np.zeros((2, 4))
    by = {r: float(grpo(zeros, zeros, (1.0, 3.0), mask, reduction=r)) for r in ("grpo", "dapo", "dr_grpo")}
    assert by == pytest.approx({"grpo": -2.0, "dapo": -13 / 5, "dr_grpo": -13 / 8})


@pytest.mark.parametrize("reduction", ["grpo", "dapo", "dr_grpo"])
def test_a_group_of_equal_rewards_moves_nothing(reduction):
    logps = jnp.asarray(np.random.default_rng(0).normal(-1, 0.3, (4, 5)), jnp.float32)
    advantages = group_advantages(jnp.full((1, 4), 2.5)).reshape(-1)
    mask = jnp.ones((4, 5), bool)
    gradient = jax.grad(lambda x: grpo_loss(x, logps, mask, advantages, reduction=reduction))(logps)
    assert (np.asarray(gradient) == 0).all()
    # and otherwise the gradient is REINFORCE with the group's baseline
    advantages = group_advantages(jnp.array([[1.0, 0, 2, 5]])).reshape(-1)
    gradient = jax.grad(lambda x: grpo_loss(x, logps, mask, advantages))(logps)
    np.testing.assert_allclose(gradient, -np.broadcast_to(advantages[:, None], (4, 5)) / 20, rtol=1e-5)
