"""The whole right half of the pipeline on real text: film reviews seen by a real pretrained model, never by ours."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from coala_lib import CoalaHead
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.features import pooled_features
from coala_lib.lm.tokenizer import Encoded, encode, load_tokenizer

PAIRS, TOKENS = 240, 192
OFFLINE = Path(__file__).parents[2] / "notebooks" / "fixtures" / "edu-lm"


@pytest.fixture(scope="module", params=["TinyStories-656K", "offline"])
def pairs(shared, request):
    """split -> features of (positive, negative) reviews, one of each a pair."""
    model = OFFLINE if request.param == "offline" else shared / "models" / request.param
    reviews = shared / "data" / "imdb" / "imdb_subset.parquet"
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

    found = {split: (features(split, 1), features(split, 0)) for split in ("train", "test")}
    return found | {"least": LEAST[request.param]}


# the offline model has read nothing but tutors and students: of it nothing is asked but honest numbers
LEAST = {"TinyStories-656K": 0.55, "offline": 0.0}


def fit(chosen, rejected):
    return CoalaHead(n_gates=16, reg=0.2).fit_pairs(chosen, rejected)


def test_certified_head_reads_sentiment_and_its_control_does_not(pairs, record_property):
    positive, negative = pairs["train"]
    swap = np.random.default_rng(0).random((PAIRS, 1)) < 0.5
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    readers = {
        "head": fit(positive, negative),
        "random labels": fit(np.where(swap, negative, positive), np.where(swap, positive, negative)),
        "logistic": linear.fit(np.concatenate([positive, negative]), np.repeat([1, 0], PAIRS)),
    }
    found = {}
    for name, reader in readers.items():
        margins = reader.decision_function(pairs["test"][0]) - reader.decision_function(pairs["test"][1])
        found[name] = binomtest(int((margins > 0).sum()), PAIRS).proportion_ci(method="wilson")
        record_property(name, f"{(margins > 0).mean():.3f} [{found[name].low:.3f}, {found[name].high:.3f}]")
        print(f"{name:>14}: {(margins > 0).mean():.3f} [{found[name].low:.3f}, {found[name].high:.3f}]")
    head, control = readers["head"], readers["random labels"]
    assert head.certificate_.relative_gap <= 1e-3
    assert head.phase_two_.bound <= 1e-9
    assert found["head"].low <= head.score_pairs(*pairs["test"]) <= found["head"].high
    assert found["head"].low > pairs["least"]
    if pairs["least"]:
        assert found["head"].low > control.score_pairs(*pairs["test"])
    assert found["head"].high >= found["logistic"].low
