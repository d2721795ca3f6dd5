"""Guided sampling against best-of-n and plain sampling, interleaved in one run: writes the JSON that the book reads.

    python -m benchmarks.generation                        the offline model, about five minutes on two cores
    python -m benchmarks.generation --model FOLDER --out FILE

All policies draw from one model for the same prompts, round after round in turn, so that whatever else the machine
does falls on all of them alike. Ratios of a round are compared, not times; stop tokens are left out, so that every
policy writes the same number of tokens.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer

from benchmarks.results import timed, write
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.guided import Generation, Policy, best_of_n, generate, plain
from coala_lib.lm.tokenizer import Encoded
from coala_lib.preference.phase_one import relu_reward

FIXTURES = Path(__file__).parents[1] / "notebooks" / "fixtures"
RESULTS = FIXTURES / "generation_benchmark.json"
NEURONS = 64  # of the head that scores: as many as 32 gates can give


def policies(policy: Policy, chunks: tuple[int, ...]) -> dict[str, Policy]:
    """Plain sampling, best-of-n, and guidance by each chunk length.

    Example:
        >>> list(policies(Policy(max_new_tokens=32), (1, 8)))
        ['plain', 'best of 5', 'guided, chunk 1', 'guided, chunk 8']
    """
    guided = {f"guided, chunk {chunk}": replace(policy, chunk=chunk) for chunk in chunks}
    return {"plain": plain(policy), f"best of {policy.n_candidates}": best_of_n(policy)} | guided


def random_head(dimension: int) -> jax.tree_util.Partial:
    """A head of the usual size with random weights: what it costs does not depend on what it knows."""
    rng = np.random.default_rng(0)
    arrays = np.zeros(dimension), np.ones(dimension), rng.normal(size=(NEURONS, dimension)), rng.normal(size=NEURONS)
    return jax.tree_util.Partial(relu_reward, *(jnp.asarray(array, jnp.float32) for array in arrays))


def race(decoder: Decoder, entrants: dict[str, Policy], n_prompts: int, width: int, rounds: int) -> dict[str, dict]:
    """Seconds of every policy in every round, each after a first call that compiles.

    Args:
        decoder: frozen model.
        entrants: policies by name.
        n_prompts: prompts, all in one batch.
        width: tokens a prompt.
        rounds: how often everyone runs, in turn.

    Returns:
        By name: seconds of each round, and what was computed.
    """
    rng, V = np.random.default_rng(0), decoder.config.vocab_size
    prompts = [Encoded(tuple(rng.integers(0, V, width).tolist()), width) for _ in range(n_prompts)]
    head = random_head(decoder.config.hidden_size)

    def run(policy: Policy) -> Generation:
        return generate(decoder, prompts, policy, stop=V, score=head, batch=n_prompts)

    first, found = {}, {name: [] for name in entrants}
    for name, policy in entrants.items():
        began = time.perf_counter()
        run(policy)
        first[name] = time.perf_counter() - began
    for _ in range(rounds):
        for name, policy in entrants.items():
            began = time.perf_counter()
            out = run(policy)
            found[name].append((time.perf_counter() - began, out))
    return {
        name: {
            "seconds": [seconds for seconds, _ in runs],
            "first_call_seconds": first[name],
            "tokens": runs[0][1].n_tokens,
            "positions": runs[0][1].n_forward,
            "passes": runs[0][1].n_passes,
            "choices": runs[0][1].n_choices,
        }
        for name, runs in found.items()
    }


def ratios(results: dict[str, dict], reference: str) -> dict[str, dict[str, float]]:
    """Tokens a second over the reference's, round by round: median, lowest and highest.

    Example:
        >>> rows = {"a": {"seconds": [2.0, 4.0], "tokens": 10}, "b": {"seconds": [1.0, 1.0], "tokens": 10}}
        >>> ratios(rows, "a")["b"]
        {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    base = np.array(results[reference]["seconds"]) / results[reference]["tokens"]
    found = {}
    for name, row in results.items():
        each = base / (np.array(row["seconds"]) / row["tokens"])
        found[name] = {"median": float(np.median(each)), "low": float(each.min()), "high": float(each.max())}
    return found


def main(
    model: Annotated[Path, typer.Option(help="folder of a checkpoint")] = FIXTURES / "edu-lm",
    n_prompts: Annotated[int, typer.Option(help="prompts, all in one batch", min=1)] = 32,
    width: Annotated[int, typer.Option(help="tokens a prompt", min=1)] = 64,
    max_new_tokens: Annotated[int, typer.Option(help="tokens a reply; a multiple of 16", min=16)] = 48,
    n_candidates: Annotated[int, typer.Option(help="candidates a prompt", min=2)] = 5,
    rounds: Annotated[int, typer.Option(help="rounds of all policies", min=1)] = 7,
    dtype: Annotated[str, typer.Option(help="of the weights")] = "float32",
    out: Annotated[Path, typer.Option(help="where to write the result")] = RESULTS,
) -> None:
    """Measure and write the JSON that the book reads."""
    began = time.perf_counter()
    decoder = load_decoder(model, dtype=jnp.dtype(dtype))
    policy = Policy(n_candidates=n_candidates, chunk=16, max_new_tokens=max_new_tokens)
    results = race(decoder, policies(policy, (1, 4, 8, 16)), n_prompts, width, rounds)
    setting = {"n_prompts": n_prompts, "width": width, "max_new_tokens": max_new_tokens, "n_candidates": n_candidates}
    result = timed() | {
        "model": model.name,
        "dtype": dtype,
        **setting,
        "rounds": rounds,
        "policies": results,
        "tokens_a_second_over_best_of_n": ratios(results, f"best of {n_candidates}"),
        "seconds": time.perf_counter() - began,
    }
    write(out, result)
    typer.echo(f"{out}: {result['seconds']:.0f} s")


if __name__ == "__main__":
    typer.run(main)
