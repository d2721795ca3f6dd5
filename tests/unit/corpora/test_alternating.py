"""The Alternating Population Strategy on any conversation."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_lib.corpora.alternating import alternate, alternate_any, first_utterance, mend
from coala_lib.corpora.conversation import Conversation, read_conversation
from coala_lib.corpora.hub import load_conversations
from coala_lib.corpora.splitting import split_by_prompt
from coala_lib.corpora.triplets import TripletError, validate
from coala_lib.corpora.validation import read_triplets


def talk(texts, name="c", roles=("user", "assistant")):
    return Conversation(name, tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts)))


def said(*turns):
    return Conversation("c", tuple({"role": role, "content": text} for role, text in turns))


def texts_of(conversation):
    return [message["content"] for message in conversation.messages]


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
def test_triplets_pass_the_schema_and_come_back(texts):
    if triplets := alternate([talk(texts)], source="test"):
        validate(triplets)
        assert read_triplets(triplets) == triplets
    else:
        with pytest.raises(TripletError, match="there are no triplets"):
            validate(triplets)


def test_no_prompt_crosses_a_split():
    opening = ["Hello?", "Which topic?", "Birds.", "Fine."]
    talks = [talk([*opening[: 2 * (i % 3)], f"question {i}", "a", "then?", f"{i}"], name=str(i)) for i in range(80)]
    sides = split_by_prompt(alternate(talks, source="test"), 0.3, seed=0)
    prompts, names = (
        [{key(t) for t in side} for side in sides]
        for key in (lambda t: str(t["prompt"]), lambda t: t["conversation_id"])
    )
    assert not prompts[0] & prompts[1]
    assert not names[0] & names[1]


@pytest.mark.parametrize(
    "broken", [talk("abc"), talk("abcd", roles=("assistant", "user")), talk("ab", roles=("user", "user"))]
)
def test_roles_must_alternate(broken):
    with pytest.raises(ValueError, match="conversation c: roles must alternate user, assistant"):
        alternate([broken], source="test")


# --- the paper's example (App. E.3), turn by turn


SYSTEM, ASKS, TELLS, AGAIN, LATER = (
    "You are Dolphin",
    "Baroque or Romantic?",
    "They differ.",
    "And in a quiz?",
    "Batons.",
)


def test_the_example_of_the_paper():
    example = said(
        ("system", SYSTEM), ("user", ASKS), ("assistant", TELLS), ("user", AGAIN), ("assistant", LATER)
    )  # fmt: skip
    (triplet,) = alternate([example], source="edu")
    assert triplet["prompt"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKS}]
    assert triplet["chosen"] == [{"role": "assistant", "content": TELLS}]  # response i
    assert triplet["rejected"] == [{"role": "assistant", "content": LATER}]  # response i + 2
    assert (triplet["turn_index"], triplet["conversation_id"], triplet["source"]) == (0, "c", "edu")
    assert alternate_any([example], source="edu")[0] == [triplet]

    # the next prompt is all that was said so far and the next question
    longer = Conversation(
        "c", (*example.messages, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."})
    )
    first, second = alternate([longer], source="edu")
    assert first == triplet
    assert second["prompt"] == list(example.messages[:4])
    assert [second[side][0]["content"] for side in ("chosen", "rejected")] == [LATER, "So."]
    # "a conversation of 3-4 turns will populate 2-3 triplets"
    assert [len(alternate([talk("abcdefgh"[: 2 * turns])], "edu")) for turns in (3, 4)] == [2, 3]


def test_the_example_as_printed(shared_data):
    """The conversation and the triplet as the paper's text prints them, one from the other."""
    printed = next((shared_data.parent / "seeds").glob("001_*.txt"), None)
    if printed is None:
        pytest.skip("the paper's text is absent")
    section = printed.read_text(encoding="utf-8").partition("Original Multi-turn Conversation")[2]
    dialogue, _, sample = section.partition("Extracted Preference Triplet Training Sample")
    marks = {"System:": "system", "User (Agent 2):": "user", "Assistant (Agent 1, Response i": "assistant"}
    turns = []
    for line in filter(None, dialogue.splitlines()):
        mark = next(mark for mark in marks if line.startswith(mark))
        turns.append((marks[mark], line.partition(": ")[2].strip()))
    (triplet,) = alternate([said(*turns)], source="edu")

    def plain(text):
        text = re.sub(r"<\|im_end\|>|<\|im_start\|>\w+|agent2:|```|\.\.\.", " ", text).replace("’", "'")
        return " ".join(text.split())

    prompt, chosen, rejected = (plain(block) for block in re.findall(r"```(.*?)```", sample, flags=re.DOTALL)[:3])
    assert plain(" ".join(message["content"] for message in triplet["prompt"])) == prompt
    # the paper shortens the replies: every piece it prints stands in ours, from the beginning on
    for side, shown in (("chosen", chosen), ("rejected", rejected)):
        ours = plain(triplet[side][0]["content"])
        assert ours.startswith(shown.split(". ")[0])
        assert len(shown) > 150
        assert shown[:150] == ours[:150]


# --- conversations as they are found


