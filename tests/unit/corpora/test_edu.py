"""The tutor world, its knobs and its oracle; that no shortcut works in it stands in numerics/test_worlds.py."""

import hashlib
import itertools
import json
import re
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_lib.corpora.edu import RELATIONS, Style, conversations, make_world
from coala_lib.corpora.edu_facts import FAREWELLS, GREETINGS, STUDENT_MOODS, TUTOR_MOODS
from coala_lib.corpora.edu_oracle import asked, judge
from coala_lib.corpora.edu_pairs import EDU_DIFFICULTIES, Difficulty, edu_pairs

WORLD = make_world(0)
CONCEPT, NEIGHBOUR = "coupled oscillator", "coupled pendulum"


@pytest.fixture(scope="module")
def talks():
    return list(conversations(WORLD, n=800, seed=5))


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


# The committed language model has read these streams: whoever changes one has to train it again.
@pytest.mark.parametrize(
    ("error_rate", "digest"),
    [
        (0.0, "f9bdc470b51e7bdcfc7b80b3e4619fe6ff6679f3058eb56468e705b798ddc1b3"),
        (0.3, "301f621a5404f03d5ecc2e01c9e025ba97b7287b8afff5df42030fcd9fcd5690"),
    ],
)
def test_the_default_stream_is_what_the_model_has_read(error_rate, digest):
    found = hashlib.sha256()
    for talk in conversations(WORLD, n=200, seed=1, error_rate=error_rate):
        found.update(json.dumps([talk.conversation_id, list(talk.messages)]).encode() + b"\n")
    assert found.hexdigest() == digest


# --- the knobs


def said(role, **knobs):
    talks = conversations(WORLD, n=200, seed=3, style=Style(**knobs))
    return [[m["content"] for m in talk.messages if m["role"] == role] for talk in talks]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def test_temperature_changes_words_and_nothing_else():
    cold, hot = (list(conversations(WORLD, 200, 3, style=Style(temperature=(t, t)))) for t in (0.05, 5.0))
    assert cold != hot
    topics = [[asked(talk.messages[:k], WORLD) for talk in talks for k in (1, 3)] for talks in (cold, hot)]
    assert topics[0] == topics[1]
    # a cold speaker asks in the first of three phrasings always, a hot one in each about as often
    firsts = [
        np.mean([m["content"].lower().count("what is the") for talk in talks for m in talk.messages])
        for talks in (cold, hot)
    ]
    assert firsts[0] > 1.5 * firsts[1]


def test_moods():
    calm = "".join(flat(said("assistant", tutor_moods=("plain",))))
    assert not any(words in calm for mood in ("warm", "strict", "playful") for words in TUTOR_MOODS[mood] if words)
    brisk = "".join(flat(said("user", student_moods=("brisk",))))
    assert "Quick one." in brisk
    assert not any(words in brisk for words in STUDENT_MOODS["worried"] if words)


def test_rounds():
    assert {len(replies) for replies in said("assistant", rounds=(3, 5))} == {3, 4, 5}


def test_pronouns():
    without = flat(said("user", student_pronoun=0.0)) + flat(said("assistant", tutor_pronoun=0.0, second_fact=0.0))
    values = "|".join(sorted(set(WORLD.facts.values())))
    assert not any(re.search(r"\bit\b", re.sub(values, "", text.lower())) for text in without)
    with_it = flat(said("assistant", tutor_pronoun=1.0))
    assert not any(f"the {concept}" in text.lower() for text in with_it for concept in WORLD.subject_of)


def test_second_and_shared_facts():
    assert not any("Also" in text for text in flat(said("assistant", second_fact=0.0)))
    assert all("Also" in text for text in flat(said("assistant", second_fact=1.0)))
    seen = 0
    for talk in conversations(WORLD, 100, 3, style=Style(second_fact=0.0, shared=1.0)):
        topics = [asked(talk.messages[:k], WORLD) for k in range(1, len(talk.messages), 2)]
        for topic, reply in zip(topics, talk.messages[1::2], strict=True):
            others = [fact(*other) for other in topics if other != topic]
            if others:
                assert any(reply["content"].endswith(f"{value}.") for value in others)
                seen += 1
    assert seen > 200


