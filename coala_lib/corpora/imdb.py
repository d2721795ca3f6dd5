"""Film reviews into pairs: the two readings of a recipe that is nowhere written out.

* "prefix", after DPO: the prompt is the first 2 to 8 words of a positive review, chosen its continuation, rejected the
  continuation of a negative review.
* "sentiment", after COALA's App. E.2 ("the prompt is either negative or positive"): the prompt asks for one sentiment,
  chosen is a review of that sentiment, rejected one of the other. Here the prompt decides which side is right.

Differs from the papers: DPO's two continuations are generated from one prefix and ranked by a classifier, and its
prefixes count tokens; these are human reviews with human labels, and count words. So a "prefix" pair also differs in
whether the reply fits its prompt. DPO-Convex prompts with film titles (its Section 4.1), which the data do not hold.
"""

import random
from collections.abc import Iterable
from typing import Any, Literal

from coala_lib.corpora.files import Row
from coala_lib.corpora.triplets import BadRow, TripletError, say

SHORTEST, LONGEST = 2, 8  # words of a prefix
_SENTIMENTS = ("negative", "positive")


def review_pairs(
    rows: Iterable[Row | BadRow],
    n_pairs: int = 11_000,
    seed: int = 0,
    recipe: Literal["prefix", "sentiment"] = "prefix",
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pair positive with negative reviews, each review at most once.

    Args:
        rows: reviews with `text` and `label` (1 positive, 0 negative), in any order.
        n_pairs: how many pairs to make at the most; COALA's App. E.2 states 11,000 rows.
        seed: of the pairing, the prefix lengths and the sentiments asked for; the order of the rows counts too.
        recipe: see the top of this file.

    Returns:
        (pairs in the one schema, each a conversation of its own; reason -> reviews left out).

    Raises:
        TripletError: where the recipe is unknown, or no review or no sentiment is there to pair.

    Example:
        >>> reviews = [{"text": f"{word} " * 20, "label": k} for k, word in enumerate(["bad", "good"])]
        >>> (pair,), _ = review_pairs(reviews, recipe="sentiment")
        >>> pair["prompt"][0]["content"], pair["chosen"][0]["content"][:3]
        ('Write a negative film review.', 'bad')
    """
    if recipe not in ("prefix", "sentiment"):
        raise TripletError(f"recipe is 'prefix' or 'sentiment'; got {recipe!r}")
    reviews: dict[int, list[tuple[int, list[str]]]] = {0: [], 1: []}
    left_out = {
        "no text or no label 0 or 1": 0,
        f"not longer than {LONGEST} words": 0,
        "no partner, or beyond n_pairs": 0,
    }
    for number, row in enumerate(rows):
        if isinstance(row, BadRow) or row.get("label") not in (0, 1) or not isinstance(row.get("text"), str):
            left_out["no text or no label 0 or 1"] += 1
            continue
        words = row["text"].replace("<br />", " ").split()
        if len(words) <= LONGEST:
            left_out[f"not longer than {LONGEST} words"] += 1
        else:
            reviews[row["label"]].append((number, words))
    n = min(n_pairs, *map(len, reviews.values()))
    if n < 1:
        raise TripletError("reviews of both labels are needed to make a pair; got none of one")
    left_out["no partner, or beyond n_pairs"] = sum(map(len, reviews.values())) - 2 * n

    rng = random.Random(f"imdb-{seed}")
    drawn = [rng.sample(reviews[label], n) for label in (0, 1)]
    return [_pair(rng, recipe, *both) for both in zip(*drawn, strict=True)], {k: v for k, v in left_out.items() if v}


def _pair(
    rng: random.Random, recipe: str, negative: tuple[int, list[str]], positive: tuple[int, list[str]]
) -> dict[str, Any]:
    if recipe == "prefix":
        cut = rng.randint(SHORTEST, LONGEST)
        asked, good, bad = " ".join(positive[1][:cut]), positive[1][cut:], negative[1][cut:]
    else:
        wanted = rng.randrange(2)
        asked, good, bad = (
            f"Write a {_SENTIMENTS[wanted]} film review.",
            (negative, positive)[wanted][1],
            (positive, negative)[wanted][1],
        )
    return {
        "prompt": say("user", asked),
        "chosen": say("assistant", " ".join(good)),
        "rejected": say("assistant", " ".join(bad)),
        "conversation_id": f"imdb-{positive[0]}-{negative[0]}",
        "turn_index": 0,
        "source": "imdb",
    }
