"""What gives the generated worlds away: probes that see the replies alone, and the head that reads the prompt too."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import diags_array
from scipy.stats import binomtest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from coala_lib import CoalaHead
from coala_lib.corpora.edu import make_world
from coala_lib.corpora.edu_pairs import EDU_DIFFICULTIES, edu_pairs
from coala_lib.corpora.reviews import REVIEW_STYLES, review_pairs

WORLD = make_world(0)
MODEL = Path(__file__).parents[2] / "notebooks" / "fixtures" / "edu-lm"
CONVERSATIONS, REVIEWS = 800, 2000  # about 1,600 and 2,000 pairs to learn from, as many to be judged on


def draw(world, name, seed):
    if world == "edu":
        return edu_pairs(WORLD, CONVERSATIONS, seed, EDU_DIFFICULTIES[name])
    return list(review_pairs(REVIEWS, seed, REVIEW_STYLES[name]))


def replies(pairs, side):
    return [pair[side][0]["content"] for pair in pairs]


def lengths(train):
    return lambda texts: np.array([[len(text), len(text.split())] for text in texts], float)


def words(train):
    return CountVectorizer(min_df=2).fit(replies(train, "chosen") + replies(train, "rejected")).transform


def bigrams(train):
    counter = CountVectorizer(ngram_range=(1, 2), min_df=2)
    return counter.fit(replies(train, "chosen") + replies(train, "rejected")).transform


def interval(right):
    """95 % Wilson interval of a share of pairs."""
    return binomtest(int(np.sum(right)), len(right)).proportion_ci(method="wilson")


def probe(kind, train, test):
    """Which held-out pairs a linear probe orders rightly; conversations of two seeds have nothing in common."""
    view = kind(train)
    rows, held_out = (view(replies(pairs, "chosen")) - view(replies(pairs, "rejected")) for pairs in (train, test))
    # every second pair turned round, so that the probe has two classes
    signs = np.where(np.arange(len(train)) % 2, 1.0, -1.0)
    model = LogisticRegression(fit_intercept=False, C=0.1).fit(diags_array(signs) @ rows, signs)
    return model.decision_function(held_out) > 0


# where the whole interval has to lie: length, words, bigrams
CHANCE = (0.45, 0.55)
BANDS = {
    ("edu", "default"): (CHANCE, CHANCE, CHANCE),
    ("edu", "elsewhere"): (CHANCE, CHANCE, CHANCE),
    ("edu", "shared facts"): (CHANCE, CHANCE, CHANCE),
    ("edu", "greetings"): ((0.45, 0.58), (0.88, 0.95), (0.88, 0.95)),
    ("reviews", "default"): (CHANCE, (0.79, 0.88), (0.83, 0.91)),
    ("reviews", "no verdict"): (CHANCE, (0.65, 0.76), (0.78, 0.88)),
    ("reviews", "plain"): (CHANCE, (0.995, 1.0), (0.995, 1.0)),
    ("reviews", "verdict"): (CHANCE, (0.99, 1.0), (0.99, 1.0)),
    ("reviews", "either"): (CHANCE, CHANCE, CHANCE),
}


# thousands of small calls: checking each one's annotations would be most of the time
@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(("world", "name"), BANDS, ids=[" ".join(key) for key in BANDS])
def test_a_probe_of_the_replies_sees_what_it_should(world, name):
    train, test = draw(world, name, seed=1), draw(world, name, seed=2)
    found = [interval(probe(kind, train, test)) for kind in (lengths, words, bigrams)]
    for (low, high), seen in zip(BANDS[world, name], found, strict=True):
        assert low <= seen.low
        assert seen.high <= high


def test_the_head_reads_relevance_where_words_cannot():
    from coala_lib.lm.checkpoint import load_decoder
    from coala_lib.lm.features import pooled_features
    from coala_lib.lm.tokenizer import encode, load_tokenizer

    train, test = (edu_pairs(WORLD, 100, seed) for seed in (1000, 2000))
    decoder, tokenizer = load_decoder(MODEL), load_tokenizer(MODEL)
    sides = itertools.product((train, test), ("chosen", "rejected"))
    features = [
        pooled_features(decoder, [encode(tokenizer, p["prompt"], p[side]) for p in pairs]) for pairs, side in sides
    ]
    head = CoalaHead(n_gates=16, reg=0.05, tol=1e-2, random_state=0).fit_pairs(*features[:2])
    by_head = interval(head.decision_function(features[2]) > head.decision_function(features[3]))
    by_words = interval(probe(words, train, test))
    assert by_words.low < 0.5 < by_words.high
    assert by_head.low > max(0.6, by_words.high)
