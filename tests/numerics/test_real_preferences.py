"""Real judgments: AlpacaEval's pairs, split by prompt, through two small models that know nothing of such text.

What is tested is the pipeline and its honesty, not that anyone wins: every number has an interval, and beside the head
stand logistic regression on the same features, the length of the reply, and the side that wins more often.
"""

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
from coala_lib.preference.verify import verify_pairs

PAIRS, TOKENS = 240, 160
OFFLINE = Path(__file__).parents[2] / "notebooks" / "fixtures" / "edu-lm"


@pytest.fixture(scope="module")
def table(shared):
    path = shared / "data" / "alpaca_eval" / "pairs.parquet"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    pairs = pd.read_parquet(path)
    # one pair a prompt, so that the pairs are independent
    one = pairs[pairs.benchmark == "alpaca_eval_2"].groupby("prompt", sort=True).sample(1, random_state=0)
    return {split: one[one.split == split].iloc[:PAIRS] for split in ("train", "test")}


@pytest.fixture(scope="module", params=["offline", "TinyStories-656K"])
def features(request, table, shared):
    folder = OFFLINE if request.param == "offline" else shared / "models" / request.param
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    decoder, tokenizer = load_decoder(folder), load_tokenizer(folder)

    def read(prompt, reply):
        both = encode(
            tokenizer,
            [{"role": "user", "content": prompt[:200]}],
            [{"role": "assistant", "content": reply[:800]}],
        )
        start = max(0, both.n_prompt - TOKENS // 2)
        return Encoded(both.ids[start : start + TOKENS], both.n_prompt - start)

    return {
        split: [pooled_features(decoder, [read(*row) for row in zip(t.prompt, t[side], strict=True)]) for side in SIDES]
        for split, t in table.items()
    }


SIDES = ("chosen", "rejected")


def right(chosen, rejected):
    """(share, low, high) of the pairs with the chosen one ahead, Wilson's interval at 95 %; ties count as wrong."""
    wins = int((np.asarray(chosen) > np.asarray(rejected)).sum())
    interval = binomtest(wins, len(chosen)).proportion_ci(method="wilson")
    return wins / len(chosen), interval.low, interval.high


def test_a_head_on_real_judgments(features, table, record_property, request):
    assert set(table["train"].prompt).isdisjoint(table["test"].prompt)
    train, test = features["train"], features["test"]
    head = CoalaHead(n_gates=16, reg=0.3).fit_pairs(*train)
    assert verify_pairs(head, *train).gap <= 1e-3 * head.certificate_.dual
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    linear.fit(np.concatenate(train), np.repeat([1, 0], [len(X) for X in train]))
    coin = np.random.default_rng(0).random((len(train[0]), 1)) < 0.5
    control = CoalaHead(n_gates=16, reg=0.3).fit_pairs(np.where(coin, *train), np.where(coin, *train[::-1]))
    # the side that wins more often in training, the evaluated model or the baseline, named for every test pair
    baseline = {split: (t.chosen_model == t.baseline).to_numpy() for split, t in table.items()}
    usual = baseline["train"].mean() > 0.5
    found = {
        "head": right(*map(head.decision_function, test)),
        "logistic": right(*map(linear.decision_function, test)),
        "length": right(*(table["test"][side].str.len() for side in SIDES)),
        "majority": right(baseline["test"] == usual, np.zeros(len(test[0]), bool)),
        "random labels": right(*map(control.decision_function, test)),
    }
    for name, (share, low, high) in found.items():
        record_property(name, f"{share:.3f} [{low:.3f}, {high:.3f}]")
        print(f"{name:>14}: {share:.3f} [{low:.3f}, {high:.3f}]")
        assert 0 < low < share < high < 1
    # the labels leave a trace in training, and a head of random labels knows nothing of held-out pairs
    assert head.score_pairs(*train) > 0.6
    assert found["random labels"][1] < 0.5 < found["random labels"][2] + 0.05
    # two readers of one set of features: their intervals overlap
    assert found["head"][1] <= found["logistic"][2]
    assert found["logistic"][1] <= found["head"][2]
