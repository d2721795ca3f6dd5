"""Heads on real preference pairs and real checkpoints: writes the JSON that the chapter on Phase I shows.

    python -m benchmarks.real_pairs DATA MODELS

DATA and MODELS hold the data sets and checkpoints named below, which do not belong to this repository. Only counts,
rates and intervals leave this script, never a text. No prompt stands on both sides of a split; head and logistic
regression choose their strengths on the same third of the training pairs, and are judged once.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import results
from coala_lib import CoalaHead
from coala_lib.corpora.probes import right
from coala_lib.corpora.rates import gain, rate
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.features import pooled_features
from coala_lib.lm.tokenizer import Encoded, encode, load_tokenizer

FIXTURES = Path(__file__).parents[1] / "notebooks" / "fixtures"
TARGET = FIXTURES / "real_pairs.json"
CHECKPOINTS = ("edu-lm", "TinyStories-656K", "stories260K")
SOURCES = {
    "AlpacaEval 2": "github.com/tatsu-lab/alpaca_eval, one judged pair a prompt, CC BY-NC 4.0",
    "IMDb": "Maas et al. 2011, a positive review chosen over a negative one drawn at random, for research",
}
TRAIN, TOKENS, GATES, TOL, COINS = 480, 160, 16, 1e-2, 5
SHARES, PENALTIES = (0.5, 0.3, 0.2, 0.1), (1e-3, 1e-2, 1e-1, 1.0)
SIDES = ("chosen", "rejected")


def alpaca(folder: Path) -> pd.DataFrame:
    """One judged pair for each of the 805 prompts, in an order that the prompts' hashes give."""
    pairs = pd.read_parquet(folder / "alpaca_eval" / "pairs.parquet")
    one = pairs[pairs.benchmark == "alpaca_eval_2"].groupby("prompt", sort=True).sample(1, random_state=0)
    one["usual"] = one.chosen_model == one.baseline
    return one.sort_values("prompt", key=lambda prompts: prompts.map(lambda p: hashlib.sha256(p.encode()).hexdigest()))


def imdb(folder: Path, n_train: int = TRAIN, n_test: int = 400) -> pd.DataFrame:
    """Reviews of the training split in pairs, then reviews of the test split; no review stands twice."""
    reviews = pd.read_parquet(folder / "imdb" / "imdb_subset.parquet").sample(frac=1, random_state=0)
    found = []
    for split, n in (("train", n_train), ("test", n_test)):
        sides = [reviews[(reviews.split == split) & (reviews.label == label)].text[:n] for label in (1, 0)]
        found.append(pd.DataFrame(dict(zip(SIDES, (side.to_list() for side in sides), strict=True))))
    return pd.concat(found).assign(prompt="Please write a review of the film.", usual=None)


