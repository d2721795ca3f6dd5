"""`coala`: the library from the command line."""

from pathlib import Path
from typing import Annotated

import typer

OFFLINE_MODEL = Path("notebooks/fixtures/edu-lm")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main_options() -> None:
    """Convex alignment on a frozen language model."""


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="folder to write the checkpoint to")] = OFFLINE_MODEL,
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps of 16 x 192 tokens")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="seed of the weights")] = 0,
) -> None:
    """Make the offline language model from nothing: about 25 minutes on two cores."""
    from dataclasses import replace

    from coala_lib.lm.offline import OfflineConfig, pretrain

    default = OfflineConfig()
    config = replace(default, train=replace(default.train, steps=steps, seed=seed))
    loss = pretrain(out, config, command=f"coala pretrain --steps {steps} --seed {seed}")
    typer.echo(f"{out}: held-out loss {loss:.3f} nats per token")


@app.command()
def features(
    data: Annotated[Path, typer.Argument(help="JSONL of prompt / chosen / rejected messages, as TRL has them")],
    out: Annotated[Path, typer.Option(help="folder of the feature file")],
    model: Annotated[Path, typer.Option(help="folder of a Llama-layout checkpoint")] = OFFLINE_MODEL,
    layer: Annotated[int, typer.Option(help="hidden state to pool; -1 is the last")] = -1,
) -> None:
    """Extract the features of preference pairs; a run that was stopped goes on where it was."""
    from coala_lib.corpora import read_jsonl
    from coala_lib.lm.checkpoint import fingerprint, load_decoder
    from coala_lib.lm.features import write_features
    from coala_lib.lm.tokenizer import encode, load_tokenizer

    triplets = read_jsonl(data)
    decoder, tokenizer = load_decoder(model), load_tokenizer(model)
    rows = [encode(tokenizer, t["prompt"], t[side]) for side in ("chosen", "rejected") for t in triplets]
    identity = {
        "model": fingerprint(model, "config.json", "model.safetensors"),
        "tokenizer": fingerprint(model, "tokenizer.json"),
    }
    write_features(out, decoder, rows, layer=layer, **identity)
    typer.echo(f"{out}: features of {len(triplets)} chosen, then of {len(triplets)} rejected replies")


@app.command()
def fit(
    source: Annotated[Path, typer.Argument(metavar="FEATURES", help="folder that `coala features` wrote")],
    out: Annotated[Path, typer.Option(help="folder of the head")],
    n_gates: Annotated[int, typer.Option(min=1, help="activation patterns")] = 32,
    reg: Annotated[float, typer.Option(min=0, max=1, help="group lasso as a share of reg_max")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="seed of the gates")] = 0,
) -> None:
    """Train a certified head on a feature file of pairs."""
    from coala_lib import CoalaHead
    from coala_lib.lm.features import read_features

    X, _ = read_features(source)
    N = len(X) // 2
    head = CoalaHead(n_gates=n_gates, reg=reg, random_state=seed).fit_pairs(X[:N], X[N:])
    head.save(out)
    gap = head.certificate_.relative_gap
    typer.echo(f"{out}: {head.status_}; relative duality gap {gap:.1e}, {head.score_pairs(X[:N], X[N:]):.3f} of pairs")


def main() -> None:
    """Entry point; bad input ends in one sentence and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"coala: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
