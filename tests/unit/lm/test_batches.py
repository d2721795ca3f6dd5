"""Every row once, no shape beyond the limits, and a shared prompt counted once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_lib.lm.batches import Batching, plan_batches
from coala_lib.lm.tokenizer import Encoded

LIMIT = 100


PROMPTS = st.lists(st.integers(0, 60), min_size=1, max_size=6)
RESPONSES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    PROMPTS,
    RESPONSES,
    st.booleans(),
    st.sampled_from([1, 7, 32]),
    st.sampled_from([1, 200, 4096]),
    st.sampled_from([0, 50, 10**6]),
)
def test_plans(prompts, responses, share, narrowest, tokens, worth):
    chosen = [(at % len(prompts), length) for at, length in responses]
    sequences = [Encoded((at,) * prompts[at] + (99,) * length, prompts[at]) for at, length in chosen]
    batching = Batching(tokens, narrowest, share, worth)
    plan = plan_batches(sequences, batching, LIMIT)
    assert sorted(np.concatenate([b.rows.ravel() for b in plan.batches]).tolist()) == list(range(len(sequences)))
    for batch in plan.batches:
        lines, siblings = batch.rows.shape
        assert lines <= batch.lines
        assert batch.lines == 1 or batch.positions <= tokens
        assert batch.prompt <= LIMIT
        read = 0
        for line in batch.rows.tolist():
            first = sequences[line[0]]
            if batch.prompt:
                assert len({sequences[row].ids[: first.n_prompt] for row in line}) == 1
                assert first.n_prompt <= batch.prompt
                assert first.n_prompt + batch.response <= LIMIT  # not even padding stands beyond the context
                assert max(len(sequences[row].ids) for row in line) - first.n_prompt <= batch.response
                read += first.n_prompt + sum(len(sequences[row].ids) - first.n_prompt for row in line)
            else:
                assert siblings == 1
                assert len(first.ids) <= batch.response <= LIMIT
                read += len(first.ids)
        assert batch.tokens == read
    assert plan.unshared == sum(len(s.ids) for s in sequences)
    assert plan.saved >= 0
    assert share or plan.saved == 0


def test_pairs_share_and_the_saving_is_exact():
    pairs = [Encoded((p,) * 64 + (99, side), 64) for p in range(10) for side in (1, 2)]
    plan = plan_batches(pairs, Batching(worth=0), 192)
    assert (plan.tokens, plan.unshared) == (10 * 68, 10 * 132)
    assert plan.saved == pytest.approx(1 - 68 / 132)
    assert plan_batches(pairs, Batching(share_prompts=False), 192).saved == 0


def test_the_widest_come_first():
    plan = plan_batches([Encoded((1,) * n, 0) for n in (5, 90, 40)], Batching(narrowest=8, worth=0), LIMIT)
    widths = [batch.response for batch in plan.batches]
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 3


def test_few_rows_are_not_worth_programs_of_their_own():
    pairs = [Encoded((p,) * (10 * p) + (99, side), 10 * p) for p in range(2, 7) for side in (1, 2)]
    shapes = {
        worth: {(b.prompt, b.response) for b in plan_batches(pairs, Batching(narrowest=8, worth=worth), 192).batches}
        for worth in (0, 20, 10**6)
    }
    assert len(shapes[0]) == 4
    assert shapes[20] == {(32, 8), (64, 8)}
    assert shapes[10**6] == {(0, 64)}  # one program, and sharing would need a second forward
    many = plan_batches(pairs * 1000, Batching(narrowest=8, worth=10**4), 192)
    assert many.saved > 0.9


def test_widths_hold_what_they_must_and_waste_at_most_a_half():
    batching = Batching()
    for n in range(33, 3000):
        assert n <= batching.width(n) < 1.5 * n


@pytest.mark.parametrize("changes", [{"tokens": 0}, {"narrowest": 0}, {"worth": -1}])
def test_refusals(changes):
    with pytest.raises(ValueError, match="tokens and narrowest are at least 1"):
        Batching(**changes)