@pytest.mark.parametrize(("same", "near", "seen"), [(1.0, 0.0, {0}), (0.0, 1.0, {1}), (0.0, 0.0, set(range(1, 10)))])
def test_the_next_topic(same, near, seen):
    steps = set()
    for talk in conversations(WORLD, 200, 3, style=Style(same=same, near=near)):
        concepts = [asked(talk.messages[:k], WORLD)[0] for k in range(1, len(talk.messages), 2)]
        family = WORLD.subjects[WORLD.subject_of[concepts[0]]]
        steps |= {abs(family.index(a) - family.index(b)) for a, b in itertools.pairwise(concepts)}
    assert steps == seen


def test_greeting_and_farewell_tell_the_position():
    for replies in said("assistant", greeting=1.0, farewell=1.0):
        assert [reply.startswith(GREETINGS) for reply in replies] == [True] + [False] * (len(replies) - 1)
        assert [reply.endswith(FAREWELLS) for reply in replies] == [False] * (len(replies) - 1) + [True]
    half = [replies[0].startswith(GREETINGS) for replies in said("assistant", greeting=0.5)]
    assert 0.4 < np.mean(half) < 0.6


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"temperature": (0.0, 1.0)}, "temperature"),
        ({"temperature": (0.9, 0.2)}, "temperature"),
        ({"rounds": (0, 2)}, "rounds"),
        ({"student_moods": ()}, "student_moods"),
        ({"tutor_moods": ("rude",)}, "rude"),
        ({"tutor_pronoun": 1.5}, "tutor_pronoun"),
        ({"greeting": float("nan")}, "greeting"),
        ({"same": 0.7, "near": 0.4}, "same . near"),
    ],
)
def test_a_knob_out_of_its_range(knobs, message):
    with pytest.raises(ValueError, match=message):
        Style(**knobs)


@pytest.mark.parametrize("name", EDU_DIFFICULTIES)
def test_difficulties_give_pairs_whose_chosen_reply_is_right(name):
    difficulty = EDU_DIFFICULTIES[name]
    pairs = edu_pairs(WORLD, 60, 4, difficulty)
    assert pairs == edu_pairs(WORLD, 60, 4, difficulty) != edu_pairs(WORLD, 60, 5, difficulty)
    scores = [
        [judge(p["prompt"], p[side][0]["content"], WORLD).reward for p in pairs] for side in ("chosen", "rejected")
    ]
    assert (np.mean(scores[0]) == 1) == (difficulty.error_rate == 0)
    assert np.mean(scores[0]) > np.mean(scores[1]) + 0.3


def test_a_reply_rejected_elsewhere_is_chosen_nowhere():
    default, elsewhere = (edu_pairs(WORLD, 80, 4, Difficulty(rejected=kind)) for kind in ("later", "elsewhere"))
    assert [(p["prompt"], p["chosen"]) for p in default] == [(p["prompt"], p["chosen"]) for p in elsewhere]
    rejected = [p["rejected"][0]["content"] for p in elsewhere]
    chosen = {p["chosen"][0]["content"] for p in elsewhere}
    # a few short replies can be said twice in the world
    assert np.mean([text in chosen for text in rejected]) < 0.15


def test_difficulties_refuse(without_annotations):
    with pytest.raises(ValueError, match="later"):
        replace(EDU_DIFFICULTIES["default"], rejected="never")
    with pytest.raises(ValueError, match="at least 0"):
        edu_pairs(WORLD, 3, -1)


# --- the oracle


def test_every_reply_of_an_honest_tutor_is_right(talks):
    turns = [
        (talk.messages[:k], talk.messages[k]["content"]) for talk in talks for k in range(1, len(talk.messages), 2)
    ]
    assert len(turns) >= 2000
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


@pytest.mark.parametrize("piece", ["a", "is ", "it is ", "people wrongly take a for ", "?", "the ", "\u0130 "])
def test_hostile_lengths_take_linear_time(piece):
    text = piece * (300_000 // len(piece))
    start = time.process_time()
    assert judge(ask(f"where does {text}?"), text + "9", WORLD).reward == 0
    assert judge(ask(text), text, WORLD).reward == 0
    assert time.process_time() - start < 10  # a quadratic reading would take hours


@given(st.text("xyzXYZ09 .,!?;\n\"'-", max_size=60))
def test_malformed_text_scores_zero(reply):
    assert judge(ask(f"What does the {CONCEPT} depend on?"), reply, WORLD).reward == 0
