"""The Alternating Population Strategy on any conversation."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_lib.corpora.alternating import alternate
from coala_lib.corpora.edu import Conversation
from coala_lib.corpora.triplets import TripletError, validate


def talk(texts, name="c", roles=("user", "assistant")):
    return Conversation(name, tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts)))


# few distinct texts, so that equal neighbours happen
conversations = st.lists(st.sampled_from(["yes", "no", "why?"]), max_size=12).map(lambda t: t[: len(t) // 2 * 2])


@given(conversations)
def test_a_replies_give_a_minus_one_triplets_less_the_ties(texts):
    replies = texts[1::2]
    ties = sum(a == b for a, b in pairwise(replies))
    triplets = alternate([talk(texts)], source="test")
    assert len(triplets) == max(len(replies) - 1, 0) - ties


@given(conversations)
def test_order_roles_and_growing_prompts(texts):
    triplets = alternate([talk(texts)], source="test")
    turns = [t["turn_index"] for t in triplets]
    assert turns == sorted(set(turns))
    for triplet in triplets:
        k = triplet["turn_index"]
        assert [m["content"] for m in triplet["prompt"]] == texts[: 2 * k + 1]
        assert [m["role"] for m in triplet["prompt"]] == ["user", "assistant"] * k + ["user"]
        assert triplet["chosen"] == [{"role": "assistant", "content": texts[2 * k + 1]}]
        assert triplet["rejected"] == [{"role": "assistant", "content": texts[2 * k + 3]}]
        assert triplet["source"] == "test"
        assert triplet["conversation_id"] == "c"


@given(st.lists(conversations, max_size=4))
def test_conversations_do_not_mix(talks):
    named = [talk(texts, name=str(i)) for i, texts in enumerate(talks)]
    assert alternate(named, "test") == [t for one in named for t in alternate([one], "test")]


@given(conversations.filter(lambda t: len(t) >= 4))
def test_triplets_pass_the_schema(texts):
    if triplets := alternate([talk(texts)], source="test"):
        validate(triplets)
    else:
        with pytest.raises(TripletError, match="there are no triplets"):
            validate(triplets)


@pytest.mark.parametrize(
    "broken", [talk("abc"), talk("abcd", roles=("assistant", "user")), talk("ab", roles=("user", "user"))]
)
def test_roles_must_alternate(broken):
    with pytest.raises(ValueError, match="conversation c: roles must alternate user, assistant"):
        alternate([broken], source="test")
