"""The miniature language model: its samples have the probabilities it states, and it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.lm import miniature
from coala_lib.lm.miniature import END, ROOM


@pytest.fixture(scope="module")
def trained():
    with jax.numpy_dtype_promotion("standard"):
        windows, targets = miniature.one_hot(miniature.random_strings(jax.random.key(0), 500))

        def loss(model, rows):
            logps = miniature.token_logps(model, windows[rows], targets[rows])
            value = -logps.sum() / targets[rows].sum()
            return value, value

        fit = jax.jit(lambda key: miniature.fit(miniature.blank(key), loss, key, 1e-2, 100, 64, 500))
        return fit(jax.random.key(1))


def test_it_learns_how_strings_end(trained):
    model, losses = trained
    # eight symbols alike and an end at 0.15: 2.19 nats a symbol, of 2.197 for nine symbols alike
    assert losses[0] > losses[-20:].mean()
    strings = miniature.draw(model, jax.random.key(2), 4000)
    ends = np.asarray(strings == END).argmax(1)[np.asarray(strings == END).any(1)]
    assert 0.10 < np.mean(ends == 1) < 0.20


def test_samples_have_the_stated_probabilities(trained):
    model, _ = trained
    strings = miniature.draw(model, jax.random.key(3), 20000)
    logps = np.asarray(miniature.token_logps(model, *miniature.one_hot(strings)).sum(-1))
    for symbol in range(3):
        alone = np.asarray((strings[:, 0] == symbol) & (strings[:, 1] == END))
        stated = float(np.exp(logps[alone][0]))
        assert np.mean(alone) == pytest.approx(stated, abs=4 * (stated / 20000) ** 0.5)
    assert np.ptp(logps) > 5


def test_what_stands_behind_the_end_does_not_count():
    strings = jnp.array([[0, 0, 1, 2] + [END] * (ROOM - 4), [5] * ROOM])
    _, targets = miniature.one_hot(strings)
    assert targets.sum((1, 2)).tolist() == [5, ROOM]  # the end is a symbol where there is room for it
    assert miniature.length(strings).tolist() == [4, ROOM]
    assert miniature.reward(strings).tolist() == [1, 0]
