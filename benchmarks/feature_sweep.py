"""Layer and pooling on real checkpoints and real preference pairs: writes the JSON that the chapter on features shows.

    python -m benchmarks.feature_sweep DATA MODELS

DATA and MODELS hold the data sets and checkpoints named below, which do not belong to this repository. Only counts,
rates and intervals leave this script, never a text. Pairs are split by prompt; a reading is chosen on one half of the
held-out prompts and reported on the other, both ways round, as in the chapter.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import results
from benchmarks.real_data_audit import DATA, read
from coala_lib import CoalaHead
from coala_lib.corpora.rates import rate
from coala_lib.corpora.triplets import Triplet
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.extraction import sweep_features
from coala_lib.lm.pooling import Reading
from coala_lib.lm.tokenizer import Encoded, encode, load_tokenizer

TARGET = Path(__file__).parents[1] / "notebooks" / "fixtures" / "feature_sweep.json"
SETS = ("HH-RLHF helpful", "HH-RLHF harmless", "UltraFeedback")
CHECKPOINTS = ("TinyStories-656K", "stories260K")
POOLINGS = ("last", "mean", "attention")
PAIRS, GATES, REG = 600, 16, 0.2


def encoded(tokenizer: Any, triplets: list[Triplet], most: int) -> tuple[list[tuple[Encoded, Encoded]], list[str]]:
    """Both sides of the first pairs that fit the model's context, and the conversations they belong to."""
    found, groups = [], []
    for row in triplets:
        both = tuple(encode(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected"))
        if all(one.n_prompt < len(one.ids) <= most for one in both):
            found.append(both)
            groups.append(row["conversation_id"])
        if len(found) == PAIRS:
            break
    return found, groups


def outcomes(chosen: np.ndarray, rejected: np.ndarray, train: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """Whether a head fitted on the training pairs, some of them swapped, orders each held-out pair rightly."""
    pair = np.stack([chosen, rejected])
    shown = np.where(swap[None, :, None], pair[::-1], pair)[:, train]
    head = CoalaHead(GATES, reg=REG, variant="gated", tol=1e-2, max_iter=5000, random_state=0).fit_pairs(*shown)
    margin = np.subtract(*(head.decision_function(side[~train]) for side in pair))
    return (margin > 0) + 0.5 * (margin == 0)


def chosen_on_the_other_half(table: dict[Reading, np.ndarray], first: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Readings picked on each half of the held-out pairs, and the outcomes on the half that did not pick."""
    found, honest, picked = np.stack(list(table.values())), np.empty(len(first)), []
    for half in (first, ~first):
        best = int(found[:, half].mean(axis=1).argmax())
        picked.append(str(list(table)[best]))
        honest[~half] = found[best, ~half]
    return picked, honest


def swept(folder: Path, triplets: list[Triplet]) -> dict[str, Any]:
    """One checkpoint on one data set."""
    decoder, tokenizer = load_decoder(folder), load_tokenizer(folder)
    pairs, groups = encoded(tokenizer, triplets, decoder.config.max_position_embeddings)
    layers = range(1, decoder.config.num_hidden_layers + 1)
    readings = [Reading(layer, pooling) for layer in layers for pooling in POOLINGS]
    features = sweep_features(decoder, [one for side in zip(*pairs, strict=True) for one in side], readings)
    rng, names = np.random.default_rng(0), np.unique(groups)
    order = rng.permutation(names)
    train = np.isin(groups, order[: len(names) // 2])
    first = np.isin(np.array(groups)[~train], order[len(names) // 2 :][::2])
    held_out, coin = np.array(groups)[~train], rng.random(len(pairs)) < 0.5
    result: dict[str, Any] = {"pairs": len(pairs), "prompts": len(names), "readings": {}}
    for kind, swap in {"labels": np.zeros(len(pairs), bool), "random labels": coin}.items():
        table = {r: outcomes(*np.split(features[r], 2), train, swap) for r in readings}
        picked, honest = chosen_on_the_other_half(table, first)
        result[kind] = rate(honest, held_out).summary() | {"picked": picked}
        if kind == "labels":
            result["readings"] = {f"{r.layer} {r.pooling}": rate(v, held_out).summary() for r, v in table.items()}
    longer = np.array([len(a.ids) - len(b.ids) for a, b in pairs])
    sign = np.sign(longer[train].sum()) or 1.0
    result["length"] = rate((sign * longer[~train] > 0) + 0.5 * (longer[~train] == 0), held_out).summary()
    return result


def main(
    data: Annotated[Path, typer.Argument(help="holds the data sets")],
    models: Annotated[Path, typer.Argument(help="holds the checkpoints")],
    target: Path = TARGET,
) -> None:
    """Sweep every checkpoint over every data set and write the aggregates."""
    rows = {}
    for name in SETS:
        triplets, _ = read(data, name)
        for model in CHECKPOINTS:
            rows[f"{model}, {name}"] = swept(models / model, triplets)
            typer.echo(f"{model}, {name}: {rows[f'{model}, {name}']['labels']}")
    found = results.dated("benchmarks/feature_sweep.py") | {
        "sources": {name: DATA[name][2:] for name in SETS},
        "rows": rows,
    }
    results.write(target, found)


if __name__ == "__main__":
    typer.run(main)
