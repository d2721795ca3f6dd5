"""A generated world of film reviews, in which the sentiment of every text is known.

The sentiment task of the papers (IMDb, by DPO's recipe): the prompt is the opening of a review, the chosen
continuation has the wanted sentiment, the rejected one the opposite.

What makes it more than counting words: negation, near its word ("is not dull") or far from it ("I would not call the
plot dull"); concession ("the plot is dull, but the cast is vivid": what stands before "but" is set aside); and mixed
sentiment (a mention agrees with its review's label with probability `agree`).
Good and bad words pair up by length, so that length says nothing.

Differs from the papers: their reviews are written by people and scored by a classifier; ours are templates with an
exact oracle (`reviews_oracle`), and the rating in the opening can ask for either sentiment.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from coala_lib.corpora.conversation import Conversation
from coala_lib.corpora.triplets import Triplet

ASPECTS = tuple("plot acting music ending cast dialogue pace camera script humour lighting setting".split())
GOOD = tuple("bright gripping tender witty fresh graceful honest vivid warm clever daring moving".split())
BAD = tuple("clumsy tiresome hollow bland stale careless wooden messy dull boring feeble absent".split())
GOOD_VERDICTS, BAD_VERDICTS = ("great", "splendid", "superb"), ("awful", "dreadful", "dismal")

_SAID = ("the {a} is {w}", "the {a} seemed {w} to me", "I found the {a} {w}")
_DENIED = (
    "the {a} is not {w}",
    "the {a} never seemed {w} to me",
    "I would not call the {a} {w}",
    "nobody can say that the {a} is {w}",
)
_VERDICT = ("all in all, the film is {w}", "in the end I call this film {w}", "the film as a whole is {w}")
_TITLE = (
    "Quiet Silver Hidden Broken Northern Last Paper Winter",
    "Harbor Garden Road Letter Train Season Tower Island",
)
_TITLES = tuple(f"The {a} {b}" for a in _TITLE[0].split() for b in _TITLE[1].split())
_COMPANY = ("alone", "with my brother", "with two friends", "with my aunt", "on a rainy day", "after work")

Wanted = Literal["positive", "negative", "either"]


@dataclass(frozen=True)
class ReviewStyle:
    """How reviews are written, and which sentiment is wanted.

    Attributes:
        agree: chance q that a mention agrees with the review's label; 1 leaves no mixed sentiment.
        negation: chance that a mention denies the opposite word ("not dull") instead of saying the word.
        contrast: chance that a mention is preceded by a concession of opposite sentiment ("..., but ...").
        verdict: chance of a last sentence on the whole film, which always agrees with the label.
        mentions: (fewest, most) aspects a review.
        wanted: the sentiment of the chosen continuation. "either": the rating in the opening says which, so that
            no reply can be judged without its prompt.
        rating: chance that the opening states a rating of 1-4 or 7-10 of 10, in line with what is wanted.

    Raises:
        ValueError: naming the knob that is out of its range.

    Example:
        >>> ReviewStyle(agree=1.0, negation=0.0).mentions
        (3, 5)
    """

    agree: float = 0.85
    negation: float = 0.35
    contrast: float = 0.3
    verdict: float = 0.35
    mentions: tuple[int, int] = (3, 5)
    wanted: Wanted = "positive"
    rating: float = 0.5

    def __post_init__(self) -> None:
        for name in ("agree", "negation", "contrast", "verdict", "rating"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1]; got {getattr(self, name)}")
        if not 1 <= self.mentions[0] <= self.mentions[1] <= len(ASPECTS):
            raise ValueError(f"mentions is (fewest, most) within 1-{len(ASPECTS)}; got {self.mentions}")
        if self.wanted not in ("positive", "negative", "either"):
            raise ValueError(f"wanted is positive, negative or either; got {self.wanted!r}")
        if self.wanted == "either" and self.rating < 1:
            raise ValueError("wanted='either' needs rating=1: nothing else in the prompt says what is wanted")


# the rows of the calibration table: what turns words into a shortcut, and what takes it away
REVIEW_STYLES = {
    "default": ReviewStyle(),
    "plain": ReviewStyle(agree=1.0, negation=0.0, contrast=0.0),
    "no verdict": ReviewStyle(agree=1.0, verdict=0.0),
    "verdict": ReviewStyle(verdict=1.0),
    "either": ReviewStyle(wanted="either", rating=1.0),
}


def _mention(rng: random.Random, style: ReviewStyle, aspect: str, good: bool) -> str:
    denied = rng.random() < style.negation
    words = GOOD if good != denied else BAD
    return rng.choice(_DENIED if denied else _SAID).format(a=aspect, w=rng.choice(words))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _continuation(rng: random.Random, style: ReviewStyle, good: bool) -> str:
    """The body of a review with the label `good`."""
    aspects = iter(rng.sample(ASPECTS, len(ASPECTS)))
    sentences = []
    for _ in range(rng.randint(*style.mentions)):
        holds = good == (rng.random() < style.agree)
        text = _mention(rng, style, next(aspects), holds)
        if rng.random() < style.contrast:
            text = f"{_mention(rng, style, rng.choice(ASPECTS), not holds)}, but {text}"
        sentences.append(_sentence(text))
    if rng.random() < style.verdict:
        verdict = rng.choice(GOOD_VERDICTS if good else BAD_VERDICTS)
        sentences.append(_sentence(rng.choice(_VERDICT).format(w=verdict)))
    return " ".join(sentences)


def _opening(rng: random.Random, style: ReviewStyle, good: bool) -> str:
    text = f"I saw {rng.choice(_TITLES)} {rng.choice(_COMPANY)}."
    if rng.random() < style.rating:
        text += f" My rating is {rng.randint(7, 10) if good else rng.randint(1, 4)} of 10."
    return text


def _streams(kind: str, n: int, seed: int, style: ReviewStyle) -> Iterator[tuple[str, random.Random, bool]]:
    """Name, source of randomness and wanted sentiment of each of n reviews."""
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    rng = random.Random(f"{kind}-{seed}")
    for index in range(n):
        good = rng.random() < 0.5 if style.wanted == "either" else style.wanted == "positive"
        yield f"{kind}-{seed}-{index}", rng, good


def reviews(n: int, seed: int, style: ReviewStyle = REVIEW_STYLES["either"]) -> Iterator[Conversation]:
    """Stream `n` seeded reviews, each an opening and its continuation: text to train a language model on.

    Args:
        n: how many; at least 1.
        seed: equal seeds give equal streams.
        style: see `ReviewStyle`; the default writes good and bad reviews, each in line with the rating it states.

    Yields:
        `Conversation` objects of two messages, named `review-<seed>-<index>`.

    Raises:
        ValueError: where n < 1.

    Example:
        >>> opening, body = next(reviews(1, seed=0)).messages
        >>> opening["role"], body["role"]
        ('user', 'assistant')
    """
    for name, rng, good in _streams("review", n, seed, style):
        opening, body = _opening(rng, style, good), _continuation(rng, style, good)
        yield Conversation(name, ({"role": "user", "content": opening}, {"role": "assistant", "content": body}))


def review_pairs(n: int, seed: int, style: ReviewStyle = ReviewStyle()) -> Iterator[Triplet]:
    """Stream `n` seeded preference pairs: the same opening, continued as wanted and continued the other way.

    Where `agree` < 1 some chosen replies are no better than the rejected ones: the label says what was wanted, the
    oracle what was written.

    Args:
        n: how many; at least 1.
        seed: equal seeds give equal streams.
        style: see `ReviewStyle`.

    Yields:
        Triplets named `review-pair-<seed>-<index>`, with `turn_index` 0 and `source` "reviews".

    Raises:
        ValueError: where n < 1.

    Example:
        >>> pair = next(review_pairs(1, seed=0))
        >>> pair["prompt"][0]["content"]
        'I saw The Hidden Tower on a rainy day.'
    """
    for name, rng, good in _streams("review-pair", n, seed, style):
        opening = _opening(rng, style, good)
        chosen = rejected = _continuation(rng, style, good)
        while rejected == chosen:  # mixed sentiment can write the same short text twice
            rejected = _continuation(rng, style, not good)
        yield Triplet(
            prompt=[{"role": "user", "content": opening}],
            chosen=[{"role": "assistant", "content": chosen}],
            rejected=[{"role": "assistant", "content": rejected}],
            conversation_id=name,
            turn_index=0,
            source="reviews",
        )