def test_rules_one_by_one():
    assert mend(said(("user", "a"), ("assistant", "b"), ("moderator", "c"))) == (None, ["unknown speaker"])
    cases = {
        "empty turns": [("user", "a"), ("assistant", " \n"), ("assistant", "b")],
        "late system message": [("user", "a"), ("system", "Be kind."), ("assistant", "b")],
        "opening of the tutor": [("assistant", "Hello!"), ("user", "a"), ("assistant", "b")],
        "unanswered student": [("user", "a"), ("assistant", "b"), ("user", "c")],
    }
    for rule, turns in cases.items():
        mended, rules = mend(said(*turns))
        assert (texts_of(mended), rules) == (["a", "b"], [rule]), rule
    mended, rules = mend(said(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", ""), ("assistant", "d")))
    assert (texts_of(mended), rules) == (["a\nb", "c\nd"], ["turns joined", "empty turns"])
    mended, rules = mend(said(("system", "s"), ("system", "t"), ("user", "a"), ("assistant", "b")))
    assert (texts_of(mended), rules) == (["s", "a", "b"], ["late system message"])
    assert mend(said(("user", "a"), ("assistant", "b")))[1] == []


anything = st.lists(
    st.tuples(st.sampled_from(["system", "S", "T", "T", "S", "X"]), st.sampled_from(["", "a", "b", " "])), max_size=14
)


@given(st.lists(anything, max_size=4))
def test_every_conversation_is_accounted_for(talks):
    named = [Conversation(str(i), tuple({"role": r, "content": c} for r, c in turns)) for i, turns in enumerate(talks)]
    triplets, report = alternate_any(named, "test", student="S", tutor="T")
    assert report.conversations == len(talks)
    assert report.triplets == len(triplets)
    assert report.triplets + report.ties == report.expected
    made = Counter(t["conversation_id"] for t in triplets)
    assert len(made) + sum(report.without.values()) == len(talks)
    assert report.without.get("unknown speaker", 0) == sum(any(r == "X" for r, _ in turns) for turns in talks)
    if triplets:
        validate(triplets)
    for one in named:
        mended, _ = mend(one, "S", "T")
        if mended is not None:  # mended once is mended, and what is in order stays as it is
            assert mend(mended) == (mended, [])
            assert alternate([mended], "test") == [t for t in triplets if t["conversation_id"] == one.conversation_id]


def test_real_conversations_give_a_minus_one_each(shared_data):
    talks, provenance = load_conversations(path=shared_data / "tutoring" / "dialogues.parquet")
    assert provenance.counts == {"conversations": 1734}
    total = Counter()
    for one in talks:
        triplets, report = alternate_any([one], "tutoring")
        assert len(triplets) + report.ties == max(report.replies - 1, 0)
        assert triplets or sum(report.without.values()) == 1
        # a reply is counted by hand: tutor's turns after the student's first word, runs of them as one
        roles = [m["role"] for m in one.messages if m["content"].strip()]
        runs = [role for k, role in enumerate(roles) if k == 0 or roles[k - 1] != role]
        assert (
            report.replies == runs[runs.index("user") :].count("assistant") if "user" in runs else report.replies == 0
        )
        total.update(triplets=len(triplets), ties=report.ties, expected=report.expected)
    assert total == {"triplets": 3125, "ties": 6, "expected": 3131}
    _, report = alternate_any(talks, "tutoring")
    assert report.mended == {
        "opening of the tutor": 1734,
        "unanswered student": 1460,
        "turns joined": 54,
        "empty turns": 6,
    }
    assert report.without == {"one reply": 335, "no reply": 373, "equal replies": 1}


# --- the earlier form


@given(conversations, st.integers(2, 4))
def test_first_utterance_gives_one_triplet(texts, steps):
    triplets = first_utterance([talk(texts)], "test", steps)
    assert bool(triplets) == (len(texts) > steps and texts[1] != texts[steps])
    for triplet in triplets:
        assert triplet["prompt"] == [{"role": "user", "content": texts[0]}]
        assert triplet["chosen"][0]["content"] == texts[1]
        assert triplet["rejected"] == [{"role": "assistant", "content": texts[steps]}]
        validate([triplet])


def test_three_steps_are_the_first_pair_of_the_strategy():
    one = said(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert first_utterance([one], "test", steps=3) == alternate([one], "test")
    assert first_utterance([one], "test")[0]["rejected"][0]["content"] == "c"  # as printed: the student's words
    with pytest.raises(ValueError, match="steps counts utterances after the query"):
        first_utterance([one], "test", steps=1)


# --- conversations in other people's words


def test_four_forms_read_alike():
    expected = Conversation("7", ({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}))
    for row in (
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"turns": [{"role": "student", "text": "Why?", "act": ""}, {"role": "tutor", "text": "So.", "act": "telling"}]},
        {"utterances": [["agent2", "Why?"], ["agent1", "So."]]},
    ):
        assert read_conversation(row, "7") == read_conversation(row | {"sample_id": 7}, "other") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "Why?"},
            "a conversation needs one of the columns messages, conversations, turns, utterances; found text",
        ),
        ({"messages": [{"role": "user", "content": "a"}, "b"]}, "conversation 7: turn 1 is no message"),
        ({"turns": [{"role": None, "text": "a"}]}, "conversation 7: turn 0 is no message"),
    ],
)
def test_what_is_no_conversation(row, message):
    with pytest.raises(ValueError, match=message):
        read_conversation(row, "7")
