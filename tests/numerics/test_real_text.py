"""The whole right half of the pipeline on real text: film reviews seen by a real pretrained model, never by ours."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from coala_lib import CoalaHead
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.features import pooled_features
from coala_lib.lm.tokenizer import Encoded, encode, load_tokenizer

PAIRS, TOKENS = 240, 192


@pytest.fixture(scope="module")
def pairs(shared):
    """split -> features of (positive, negative) reviews, one of each a pair."""
    model, reviews = shared / "models" / "TinyStories-656K", shared / "data" / "imdb" / "imdb_subset.parquet"
    for path in (model, reviews):
        if not path.exists():
            pytest.skip(f"{path} is absent")
    decoder, tokenizer, table = load_decoder(model), load_tokenizer(model), pd.read_parquet(reviews)

    def read(text):
        both = encode(
            tokenizer,
            [{"role": "user", "content": "Review:"}],
            [{"role": "assistant", "content": text.replace("<br />", " ")[:1500]}],
        )
        return Encoded(both.ids[:TOKENS], both.n_prompt)

    def features(split, label):
        texts = table[(table.split == split) & (table.label == label)].text[:PAIRS]
        return pooled_features(decoder, [read(text) for text in texts])

    return {split: (features(split, 1), features(split, 0)) for split in ("train", "test")}


def fit(chosen, rejected):
    return CoalaHead(n_gates=16, reg=0.2).fit_pairs(chosen, rejected)


def test_certified_head_reads_sentiment_and_its_control_does_not(pairs):
    head = fit(*pairs["train"])
    assert head.certificate_.relative_gap <= 1e-3
    assert head.phase_two_.bound <= 1e-9
    margins = head.decision_function(pairs["test"][0]) - head.decision_function(pairs["test"][1])
    interval = binomtest(int((margins > 0).sum()), PAIRS).proportion_ci(method="wilson")
    assert interval.low <= head.score_pairs(*pairs["test"]) <= interval.high

    positive, negative = pairs["train"]
    swap = np.random.default_rng(0).random((PAIRS, 1)) < 0.5
    control = fit(np.where(swap, negative, positive), np.where(swap, positive, negative))
    assert interval.low > 0.55
    assert interval.low > control.score_pairs(*pairs["test"])
