"""Poolings against their definition, alone and carried along."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from coala_lib.lm.pooling import Reading, absorb, pool, start_running

POOLINGS = ("mean", "last", "attention")


def by_hand(states, query, pooling):
    """One response, (T, d) float64."""
    if pooling == "mean":
        return states.mean(axis=0)
    if pooling == "last":
        return states[-1]
    cosine = states @ query / np.linalg.norm(states, axis=1) / np.linalg.norm(query)
    return softmax(np.sqrt(len(query)) * cosine) @ states


@pytest.fixture(scope="module")
def rows():
    """States of two rows, the masks of their responses, and queries."""
    rng = np.random.default_rng(0)
    states = (3 * rng.normal(size=(2, 9, 8))).astype(np.float32)
    response = np.zeros((2, 9), bool)
    response[0, 2:9] = response[1, 4:6] = True
    return states, response, states[[0, 1], [1, 3]]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_definition(rows, pooling):
    states, response, query = rows
    found = pool(*(jnp.asarray(a) for a in rows), pooling)
    for row in range(2):
        expected = by_hand(states[row, response[row]].astype(float), query[row].astype(float), pooling)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_carried_along_it_is_the_same_at_every_length(rows, pooling):
    states, response, query = (jnp.asarray(a) for a in rows)
    running = start_running(2, 8)
    assert not running.features.any()
    for at in range(9):
        running = absorb(running, states[:, at], query, response[:, at], pooling)
        so_far = response & (jnp.arange(9) <= at)[None]
        written = np.asarray(so_far.any(axis=1))
        np.testing.assert_allclose(
            np.asarray(running.features)[written], np.asarray(pool(states, so_far, query, pooling))[written], atol=1e-5
        )


def test_attention_prefers_what_answers_the_prompt(rows):
    states, response, _ = (jnp.asarray(a) for a in rows)
    found = pool(states, response, states[:, 4], "attention")
    nearest = np.linalg.norm(np.asarray(states) - np.asarray(found)[:, None], axis=2).argmin(axis=1)
    assert nearest.tolist() == [4, 4]


@pytest.mark.usefixtures("without_annotations")
def test_refusals():
    with pytest.raises(ValueError, match="pooling 'max' is unknown; use one of mean, last, attention"):
        Reading(pooling="max")
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Reading(first=0)
    for layer in (-4, 3):
        with pytest.raises(ValueError, match=rf"layer {layer} is none of this model's: it has 0 .* to 2"):
            Reading(layer).check(2)
