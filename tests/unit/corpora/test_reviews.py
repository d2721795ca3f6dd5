"""The review world, its knobs, and its oracle: what is denied turns round, what is conceded does not count."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_lib.corpora.reviews import (
    ASPECTS,
    BAD,
    BAD_VERDICTS,
    GOOD,
    GOOD_VERDICTS,
    REVIEW_STYLES,
    ReviewStyle,
    review_pairs,
    reviews,
)
from coala_lib.corpora.reviews_oracle import Reading, judge_review, read_review
from coala_lib.corpora.triplets import validate

CLEAN = ReviewStyle(agree=1.0, negation=0.0, contrast=0.0, verdict=0.0)


def body(pair, side="chosen"):
    return pair[side][0]["content"]


def opening(pair):
    return pair["prompt"][0]["content"]


# --- the world


def test_equal_seeds_give_equal_pairs():
    first = list(review_pairs(20, seed=1))
    assert first == list(review_pairs(30, seed=1))[:20] != list(review_pairs(20, seed=2))
    assert first[7]["conversation_id"] == "review-pair-1-7"
    validate(first)


def test_good_and_bad_words_are_equally_long():
    assert [len(word) for word in GOOD] == [len(word) for word in BAD]
    assert [len(word) for word in GOOD_VERDICTS] == [len(word) for word in BAD_VERDICTS]
    assert len({*GOOD, *BAD, *GOOD_VERDICTS, *BAD_VERDICTS, *ASPECTS}) == 2 * len(GOOD) + 6 + len(ASPECTS)


@pytest.mark.parametrize("wanted", ["positive", "negative"])
def test_a_clean_pair_says_what_is_wanted_and_the_opposite(wanted):
    style = ReviewStyle(**(vars(CLEAN) | {"wanted": wanted, "rating": 1.0}))
    for pair in review_pairs(50, 0, style):
        sign = 1 if wanted == "positive" else -1
        assert read_review(body(pair)).share == sign == -read_review(body(pair, "rejected")).share
        assert judge_review(pair["prompt"], body(pair)) == 1
        assert (int(re.search("rating is ([0-9]+) of 10", opening(pair))[1]) > 5) == (sign > 0)


def test_the_rating_says_what_is_wanted_where_it_can_be_either():
    pairs = list(review_pairs(400, 0, REVIEW_STYLES["either"]))
    scores = np.array([[judge_review(p["prompt"], body(p, side)) for side in ("chosen", "rejected")] for p in pairs])
    assert scores.mean(0)[0] > 0.6 > -0.6 > scores.mean(0)[1]
    assert 0.4 < np.mean([read_review(body(p)).share > 0 for p in pairs]) < 0.6


def test_reviews_agree_with_the_rating_they_state():
    shares = [judge_review(talk.messages[:1], talk.messages[1]["content"]) for talk in reviews(300, 0)]
    assert np.mean(shares) > 0.6


@pytest.mark.parametrize("agree", [0.5, 0.85, 1.0])
def test_agree_is_the_share_of_mentions(agree):
    style = ReviewStyle(agree=agree, verdict=0.0)
    readings = [read_review(body(pair)) for pair in review_pairs(1000, 0, style)]
    praised, faulted = (sum(getattr(reading, way) for reading in readings) for way in ("praised", "faulted"))
    assert praised / (praised + faulted) == pytest.approx(agree, abs=0.03)
    assert {r.praised + r.faulted for r in readings} == {3, 4, 5}


@pytest.mark.parametrize(
    ("knob", "sign"), [("negation", r"\b(not|never|[Nn]obody)\b"), ("contrast", ", but "), ("verdict", r"\bfilm\b")]
)
def test_a_knob_is_a_rate(knob, sign):
    def found(rate):
        style = ReviewStyle(**(vars(CLEAN) | {"mentions": (1, 1), knob: rate}))
        return np.mean([re.search(sign, body(pair)) is not None for pair in review_pairs(500, 0, style)])

    assert (found(0.0), found(1.0)) == (0, 1)
    assert found(0.3) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"agree": 1.1}, "agree"),
        ({"contrast": float("nan")}, "contrast"),
        ({"mentions": (0, 3)}, "mentions"),
        ({"mentions": (3, 13)}, "1-12"),
        ({"wanted": "fair"}, "fair"),
        ({"wanted": "either"}, "rating=1"),
    ],
)
def test_a_knob_out_of_its_range(without_annotations, knobs, message):
    with pytest.raises(ValueError, match=message):
        ReviewStyle(**knobs)


def test_no_reviews_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        next(review_pairs(0, seed=0))


# --- the oracle


@pytest.mark.parametrize(
    ("text", "praised", "faulted"),
    [
        ("The plot is bright.", 1, 0),
        ("The plot is not bright.", 0, 1),
        ("The plot isn't bright.", 0, 1),
        ("Nobody can say that the plot is dull.", 1, 0),
        ("Nobody can say that the plot is not dull.", 0, 1),
        ("I would not call the plot dull, but the cast is bland.", 0, 1),
        ("The plot is dull, but the cast is vivid.", 1, 0),
        ("The plot is dull. But the cast is vivid.", 1, 1),
        ("The plot is dull, but the cast is bland, but the music is warm.", 1, 0),
        ("The plot is not dull and the cast is vivid.", 2, 0),
        ("The plot: bright, gripping!", 2, 0),
        ("THE PLOT IS DULL", 0, 1),
        ("All in all, the film is dreadful.", 0, 1),
        ("It is dull.", 0, 0),
        ("The butter is dull and the plotting bright.", 0, 0),
        ("dull plot", 0, 1),
        ("The plot is bright but", 0, 0),
        ("", 0, 0),
    ],
)
def test_hand_made_reviews(text, praised, faulted):
    assert read_review(text) == Reading(praised, faulted)


@pytest.mark.parametrize(
    ("rating", "reward"),
    [("My rating is 2 of 10.", 1.0), ("My rating is 10 of 10.", -1.0), ("", -1.0), ("My rating is 11 of 10.", -1.0)],
)
def test_the_last_rating_turns_the_reward_round(rating, reward):
    assert judge_review([{"role": "user", "content": f"I saw it. {rating}"}], "The plot is dull.") == reward


words = st.sampled_from("the plot is not dull bright , . but never film great rating of 10 3 ! isn't".split())
texts = st.text(max_size=80) | st.lists(words, max_size=25).map(" ".join)


@given(texts, texts)
def test_any_text_is_judged(prompt, reply):
    assert -1 <= judge_review([{"role": "user", "content": prompt}], reply) <= 1
    reading = read_review(reply)
    assert min(reading.praised, reading.faulted) >= 0
    assert reading.praised + reading.faulted <= len(re.findall("[a-z]+", reply.lower()))
