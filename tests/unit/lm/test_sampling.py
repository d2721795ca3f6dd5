"""The nucleus against a numpy reference, and draws against the distribution they claim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import chisquare

from coala_lib.lm import sampling
from coala_lib.lm.sampling import nucleus

draw = jax.jit(sampling.draw, static_argnums=(2, 3, 4))


def reference(logits, temperature, top_k, top_p):
    """The kept tokens of one row, straight from the definition: smallest set of mass >= top_p among the k likeliest."""
    order = np.argsort(-logits)[:top_k]
    if top_p == 1:
        return set(order.tolist())
    mass = softmax(logits[order].astype(float) / temperature)
    for size in range(1, len(order) + 1):
        if mass[:size].sum() >= top_p:
            return set(order[:size].tolist())
    raise AssertionError("the masses do not reach 1")


def keys(seed, rows):
    return jax.random.split(jax.random.key(seed), rows)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [1, 5, 40, 1000])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_nucleus_keeps_exactly_the_right_set(temperature, top_k, top_p):
    logits = 2 * np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    found, tokens = (np.asarray(a) for a in nucleus(jnp.asarray(logits), temperature, top_k, top_p))
    for row in range(6):
        inside = np.isfinite(found[row])
        kept = tokens[row, inside]
        assert set(kept.tolist()) == reference(logits[row], temperature, top_k, top_p)
        np.testing.assert_allclose(found[row, inside], logits[row, kept] / temperature, rtol=1e-6)


def test_top_p_of_one_keeps_the_rare():
    # in float32 the likely tokens already sum to 1
    logits = jnp.array([[20.0, 19.0, 0.0, -1.0]])
    assert bool(jnp.isfinite(nucleus(logits, 1.0, 4, 1.0)[0]).all())


def test_draws_of_the_full_distribution_follow_it():
    logits, n = np.array([2.0, 1.5, 1.0, 0.5, 0.0, -1.0]), 20_000
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (n, 6))
    drawn = np.asarray(draw(keys(1, n), rows, 1.3, 6, 1.0))
    assert chisquare(np.bincount(drawn, minlength=6), n * softmax(logits / 1.3)).pvalue > 0.01


def test_draws_follow_the_truncated_distribution():
    logits, n = np.array([2.0, 1.5, 1.0, 0.5, 0.0, -1.0]), 20_000
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (n, 6))
    drawn = np.asarray(draw(keys(0, n), rows, 1.3, 5, 0.9))
    kept = sorted(reference(logits, 1.3, 5, 0.9))
    assert set(drawn.tolist()) == set(kept) == {0, 1, 2, 3}
    expected = n * softmax(logits[kept] / 1.3)
    assert chisquare(np.bincount(drawn)[kept], expected).pvalue > 0.01
    # the test has power: the distribution at another temperature is rejected
    assert chisquare(np.bincount(drawn)[kept], n * softmax(logits[kept])).pvalue < 1e-6


def test_rows_are_drawn_apart_and_seeds_matter():
    rows = jnp.zeros((50, 30))
    first, again, other = (np.asarray(draw(keys(s, 50), rows, 1.0, 30, 1.0)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(set(first.tolist())) > 10
    assert first.dtype == np.int32


@pytest.mark.parametrize("settings", [(1.0, 30, 1.0), (0.7, 10, 0.9)])
def test_a_row_draws_from_its_own_key_wherever_it_stands(settings):
    rows, each = jax.random.normal(jax.random.key(9), (8, 30)), keys(3, 8)
    drawn = np.asarray(draw(each, rows, *settings))
    np.testing.assert_array_equal(draw(each[::-1], rows[::-1], *settings), drawn[::-1])
    assert (np.asarray(draw(each[::-1], rows, *settings)) != drawn).any()


@pytest.mark.parametrize("settings", [(1.0, 1, 1.0), (0.0, 30, 1.0), (0.0, 10, 0.9)])
def test_one_token_and_temperature_zero_are_greedy(settings):
    rows = jax.random.normal(jax.random.key(9), (8, 30))
    np.testing.assert_array_equal(draw(keys(0, 8), rows, *settings), np.argmax(rows, axis=1))