def cut(both: Encoded) -> Encoded:
    """The end of the prompt, at most half of the tokens, and the beginning of the reply."""
    start = max(0, both.n_prompt - TOKENS // 2)
    return Encoded(both.ids[start : start + TOKENS], both.n_prompt - start)


def read(tokenizer: Any, prompt: str, reply: str) -> Encoded:
    """The end of the prompt and the beginning of the reply, as many tokens as a small model reads well."""
    messages = [{"role": "user", "content": prompt[:200]}], [{"role": "assistant", "content": reply[:800]}]
    return cut(encode(tokenizer, *messages))


def hits(score: Any, pairs: list) -> np.ndarray:
    """Whether each pair is ordered rightly."""
    return right(np.subtract(*(np.asarray(score(side), float) for side in pairs)))


def best_probe(probes: list[Pipeline], train: list, choice: list) -> Pipeline:
    """The probe with the highest pair accuracy on the pairs that choose."""
    labels = np.repeat([1, -1], [len(side) for side in train])
    rows = [*train[0], *train[1]]
    fitted = [probe.fit(rows, labels) for probe in probes]
    return max(fitted, key=lambda probe: hits(probe.decision_function, choice).mean())


def measured(table: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """One checkpoint on one data set."""
    decoder, tokenizer = load_decoder(folder), load_tokenizer(folder)
    rows = [[read(tokenizer, *row) for row in zip(table.prompt, table[side], strict=True)] for side in SIDES]
    # a reply of which the tokenizer leaves nothing has no features
    whole = np.array([all(one.n_prompt < len(one.ids) for one in pair) for pair in zip(*rows, strict=True)])
    table = table[whole]
    X = [pooled_features(decoder, [one for one, kept in zip(side, whole, strict=True) if kept]) for side in rows]
    texts = [table[side].to_numpy() for side in SIDES]
    fit, choice, test = slice(0, 2 * TRAIN // 3), slice(2 * TRAIN // 3, TRAIN), slice(TRAIN, None)

    def of(sides: list, part: slice) -> list:
        return [side[part] for side in sides]

    head = CoalaHead(GATES, tol=TOL, max_iter=20_000)
    path = head.reg_path(*of(X, fit), SHARES, held_out=of(X, choice))
    controls = []
    for draw in range(COINS):
        coin = np.random.default_rng(draw).random((len(table), 1)) < 0.5
        swapped = of([np.where(coin, *X), np.where(coin, *X[::-1])], fit)
        control = CoalaHead(GATES, tol=TOL, max_iter=20_000, reg=path.best_head.reg, random_state=draw)
        controls.append(control.fit_pairs(*swapped))
    scaled = [make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000)) for C in PENALTIES]
    counted = [make_pipeline(CountVectorizer(min_df=2), LogisticRegression(C=C, max_iter=2000)) for C in PENALTIES]
    linear = best_probe(scaled, of(X, fit), of(X, choice))
    words = best_probe(counted, of(texts, fit), of(texts, choice))
    lengths = [np.array([len(text) for text in side]) for side in texts]
    longer = np.sign(np.subtract(*of(lengths, slice(0, TRAIN))).sum()) or 1
    found = {
        "head": hits(path.best_head.decision_function, of(X, test)),
        "head, Phase I only": hits(path.best_head.scorer(phase=1), of(X, test)),
        "logistic regression": hits(linear.decision_function, of(X, test)),
        "words": hits(words.decision_function, of(texts, test)),
        "length": right(longer * np.subtract(*of(lengths, test))),
        "random labels": np.mean([hits(h.decision_function, of(X, test)) for h in controls], axis=0),
    }
    if table.usual.notna().all():  # which side wins more often in training: a model's name, not its text
        usual = table.usual.to_numpy(bool)
        found["majority"] = (usual[test] == (usual[:TRAIN].mean() > 0.5)).astype(float)
    groups = np.arange(len(table) - TRAIN)
    return {
        "train": TRAIN,
        "test": len(groups),
        "reg": path.best_head.reg,
        "gap": max(h.certificate_.relative_gap for h in (*path.heads, *controls)),
        "rates": {name: rate(values, groups).summary() for name, values in found.items()},
        "head less logistic": gain(found["head"], found["logistic regression"], groups),
    }


def main(
    data: Annotated[Path, typer.Argument(help="holds the data sets")],
    models: Annotated[Path, typer.Argument(help="holds the checkpoints")],
    target: Path = TARGET,
) -> None:
    """Measure every checkpoint on every data set and write the aggregates."""
    rows = {}
    for name, table in {"AlpacaEval 2": alpaca(data), "IMDb": imdb(data)}.items():
        for model in CHECKPOINTS:
            folder = FIXTURES / model if (FIXTURES / model).exists() else models / model
            rows[f"{name}, {model}"] = measured(table, folder)
            typer.echo(f"{name}, {model}: {rows[f'{name}, {model}']['rates']}")
    found = results.dated("benchmarks/real_pairs.py") | {
        "sources": SOURCES,
        "rows": rows,
    }
    results.write(target, found)


if __name__ == "__main__":
    typer.run(main)
