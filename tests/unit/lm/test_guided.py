"""Guided sampling against a slow sampler by hand, against extracted features, and against the law of the winner."""

from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import chisquare

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import pooled_features, sweep_features
from coala_lib.lm.guided import Policy, best_of_n, generate, plain, random_score, temperature_sweep
from coala_lib.lm.pooling import Reading
from coala_lib.lm.sampling import draw, nucleus
from coala_lib.lm.tokenizer import Encoded

NEVER, K, LENGTH = 61, 3, 8  # no token of the vocabulary is number 61
PROMPTS = [Encoded(ids, len(ids)) for ids in ((5, 9, 12), (30,), (2, 41, 17, 33, 8))]
POLICY = Policy(n_candidates=K, chunk=LENGTH, max_new_tokens=LENGTH, top_k=61, top_p=0.95, temperature=1.2)
CHUNKED = replace(POLICY, chunk=LENGTH // 4)


@pytest.fixture(scope="module")
def weights():
    return jnp.asarray(np.random.default_rng(0).normal(size=32), jnp.float32)


def linear(weights, features, key):
    return features @ weights


@pytest.fixture(scope="module")
def scorer(weights):
    return jax.tree_util.Partial(linear, weights)


@dataclass(frozen=True)
class ByHand:
    """Guided sampling again: no cache, no batch, no running sums; every candidate's every step a full forward."""

    decoder: Decoder
    weights: np.ndarray

    @cached_property
    def forward(self):
        def run(decoder, tokens):
            hidden, _ = decoder(tokens)
            return decoder.logits(hidden[0]), hidden[0]

        return nnx.jit(run)

    def states(self, ids):
        tokens = np.zeros((1, 16), np.int32)
        tokens[0, : len(ids)] = ids
        logits, hidden = self.forward(self.decoder, tokens)
        return logits[:, len(ids) - 1], np.asarray(hidden)[0, : len(ids)]

    def grow(self, prompt, reply, steps, key, stop):
        for _ in range(steps):
            if not reply or reply[-1] != stop:
                logits, _ = self.states((*prompt.ids, *reply))
                keys = jax.random.fold_in(key, len(reply))[None]
                reply = [*reply, int(draw(keys, logits, POLICY.temperature, POLICY.top_k, POLICY.top_p)[0])]
        return reply

    def write(self, number, policy, stop):
        """Reply, its score, tokens drawn, choices, and choices in which the first candidate was not kept."""
        prompt, key = PROMPTS[number], jax.random.fold_in(jax.random.key(0), number)
        reply, score, drawn, choices, overruled = [], None, 0, 0, 0
        while len(reply) < LENGTH and (not reply or reply[-1] != stop):
            trio = [
                self.grow(prompt, reply, policy.chunk, jax.random.fold_in(key, k), stop)
                for k in range(policy.n_candidates)
            ]
            scores = [self.states((*prompt.ids, *c))[1][len(prompt.ids) :].mean(axis=0) @ self.weights for c in trio]
            drawn, choices = drawn + sum(len(c) - len(reply) for c in trio), choices + 1
            reply, score = trio[int(np.argmax(scores))], max(scores)
            overruled += reply != trio[0]
        return reply, score, drawn, choices, overruled


@pytest.fixture(scope="module")
def by_hand(tiny, weights):
    return ByHand(tiny, np.asarray(weights))


@pytest.fixture(scope="module")
def stop(by_hand):
    """A token that ends the guided reply to the first prompt early."""
    return by_hand.write(0, CHUNKED, NEVER)[0][3]


def ended(replies, stop):
    """Replies as features see them: with the token that ended them, where one did."""
    return [reply + [stop] * (len(reply) < LENGTH) for reply in replies]


def whole(prompt, reply):
    return Encoded((*prompt.ids, *reply), len(prompt.ids))


@pytest.mark.parametrize("policy", [CHUNKED, POLICY, plain(POLICY)], ids=["guided", "best of n", "plain"])
def test_against_a_sampler_by_hand(tiny, scorer, by_hand, stop, policy):
    out = generate(tiny, PROMPTS, policy, (stop, NEVER), scorer)
    replies, scores, drawn, choices, overruled = zip(
        *(by_hand.write(i, policy, stop) for i in range(len(PROMPTS))), strict=True
    )
    assert ended(out.tokens, stop) == list(replies)
    assert policy != CHUNKED or any(len(reply) < LENGTH for reply in replies)
    np.testing.assert_allclose(out.scores, scores, atol=1e-4)
    assert (out.n_tokens, out.n_kept) == (sum(drawn), sum(len(reply) for reply in replies))
    assert out.acceptance == out.n_kept / out.n_tokens
    if policy.n_candidates == 1:
        assert (out.n_choices, out.kl_bound, out.acceptance) == (0, 0, 1)
        assert np.isnan(out.overruled)
    else:
        assert (out.n_choices, out.n_overruled) == (sum(choices), sum(overruled))
        assert 0 < out.overruled <= 1
        assert out.kl_bound == pytest.approx(np.mean(choices) * policy.kl_bound)


@pytest.mark.parametrize("reading", [Reading(), Reading(-1, "last"), Reading(1, "attention", 5)], ids=str)
def test_what_is_scored_is_what_extraction_extracts(tiny, scorer, stop, weights, reading):
    """The last state of a reply is right only if the cache holds what was chosen, not what a sibling wrote."""
    out = generate(tiny, PROMPTS, CHUNKED, (stop, NEVER), scorer, reading=reading)
    assert out.n_overruled > 0
    sequences = [whole(*pair) for pair in zip(PROMPTS, ended(out.tokens, stop), strict=True)]
    expected = sweep_features(tiny, sequences, [reading])[reading]
    np.testing.assert_allclose(out.features, expected, atol=1e-4)
    np.testing.assert_allclose(out.scores, expected @ np.asarray(weights), atol=1e-3)


def test_replies_do_not_depend_on_the_batch_or_the_padding(tiny, scorer, stop):
    alone = generate(tiny, PROMPTS, CHUNKED, (stop, NEVER), scorer)
    wider = generate(tiny, [*PROMPTS, Encoded((7,) * 40, 40)], CHUNKED, (stop, NEVER), scorer, batch=3)
    assert alone.tokens == wider.tokens[:3]
    np.testing.assert_allclose(alone.features, wider.features[:3], atol=1e-5)
    # the second batch holds one prompt: what fills it up draws nothing
    rest = wider.n_tokens - alone.n_tokens
    assert K <= rest <= K * LENGTH
    assert wider.n_passes <= 2 * (1 + LENGTH)
    assert wider.n_forward == 3 * (2 * 48 + K * (wider.n_passes - 2))


def test_bfloat16(tiny, scorer):
    half = Decoder(tiny.config, nnx.Rngs(0), jnp.bfloat16)
    nnx.update(half, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.state(tiny)))
    out = generate(half, PROMPTS, CHUNKED, NEVER, scorer)
    expected = pooled_features(half, [whole(*pair) for pair in zip(PROMPTS, out.tokens, strict=True)])
    assert np.abs(out.features - expected).max() < 0.02 * np.abs(expected).max()


