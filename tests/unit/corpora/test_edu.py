"""The tutor world: its oracle, and that no shortcut separates a good reply from a bad one."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import diags_array
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict

from coala_lib.corpora.alternating import alternate
from coala_lib.corpora.edu import RELATIONS, Conversation, conversations, make_world
from coala_lib.corpora.edu_oracle import asked, judge

WORLD = make_world(0)
CONCEPT, NEIGHBOUR = "coupled oscillator", "coupled pendulum"


@pytest.fixture(scope="module")
def talks():
    return list(conversations(WORLD, n=2000, seed=5))


def ask(question, *history):
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": next(roles), "content": text} for text in (*history, question)]


def fact(concept, relation):
    return WORLD.facts[concept, relation]


# --- the world


def test_equal_seeds_give_equal_worlds_and_talks():
    assert make_world(3) == make_world(3) != make_world(4)
    first = list(conversations(WORLD, n=5, seed=1))
    assert first == list(conversations(WORLD, n=8, seed=1))[:5]
    assert first[0].messages != next(conversations(WORLD, n=1, seed=2)).messages
    assert [talk.conversation_id for talk in first] == [f"edu-1-{i}" for i in range(5)]


def test_size_of_the_world(talks):
    assert len(WORLD.subjects) == 11
    assert all(len(set(concepts)) == 10 for concepts in WORLD.subjects.values())
    assert len(WORLD.facts) == 770
    assert Counter(len(talk.messages) for talk in talks).keys() == {4, 6, 8}


def test_names_and_values_are_shared():
    for concepts in WORLD.subjects.values():
        assert all(set(a.split()) & set(b.split()) for a, b in itertools.pairwise(concepts))
    for name, relation in RELATIONS.items():
        told = {fact(concept, name) for concept in WORLD.subject_of}
        assert told == set(relation.values)


@pytest.mark.parametrize(("n", "rate", "message"), [(0, 0.0, "at least 1"), (1, 1.5, "probability"), (1, -0.1, "prob")])
def test_out_of_range(n, rate, message):
    with pytest.raises(ValueError, match=message):
        next(conversations(WORLD, n=n, seed=0, error_rate=rate))


# --- the oracle


def test_every_reply_of_an_honest_tutor_is_right(talks):
    turns = [
        (talk.messages[:k], talk.messages[k]["content"]) for talk in talks for k in range(1, len(talk.messages), 2)
    ]
    assert len(turns) >= 4000
    for prompt, reply in turns:
        judgement = judge(prompt, reply, WORLD)
        assert (judgement.reward, judgement.truthful) == (1.0, True), (prompt, reply, judgement)
        assert (judgement.concept, judgement.relation) == asked(prompt, WORLD)


def test_an_erring_tutor_is_caught():
    judgements = [
        judge(talk.messages[:k], talk.messages[k]["content"], WORLD)
        for talk in conversations(WORLD, n=500, seed=6, error_rate=1.0)
        for k in range(1, len(talk.messages), 2)
    ]
    assert {j.reward for j in judgements} == {1.0, 0.5, 0.25}
    # "it" can hide another concept: such a reply is relevant, and its value is right by chance only
    hidden = [j.truthful for j in judgements if j.reward == 1.0]
    assert len(hidden) < 0.25 * len(judgements)
    assert np.mean(hidden) < 0.25


@pytest.mark.parametrize(
    ("reply", "reward", "truthful"),
    [
        (f"It depends on {fact(CONCEPT, 'depend')}.", 1.0, True),
        (f"the {CONCEPT} is controlled by {fact(CONCEPT, 'depend')}", 1.0, True),
        ("It depends on the phase of the moon.", 1.0, False),
        (f"It is {fact(CONCEPT, 'define')}.", 0.5, True),
        ("The coupled oscillator comes from thin air.", 0.5, False),
        (f"The {NEIGHBOUR} depends on {fact(NEIGHBOUR, 'depend')}.", 0.25, True),
        (f"The {NEIGHBOUR} is {fact(NEIGHBOUR, 'define')}.", 0.0, True),
        ("The purple elephant depends on its mood.", 0.0, None),
        # the first statement counts, greetings and second facts do not
        (f"Good question. It depends on {fact(CONCEPT, 'depend')}. Also, it is {fact(CONCEPT, 'define')}.", 1.0, True),
        (f"It is {fact(CONCEPT, 'define')}. Also, it depends on {fact(CONCEPT, 'depend')}.", 0.5, True),
        ("Depends it on.", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_hand_made_replies(reply, reward, truthful):
    judgement = judge(ask(f"What does the {CONCEPT} depend on?"), reply, WORLD)
    assert (judgement.reward, judgement.truthful) == (reward, truthful)


def test_pronouns_of_the_student_mean_the_concept_named_last():
    prompt = ask("Thanks. What is it used for?", f"What is the {NEIGHBOUR}?", "It is big.")
    assert asked(prompt, WORLD) == (NEIGHBOUR, "use")
    # names in the tutor's turns are not the student's
    prompt = ask("What is it used for?", f"What is the {NEIGHBOUR}?", f"What is the {CONCEPT}?")
    assert asked(prompt, WORLD) == (NEIGHBOUR, "use")
    assert asked(ask("Hello there."), WORLD) == (None, None)
    assert judge(ask("Hello there."), f"It is {fact(CONCEPT, 'define')}.", WORLD).reward == 0


words = st.sampled_from("it the is means depends on also , . ? ! coupled oscillator pendulum used for".split())
texts = st.text(max_size=60) | st.lists(words, max_size=20).map(" ".join)


@given(texts, texts)
def test_any_text_is_judged(question, reply):
    judgement = judge(ask(question), reply, WORLD)
    assert judgement.reward in {0, 0.25, 0.5, 1}
    assert judge(ask(f"What does the {CONCEPT} depend on?"), question, WORLD).reward in {0, 0.25, 0.5, 1}


@given(st.text("xyzXYZ09 .,!?;\n\"'-", max_size=60))
def test_malformed_text_scores_zero(reply):
    assert judge(ask(f"What does the {CONCEPT} depend on?"), reply, WORLD).reward == 0


# --- probes: can a shortcut tell chosen from rejected?


def pair_accuracy(features, triplets):
    """Held-out pair accuracy of a linear probe, each conversation on one side of every fold."""
    chosen, rejected = ([t[side][0]["content"] for t in triplets] for side in ("chosen", "rejected"))
    # every second pair turned round, so that the probe has two classes
    signs = np.where(np.arange(len(triplets)) % 2, 1.0, -1.0)
    rows = diags_array(signs) @ features(chosen, rejected)
    groups = [t["conversation_id"] for t in triplets]
    model = LogisticRegression(fit_intercept=False, C=0.1)
    return float(np.mean(cross_val_predict(model, rows, signs, groups=groups, cv=GroupKFold(4)) == signs))


def lengths(chosen, rejected):
    return np.array([[len(a) - len(b), len(a.split()) - len(b.split())] for a, b in zip(chosen, rejected, strict=True)])


def counts(ngram):
    def features(chosen, rejected):
        counter = CountVectorizer(ngram_range=(1, ngram), min_df=2).fit(chosen + rejected)
        return (counter.transform(chosen) - counter.transform(rejected)).tocsr()

    return features


PROBES = {"length": lengths, "bag of words": counts(1), "bigrams": counts(2)}


@pytest.mark.parametrize("name", PROBES)
def test_no_shortcut(talks, name):
    triplets = alternate(talks, source="edu")
    assert 3500 < len(triplets) < 4500
    assert pair_accuracy(PROBES[name], triplets) == pytest.approx(0.5, abs=0.03)


def test_the_probe_sees_a_shortcut_where_there_is_one(talks):
    def farewell(talk):
        *before, last = talk.messages
        return Conversation(
            talk.conversation_id, (*before, last | {"content": last["content"] + " Goodbye, come again soon."})
        )

    triplets = alternate(map(farewell, talks), source="edu")
    assert pair_accuracy(PROBES["bag of words"], triplets) > 0.7
    assert pair_accuracy(PROBES["length"], triplets) > 0.6
