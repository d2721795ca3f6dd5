"""Guided sampling: it chooses what the features say, and one candidate is plain sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.features import pooled_features
from coala_lib.lm.guided import Policy, generate, random_score
from coala_lib.lm.sampling import draw
from coala_lib.lm.tokenizer import Encoded

NEVER, K, LENGTH = 61, 3, 8  # no token of the vocabulary is number 61
PROMPTS = [Encoded(ids, len(ids)) for ids in ((5, 9, 12), (30,), (2, 41, 17, 33, 8))]
SETTINGS = {"max_new_tokens": LENGTH, "chunk": LENGTH, "top_k": 61, "top_p": 0.95, "temperature": 1.2}


@pytest.fixture(scope="module")
def weights():
    return jnp.asarray(np.random.default_rng(0).normal(size=32), jnp.float32)


def linear(weights, features, key):
    return features @ weights


def write(decoder, prompts=PROMPTS, score=None, batch=3, seed=0, stop=NEVER, **changes):
    return generate(decoder, prompts, Policy(**(SETTINGS | {"n_candidates": K} | changes)), stop, score, seed, batch)


@pytest.fixture(scope="module")
def scorer(weights):
    return jax.tree_util.Partial(linear, weights)


def each_alone(decoder, **changes):
    """The candidates themselves: the same prompts K times each draw the same tokens, with nothing chosen."""
    repeated = [prompt for prompt in PROMPTS for _ in range(K)]
    out = write(decoder, repeated, n_candidates=1, batch=K * len(PROMPTS), **changes)
    return [out.tokens[i : i + K] for i in range(0, len(repeated), K)]


@pytest.fixture(scope="module")
def stop(tiny):
    """A token that ends at least one candidate early: the fourth one that it would write."""
    return each_alone(tiny)[0][0][3]


@pytest.fixture(scope="module")
def candidates(tiny, stop):
    found = each_alone(tiny, stop=stop)
    assert len(found[0][0]) <= 3
    return found


def finished(prompt, reply, stop):
    """Prompt and reply as features see them: with the token that ended it, where one did."""
    ids = (*prompt.ids, *reply, *([stop] if len(reply) < LENGTH else []))
    return Encoded(ids, len(prompt.ids))


def test_winner_has_the_highest_score_of_recomputed_features(tiny, weights, scorer, candidates, stop):
    replies = write(tiny, score=scorer, stop=stop).tokens
    for prompt, reply, trio in zip(PROMPTS, replies, candidates, strict=True):
        assert len({tuple(c) for c in trio}) > 1
        features = pooled_features(tiny, [finished(prompt, candidate, stop) for candidate in trio])
        assert reply == trio[int(np.argmax(features @ np.asarray(weights)))]


def test_running_features_equal_extracted_ones(tiny, candidates, stop):
    seen = []

    def record(features, key):
        jax.debug.callback(lambda f: seen.append(np.asarray(f)), features)
        return features[:, 0]

    write(tiny, score=record, stop=stop)
    jax.effects_barrier()
    extracted = [
        pooled_features(tiny, [finished(p, c, stop) for c in trio]) for p, trio in zip(PROMPTS, candidates, strict=True)
    ]
    (features,) = seen
    np.testing.assert_allclose(features, np.concatenate(extracted), atol=1e-4)


def test_every_chunk_continues_the_winner(tiny, scorer):
    # the first chunk of a chunked run is the whole run of a shorter one
    short = write(tiny, score=scorer, chunk=LENGTH // 2, max_new_tokens=LENGTH // 2).tokens
    longer = write(tiny, score=scorer, chunk=LENGTH // 2).tokens
    for a, b in zip(short, longer, strict=True):
        assert len(b) == LENGTH
        assert b[: LENGTH // 2] == a


def test_one_candidate_is_plain_sampling(tiny, stop):
    """The whole loop again without cache or branches, every step a full forward, from the same keys."""
    found = write(tiny, n_candidates=1, stop=stop)
    key, rows, out = jax.random.fold_in(jax.random.key(0), 0), [list(p.ids) for p in PROMPTS], [[] for _ in PROMPTS]
    _, sampling, _ = jax.random.split(key, 3)
    forward = nnx.jit(lambda decoder, tokens: decoder.logits(decoder(tokens)[0][-1]))
    for k in jax.random.split(sampling, LENGTH):
        tokens = np.zeros((len(rows), 16), np.int32)
        for at, row in enumerate(rows):
            tokens[at, : len(row)] = row
        logits = forward(tiny, jnp.asarray(tokens))[jnp.arange(len(rows)), jnp.array([len(row) - 1 for row in rows])]
        drawn = np.asarray(draw(k, logits, SETTINGS["temperature"], SETTINGS["top_k"], SETTINGS["top_p"])).tolist()
        for row, reply, token in zip(rows, out, drawn, strict=True):
            if stop not in reply:
                reply.append(token)
                row.append(token)
    assert found.tokens == [reply[: reply.index(stop)] if stop in reply else reply for reply in out]


def test_seeds(tiny, scorer, stop):
    first, again, other = (write(tiny, score=scorer, stop=stop, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.tokens != other.tokens


def test_random_scores_choose_evenly(tiny, candidates, stop):
    scores = random_score(jnp.zeros((300 * K, 32)), jax.random.key(0)).reshape(300, K)
    assert np.bincount(scores.argmax(axis=1)).min() > 70
    assert all(
        reply in trio for reply, trio in zip(write(tiny, score=random_score, stop=stop).tokens, candidates, strict=True)
    )


def test_costs_are_counted(tiny, scorer, candidates, stop):
    out = write(tiny, score=scorer, stop=stop)
    drawn = sum(
        len(finished(p, c, stop).ids) - len(p.ids) for p, trio in zip(PROMPTS, candidates, strict=True) for c in trio
    )
    assert out.n_tokens == drawn
    # prompts once at the widest, then every candidate's every step
    assert out.n_forward == len(PROMPTS) * 5 + len(PROMPTS) * K * LENGTH
    # rows that fill a batch up draw nothing that counts
    wide = write(tiny, PROMPTS[2:], score=scorer, chunk=LENGTH // 2)
    assert wide.n_tokens == K * LENGTH


def test_the_last_batch_is_filled_up(tiny, scorer, stop):
    out = write(tiny, [*PROMPTS, PROMPTS[2]], score=scorer, stop=stop)
    assert len(out.tokens) == 4
    # the first batch is what it was, although its rows now share the width of the second
    assert out.tokens[:3] == write(tiny, score=scorer, stop=stop).tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_candidates": 0}, "must be at least 1"),
        ({"chunk": 3}, "max_new_tokens 8 is no multiple of chunk 3"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p in \(0, 1\]"),
        ({"top_k": 0}, "must be at least 1"),
        ({}, "3 candidates need a scorer"),
        (
            {"prompts": [Encoded((1,) * 121, 121)], "n_candidates": 1},
            "prompt of 121 and reply of 8 tokens exceed the context of 128",
        ),
        ({"prompts": [], "n_candidates": 1}, "at least one prompt"),
        ({"prompts": [Encoded((), 0)], "n_candidates": 1}, "no prompt without tokens"),
    ],
)
def test_refusals(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        write(tiny, **changes)


def test_kl_bound_of_best_of_n():
    assert Policy(n_candidates=1).kl_bound == 0
    assert Policy(n_candidates=5).kl_bound == pytest.approx(np.log(5) - 0.8)
