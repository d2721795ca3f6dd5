"""`coala`: the library from the command line."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main_options() -> None:
    """Convex alignment on a frozen language model."""


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="folder to write the checkpoint to")] = Path("notebooks/fixtures/edu-lm"),
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


def main() -> None:
    """Entry point; bad input ends in one sentence and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"coala: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