def test_several_stop_tokens(tiny, scorer):
    endless = generate(tiny, PROMPTS, plain(POLICY), (NEVER, NEVER), scorer).tokens
    stops = endless[0][3], endless[2][1]
    for reply, long in zip(generate(tiny, PROMPTS, plain(POLICY), stops, scorer).tokens, endless, strict=True):
        ends = [at for at, token in enumerate(long) if token in stops]
        assert reply == long[: ends[0] if ends else LENGTH]


def test_seeds(tiny, scorer):
    first, again, other = (generate(tiny, PROMPTS, CHUNKED, (NEVER, NEVER), scorer, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.tokens != other.tokens
    assert first.kl_bound == pytest.approx(CHUNKED.kl_bound_reply)  # nothing stopped early


def test_random_scores_choose_evenly():
    scores = random_score(jnp.zeros((300 * K, 32)), jax.random.key(0)).reshape(300, K)
    assert np.bincount(scores.argmax(axis=1)).min() > 70


def token_scores(table, features, key):
    """The score of a reply of one token: the number of that token, read off its embedding."""
    return jnp.argmin(jnp.abs(table[None] - features[:, None]).sum(axis=2), axis=1).astype(jnp.float32)


@pytest.mark.parametrize("softness", [0.0, 20.0])
def test_the_law_of_the_winner_is_the_tilted_one(tiny, softness):
    """One token, many times: the winner's law against order statistics, and KL against its bound."""
    n, times = 3, 3000
    prompt = PROMPTS[2]
    hidden, _ = nnx.jit(Decoder.__call__)(tiny, jnp.array([prompt.ids]))
    kept, tokens = nucleus(tiny.logits(hidden[-1])[:, -1], 1.0, 6, 1.0)
    p = np.zeros(61)
    p[np.asarray(tokens)[0]] = jax.nn.softmax(kept[0])
    if softness == 0:  # the largest of n draws
        below = np.cumsum(p)
        law = below**n - (below - p) ** n
    else:  # n p(x) E[exp(x / tau) / (exp(x / tau) + the others')]
        w, (i,) = np.exp(np.arange(61) / softness), np.nonzero(p)
        a, b = np.meshgrid(i, i)
        law = np.zeros(61)
        law[i] = [n * p[x] * np.sum(p[a] * p[b] * w[x] / (w[x] + w[a] + w[b])) for x in i]
    assert law.sum() == pytest.approx(1, abs=1e-5)

    policy = Policy(n, 1, 1, top_k=6, top_p=1.0, softness=softness)
    score = jax.tree_util.Partial(token_scores, tiny.embed.embedding[...])
    out = generate(tiny, [prompt] * times, policy, NEVER, score, batch=times, reading=Reading(0, "last"))
    found = np.bincount([reply[0] for reply in out.tokens], minlength=61)
    assert found[p == 0].sum() == 0
    assert chisquare(found[p > 0], times * law[p > 0] / law.sum()).pvalue > 0.01
    assert chisquare(found[p > 0], times * p[p > 0] / p.sum()).pvalue < 1e-6  # the test has power
    kl = np.sum(law[p > 0] * np.log(law[p > 0] / p[p > 0]))
    assert 0 < kl <= policy.kl_bound == out.kl_bound


def test_a_temperature_sweep_ends_in_greedy(tiny, scorer):
    cold = temperature_sweep(POLICY, (0.0, 1e-4))
    greedy, nearly = (generate(tiny, PROMPTS, policy, (NEVER, NEVER), scorer) for policy in cold.values())
    assert [policy.n_candidates for policy in cold.values()] == [1, 1]
    assert greedy.tokens == nearly.tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_candidates": 0}, "must be at least 1"),
        ({"chunk": 3}, "max_new_tokens 8 is no multiple of chunk 3"),
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p in \(0, 1\]"),
        ({"top_k": 0}, "must be at least 1"),
        ({"softness": -1.0}, "softness must be 0 or more"),
        ({"temperature": 0.0}, "greedy candidates are all the same"),
        ({"top_k": 1}, "greedy candidates are all the same"),
    ],
)
def test_policies_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(POLICY, **changes)


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        (PROMPTS, {}, "3 candidates need a scorer"),
        ([], {"score": random_score}, "at least one prompt"),
        ([PROMPTS[0], Encoded((), 0)], {"score": random_score}, "prompt 1 has no tokens"),
        (
            [PROMPTS[0], Encoded((1,) * 121, 121)],
            {"score": random_score},
            "prompt 1: 121 tokens and a reply of 8 exceed the context of 128",
        ),
        ([Encoded((61,), 1)], {"score": random_score}, "prompt 0: a token is none of the model's 61"),
        (PROMPTS, {"score": random_score, "reading": Reading(5)}, "layer 5 is none of this model's"),
    ],
)
@pytest.mark.usefixtures("without_annotations")
def test_refusals(tiny, prompts, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny, prompts, POLICY, NEVER, **changes)


def test_kl_bounds_and_policies():
    assert Policy(n_candidates=1).kl_bound == Policy(n_candidates=1).kl_bound_reply == 0
    assert Policy(n_candidates=5).kl_bound == pytest.approx(np.log(5) - 0.8)
    assert Policy(chunk=8, max_new_tokens=48).kl_bound_reply == pytest.approx(6 * (np.log(5) - 0.8))
    assert best_of_n(Policy()).n_choices == 1
