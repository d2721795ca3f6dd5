"""`coala`: the library from the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from coala_lib.reward_model import RewardModel

OFFLINE_MODEL = Path("notebooks/fixtures/edu-lm")
Model = Annotated[str, typer.Option(help="folder of a checkpoint, or a Hub id with --revision")]
Revision = Annotated[str | None, typer.Option(help="commit of a Hub id")]
Head = Annotated[Path, typer.Argument(metavar="HEAD", help="folder that `coala fit` wrote")]
Out = Annotated[Path, typer.Option(help="JSONL to write; a run that was stopped goes on where it ends")]

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
    model: Model = str(OFFLINE_MODEL),
    revision: Revision = None,
    layer: Annotated[int, typer.Option(help="hidden state to pool; -1 is the last")] = -1,
    pooling: Annotated[Literal["mean", "last", "attention"], typer.Option(help="over the response")] = "mean",
) -> None:
    """Extract the features of preference pairs; a run that was stopped goes on where it was."""
    from coala_lib.corpora import read_jsonl
    from coala_lib.lm.checkpoint import load_decoder
    from coala_lib.lm.features import write_features
    from coala_lib.lm.pretrained import fetch
    from coala_lib.lm.tokenizer import encode, load_tokenizer
    from coala_lib.reward_model import identity

    triplets = read_jsonl(data)
    folder = fetch(model, revision)
    decoder, tokenizer = load_decoder(folder), load_tokenizer(folder)
    rows = [encode(tokenizer, t["prompt"], t[side]) for side in ("chosen", "rejected") for t in triplets]
    name = {"model_id": Path(model).name if Path(model).is_dir() else model, "revision": revision}
    write_features(out, decoder, rows, layer=layer, pooling=pooling, **identity(folder), **name)
    typer.echo(f"{out}: features of {len(triplets)} chosen, then of {len(triplets)} rejected replies")


@app.command()
def fit(
    source: Annotated[Path, typer.Argument(metavar="FEATURES", help="folder that `coala features` wrote")],
    out: Annotated[Path, typer.Option(help="folder of the head")],
    n_gates: Annotated[int, typer.Option(min=1, help="activation patterns")] = 32,
    reg: Annotated[float, typer.Option(min=0, max=1, help="group lasso as a share of reg_max")] = 0.05,
    variant: Annotated[Literal["relu", "gated"], typer.Option(help="of the convex network")] = "relu",
    loss: Annotated[Literal["squared", "logistic"], typer.Option(help="of Phase I")] = "squared",
    phase_two: Annotated[Literal["newton", "agd", "lbfgs", "adamw", "none"], typer.Option(help="optimiser")] = "newton",
    tol: Annotated[float, typer.Option(min=0, help="relative duality gap of Phase I")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="seed of the gates")] = 0,
    held_out: Annotated[Path | None, typer.Option(help="features of other pairs, for the model card")] = None,
    name: Annotated[str | None, typer.Option(help="of the head, for the model card")] = None,
    data: Annotated[str | None, typer.Option(help="what the pairs are, for the model card")] = None,
) -> None:
    """Train a certified head on a feature file of pairs."""
    from dataclasses import asdict

    from coala_lib import CoalaHead

    options = {"n_gates": n_gates, "reg": reg, "variant": variant, "loss": loss, "phase_two": phase_two, "tol": tol}
    (chosen, rejected), manifest = _pairs(source)
    if held_out is not None:
        others, theirs = _pairs(held_out)
        compared = ("model", "tokenizer", "layer", "pooling", "first")
        if any(getattr(manifest, key) != getattr(theirs, key) for key in compared):
            raise ValueError(f"{held_out} holds features of another model, layer or pooling than {source}")
    head = CoalaHead(random_state=seed, **options).fit_pairs(chosen, rejected)
    about = {key: value for key, value in {"name": name, "data": data}.items() if value}
    if held_out is not None:
        about["evaluation"] = {"held-out pair accuracy, 95 % interval by Wilson": _accuracy(head, *others)}
    head.save(out, features=asdict(manifest), about=about)
    gap = head.certificate_.relative_gap
    found = f"relative duality gap {gap:.1e}, {head.score_pairs(chosen, rejected):.3f} of training pairs"
    typer.echo(f"{out}: {head.status_}; {found}")


def _pairs(folder: Path) -> tuple[tuple[Any, Any], Any]:
    from coala_lib.lm.features import read_features

    X, manifest = read_features(folder)
    if len(X) % 2:
        raise ValueError(f"{folder} holds {len(X)} rows; pairs are all chosen rows, then as many rejected ones")
    N = len(X) // 2
    return (X[:N], X[N:]), manifest


def _accuracy(head: Any, chosen: Any, rejected: Any) -> str:
    from scipy.stats import binomtest

    ahead = head.decision_function(chosen) > head.decision_function(rejected)
    interval = binomtest(int(ahead.sum()), len(ahead)).proportion_ci(method="wilson")
    return f"{ahead.mean():.3f} [{interval.low:.3f}, {interval.high:.3f}] of {len(ahead)} pairs"


@app.command()
def score(
    head: Head,
    out: Out,
    rows: Annotated[
        Path | None, typer.Argument(help="JSONL or parquet: prompt with response, responses or pair")
    ] = None,
    feature_file: Annotated[Path | None, typer.Option("--features", help="score a feature file instead")] = None,
    model: Model = str(OFFLINE_MODEL),
    revision: Revision = None,
) -> None:
    """Reward of every response; `responses` are also ranked, and the best one is named."""
    if (rows is None) == (feature_file is None):
        raise ValueError("give either rows with texts or --features, not both and not neither")
    if feature_file is not None:
        return _score_features(head, feature_file, out)
    from coala_lib.reward_model import RewardModel
    from coala_lib.rows import process_rows, responses_of, with_rewards

    joined = RewardModel.load(head, model, revision)

    def work(_: int, chunk: list[Mapping]) -> list[dict]:
        texts = [responses_of(row) for row in chunk]
        prompts = [row["prompt"] for row, those in zip(chunk, texts, strict=True) for _ in those]
        rewards = iter(joined.score_texts(prompts, [text for those in texts for text in those]).tolist())
        return [with_rewards(row, [next(rewards) for _ in those]) for row, those in zip(chunk, texts, strict=True)]

    total, had = process_rows(rows, out, responses_of, work, _stamp(joined), "score")
    typer.echo(f"{out}: {total} rows scored, {had} of them before")


def _score_features(head: Path, source: Path, out: Path) -> None:
    import json
    from dataclasses import asdict

    from coala_lib import CoalaHead
    from coala_lib._files import replacing
    from coala_lib.lm.features import read_features
    from coala_lib.reward_model import check_features

    loaded, (X, manifest) = CoalaHead.load(head), read_features(source)
    check_features(loaded, asdict(manifest))
    rewards = loaded.decision_function(X).tolist()
    with replacing(out) as temporary:
        temporary.write_text("".join(json.dumps({"row": k, "reward": r}) + "\n" for k, r in enumerate(rewards)))
    typer.echo(f"{out}: {len(rewards)} rows scored")


def _stamp(joined: "RewardModel") -> dict[str, str]:
    return {"head": joined.head.fingerprint_, "model": joined.head.features_["model"]}


@app.command()
def generate(
    head: Head,
    prompts: Annotated[Path, typer.Argument(help="JSONL or parquet of prompts, text or messages")],
    out: Out,
    model: Model = str(OFFLINE_MODEL),
    revision: Revision = None,
    n_candidates: Annotated[int, typer.Option(min=1, help="branches a prompt; 1 is plain sampling")] = 5,
    chunk: Annotated[int, typer.Option(min=1, help="tokens between two choices")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="tokens a reply at most")] = 48,
    temperature: Annotated[float, typer.Option(min=0, help="of the draws; 0 is greedy")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="equal seeds give equal replies")] = 0,
) -> None:
    """Replies guided by the head: candidates grow side by side, and the one with the highest reward goes on."""
    from dataclasses import asdict

    import numpy as np

    from coala_lib.lm.policy import Policy
    from coala_lib.reward_model import RewardModel
    from coala_lib.rows import check_prompt, process_rows

    policy = Policy(n_candidates, chunk, max_new_tokens, temperature)
    joined = RewardModel.load(head, model, revision)

    def work(start: int, chunk: list[Mapping]) -> list[dict]:
        # the seed of a chunk does not depend on where a run was stopped
        own = int(np.random.SeedSequence([seed, start]).generate_state(1)[0] // 2)
        return [{"response": text} for text in joined.reply([row["prompt"] for row in chunk], policy, own)]

    stamp = _stamp(joined) | {"policy": asdict(policy) | {"seed": seed}}
    total, had = process_rows(prompts, out, check_prompt, work, stamp, "generate")
    typer.echo(f"{out}: {total} replies, {had} of them before")


@app.command()
def card(
    head: Head,
    name: Annotated[str | None, typer.Option(help="of the head")] = None,
    data: Annotated[str | None, typer.Option(help="what the training pairs are")] = None,
    license: Annotated[str | None, typer.Option(help="of the head")] = None,
) -> None:
    """Print the model card; with options, write them into the head first."""
    from coala_lib import CoalaHead
    from coala_lib.preference.artefact import read_folder

    told = {key: value for key, value in {"name": name, "data": data, "license": license}.items() if value}
    if told:
        loaded = CoalaHead.load(head)
        loaded.save(head, about=loaded.about_ | told)
    else:
        read_folder(head)
    typer.echo((head / "README.md").read_text(encoding="utf-8"))


def main() -> None:
    """Entry point; bad input ends in one sentence and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"coala: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
