"""COALA against DPO on one CPU: seconds, peak memory and held-out pair accuracy, same model, same pairs.

    python -m benchmarks.wall_clock

Writes the JSON that the chapter on compute and memory reads. Every run is a process of its own, so that its peak
memory is its own; runs of all methods take turns, round after round, so that whatever else the machine does falls on
all of them alike. Compilation and evaluation are left out of the seconds. DPO reads its reference once, and trains for
one epoch; its learning rates were the best of three tried on held-out pairs of this world, which favours it.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from flax import nnx

from benchmarks.results import timed, write
from coala_lib import CoalaHead
from coala_lib.corpora import alternate, conversations, make_world
from coala_lib.evaluate.head_cost import effort_of
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.extraction import pooled_features
from coala_lib.lm.lora import Adapter, LoraConfig, add_lora
from coala_lib.lm.pairs import EncodedPair, PairRows, encode_pairs, pair_rows, read_pairs
from coala_lib.lm.preference_training import preference_loss, shuffled_pairs
from coala_lib.lm.reference import with_reference
from coala_lib.lm.shapes import LORA_TARGETS
from coala_lib.lm.step import make_step
from coala_lib.lm.tokenizer import load_tokenizer
from coala_lib.lm.train import TrainConfig, make_optimiser

FIXTURES = Path(__file__).parents[1] / "notebooks" / "fixtures"
RESULTS = FIXTURES / "wall_clock.json"
CONTEXT, BATCH, EVERY = 64, 16, 2  # tokens a row; pairs a step; steps between two looks at the held-out pairs
RATES = {"DPO, LoRA": 1e-3, "DPO, full": 1e-4}
METHODS = ("COALA", *RATES)


def load_pairs(n_conversations: int, seed: int, tokenizer: Any) -> list[EncodedPair]:
    """Pairs of the offline world whose rows fit the context."""
    triplets = alternate(conversations(make_world(0), n_conversations, seed=seed), source="edu")
    return [pair for pair in encode_pairs(tokenizer, triplets) if max(len(side.ids) for side in pair) <= CONTEXT + 1]


def share(ahead: np.ndarray) -> float:
    """Pair accuracy; a tie counts one half."""
    return float(np.mean((ahead > 0) + 0.5 * (ahead == 0)))


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it gave."""
    began = time.perf_counter()
    found = jax.block_until_ready(work())
    return time.perf_counter() - began, found


def peak() -> int:
    """Largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_coala(decoder: Decoder, train: list[EncodedPair], test: list[EncodedPair], seed: int) -> dict[str, Any]:
    """Features and head; the second of two equal calls is timed, the first one compiles."""
    flat = [side for pair in train for side in pair]

    def fit() -> tuple[float, CoalaHead]:
        seconds, X = clocked(lambda: pooled_features(decoder, flat))
        return seconds, CoalaHead(tol=1e-2, random_state=seed).fit_pairs(X[::2], X[1::2])

    (first, _), (total, (features, head)) = clocked(fit), clocked(fit)
    highest, Y = peak(), pooled_features(decoder, [side for pair in test for side in pair])
    frozen = read_pairs(decoder, pair_rows(test, CONTEXT))
    return {
        "seconds": total,
        "feature_seconds": features,
        "first_call_seconds": first,
        "peak_bytes": highest,
        "accuracy": head.score_pairs(Y[::2], Y[1::2]),
        "effort": vars(effort_of(head.trace_)),
        "phase_two_steps": head.phase_two_.n_iter,
        "neurons": len(head.network_.theta2),
        "free": {
            "log-probability": share(frozen.chosen - frozen.rejected),
            "log-probability a token": share(np.subtract(*frozen.means)),
        },
    }


def margins(decoder: Decoder, rows: PairRows) -> np.ndarray:
    """How far DPO's implicit reward of the chosen response is ahead, over beta."""
    chosen, rejected = read_pairs(decoder, rows).ratios
    return chosen - rejected


def run_dpo(
    method: str, decoder: Decoder, train: list[EncodedPair], test: list[EncodedPair], seed: int
) -> dict[str, Any]:
    """One epoch of DPO, looked at every few steps."""
    lora = method == "DPO, LoRA"
    model = add_lora(decoder, LoraConfig(16, 32.0, LORA_TARGETS), jax.random.key(seed)) if lora else decoder
    rows, held_out = pair_rows(train, CONTEXT), with_reference(decoder, pair_rows(test, CONTEXT))
    read_pairs(decoder, PairRows(*(part[:64] for part in rows)))  # compiles
    reading, rows = clocked(lambda: with_reference(decoder, rows))
    config = TrainConfig(
        steps=len(train) // BATCH, batch=BATCH, context=CONTEXT, learning_rate=RATES[method], warmup=0.1,
        weight_decay=0.0, seed=seed,
    )  # fmt: skip
    graph, params, frozen = nnx.split(model, Adapter if lora else nnx.Param, ...)
    optimiser, stream = make_optimiser(config), shuffled_pairs(rows, seed)
    state = optimiser.init(params)
    step = jax.jit(make_step(graph, optimiser, preference_loss("dpo")))
    batches = [
        tuple(np.stack(parts) for parts in zip(*(next(stream) for _ in range(BATCH)), strict=True))
        for _ in range(config.steps)
    ]
    first, _ = clocked(lambda: step(params, frozen, state, batches[0]))
    spent, curve = reading, [[0, reading, 0.5]]
    for number, batch in enumerate(batches, start=1):
        seconds, (params, state, *_) = clocked(lambda now=(params, frozen, state, batch): step(*now))
        spent += seconds
        if number % EVERY == 0 or number == config.steps:
            highest = peak() if number == EVERY else highest  # before anything is evaluated
            curve.append([number, spent, share(margins(nnx.merge(graph, params, frozen), held_out))])
    return {
        "seconds": spent,
        "reference_seconds": reading,
        "first_call_seconds": first,
        "peak_bytes": highest,
        "accuracy": curve[-1][2],
        "curve": curve,
    }


def run_one(method: str, seed: int, n_train: int, n_test: int) -> dict[str, Any]:
    """One method in this process."""
    decoder, tokenizer = load_decoder(FIXTURES / "edu-lm"), load_tokenizer(FIXTURES / "edu-lm")
    train, test = load_pairs(n_train, 1000, tokenizer), load_pairs(n_test, 2000, tokenizer)
    before = peak()
    found = run_coala(decoder, train, test, seed) if method == "COALA" else run_dpo(method, decoder, train, test, seed)
    sizes = {
        "train_pairs": len(train),
        "test_pairs": len(test),
        "prompt_tokens": float(np.mean([pair[0].n_prompt for pair in train])),
        "response_tokens": float(np.mean([len(side.ids) - side.n_prompt for pair in train for side in pair])),
    }
    return {"method": method, "seed": seed, "start_bytes": before} | found | {"sizes": sizes}


def until(curve: list[list[float]], accuracy: float) -> tuple[float, float] | None:
    """(steps, seconds) at which a curve first reaches an accuracy, None where it never does.

    Example:
        >>> until([[0, 1.0, 0.5], [4, 3.0, 0.7], [8, 5.0, 0.9]], 0.7)
        (4, 3.0)
    """
    return next(((steps, seconds) for steps, seconds, found in curve if found >= accuracy), None)


def ratios(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds of COALA over those of LoRA-DPO, round by round: median, lowest and highest.

    Three readings: everything against one epoch; the features alone; and everything against DPO's seconds until it
    first reaches COALA's accuracy.
    """
    own, rival = ([run for run in runs if run["method"] == name] for name in ("COALA", "DPO, LoRA"))
    whole = np.array([run["seconds"] for run in rival])
    reached = [until(run["curve"], coala["accuracy"]) for run, coala in zip(rival, own, strict=True)]
    equal = np.array([all_of if at is None else at[1] for at, all_of in zip(reached, whole, strict=True)])
    total, features = (np.array([run[key] for run in own]) for key in ("seconds", "feature_seconds"))
    rows = {"coala_over_lora_dpo": total / whole, "features_over_lora_dpo": features / whole}
    rows["at_equal_accuracy"] = total / equal
    return {
        name: {"value": float(np.median(each)), "low": float(each.min()), "high": float(each.max())}
        for name, each in rows.items()
    }


def main(
    rounds: Annotated[int, typer.Option(help="rounds of all methods", min=1)] = 3,
    n_train: Annotated[int, typer.Option(help="training conversations", min=20)] = 200,
    n_test: Annotated[int, typer.Option(help="held-out conversations", min=20)] = 150,
    only: Annotated[str, typer.Option(help="run one method here and print it", hidden=True)] = "",
    seed: Annotated[int, typer.Option(help="of --only", hidden=True)] = 0,
    out: Annotated[Path, typer.Option(help="where to write the result")] = RESULTS,
) -> None:
    """Measure and write the JSON that the book reads."""
    if only:
        typer.echo(json.dumps(run_one(only, seed, n_train, n_test)))
        return
    began, runs = time.perf_counter(), []
    for seed in range(rounds):
        for method in METHODS:
            options = ["--only", method, "--seed", str(seed), "--n-train", str(n_train), "--n-test", str(n_test)]
            command = [sys.executable, "-m", "benchmarks.wall_clock", *options]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            typer.echo(f"round {seed + 1}: {method}: {runs[-1]['seconds']:.1f} s, accuracy {runs[-1]['accuracy']:.3f}")
    result = timed() | {
        "model": "edu-lm",
        "dtype": "float32",
        "context": CONTEXT,
        "batch": BATCH,
        "rates": RATES,
        "rounds": rounds,
        "sizes": runs[0]["sizes"],
        "runs": [{key: value for key, value in run.items() if key != "sizes"} for run in runs],
        "ratios": ratios(runs),
        "seconds": time.perf_counter() - began,
    }
    write(out, result)
    typer.echo(f"{out}: {result['seconds']:.0f} s")


if __name__ == "__main__":
    typer.run(main)
