"""COALA, DPO and ORPO on real preference pairs and one real checkpoint: margins, accuracy and operations.

    python -m benchmarks.real_training DATA MODELS

Writes the JSON that two chapters read. DATA and MODELS hold the data sets and the checkpoint named below, which do not
belong to this repository. Only counts, rates and curves leave this script, never a text. No prompt stands on both
sides of a split. COALA chooses its regularisation, and every rival its learning rate, on the same pairs; all are then
trained with several seeds on the others, for one epoch, with true labels and with labels by coin flips, and judged
once. Operations are counted for the tokens of the training pairs, without padding; choosing is charged to nobody.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import typer

from benchmarks import results
from benchmarks.real_data_audit import DATA
from benchmarks.real_data_audit import read as read_triplets
from benchmarks.real_pairs import SHARES, SIDES, SOURCES, TOKENS, cut, hits, imdb
from benchmarks.real_pairs import read as read_texts
from coala_lib import CoalaHead
from coala_lib.corpora.probes import right
from coala_lib.corpora.rates import gain, rate
from coala_lib.corpora.triplets import split
from coala_lib.evaluate.head_cost import head_flops
from coala_lib.lm import closed_form
from coala_lib.lm.checkpoint import load_decoder
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import pooled_features
from coala_lib.lm.lora import Adapter, LoraConfig, add_lora
from coala_lib.lm.pairs import EncodedPair, PairRows, pair_rows, read_pairs
from coala_lib.lm.preference_training import train_preferences
from coala_lib.lm.reference import with_reference
from coala_lib.lm.shapes import lora_targets
from coala_lib.lm.tokenizer import encode, load_tokenizer
from coala_lib.lm.train import TrainConfig
from coala_lib.preference.baselines import PairLogps, log_odds
from coala_lib.preference.phase_two import minimise

TARGET = Path(__file__).parents[1] / "notebooks" / "fixtures" / "real_training.json"
MODEL, HELPFUL = "TinyStories-656K", "HH-RLHF helpful"
FIT, CHOICE, TEST, SEEDS = 640, 160, 400, 5
BATCH, GATES, TOL, PHASE_TWO = 16, 16, 1e-2, 60
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
RIVALS = {"DPO, LoRA": ("dpo", True), "DPO, full": ("dpo", False), "ORPO, LoRA": ("orpo", True)}


class Split(NamedTuple):
    """Pairs that train, that choose and that judge, and the prompts of the last."""

    fit: list[EncodedPair]
    choice: list[EncodedPair]
    test: list[EncodedPair]
    groups: list[str]


def usable(pair: EncodedPair) -> bool:
    """Whether the tokenizer leaves something of both replies."""
    return all(one.n_prompt < len(one.ids) for one in pair)


def reviews(data: Path, tokenizer: Any) -> Split:
    """IMDb: the papers' sentiment task. No review stands in two pairs."""
    table = imdb(data, FIT + CHOICE, TEST)
    sides = [[read_texts(tokenizer, *row) for row in zip(table.prompt, table[s], strict=True)] for s in SIDES]
    pairs = list(zip(*sides, strict=True))
    if not all(map(usable, pairs)):
        raise ValueError("a review is empty; read the file again")
    train, test = pairs[: FIT + CHOICE], pairs[FIT + CHOICE :]
    return Split(train[:FIT], train[FIT:], test, [str(k) for k in range(len(test))])


def dialogues(data: Path, tokenizer: Any) -> Split:
    """HH-RLHF helpful: people's judgments of two replies. Split by prompt."""
    triplets, _ = read_triplets(data, HELPFUL)
    rest, test = split(triplets, 0.3, 0)
    fit, choice = split(rest, CHOICE / (FIT + CHOICE), 1)
    found = []
    for rows, n in ((fit, FIT), (choice, CHOICE), (test, TEST)):
        both = [tuple(cut(encode(tokenizer, row["prompt"], row[side])) for side in SIDES) for row in rows]
        kept = [(pair, row["conversation_id"]) for pair, row in zip(both, rows, strict=True) if usable(pair)]
        if len(kept) < n:
            raise ValueError(f"{len(kept)} pairs where {n} are needed")
        found.append(kept[:n])
    return Split(*([pair for pair, _ in part] for part in found), [group for _, group in found[2]])


def flipped(pairs: list[EncodedPair], seed: int | None) -> list[EncodedPair]:
    """The pairs, their labels drawn by a coin where a seed is given."""
    coin = np.zeros(len(pairs), bool) if seed is None else np.random.default_rng([7, seed]).random(len(pairs)) < 0.5
    return [pair[::-1] if flip else pair for pair, flip in zip(pairs, coin, strict=True)]


def log_odds_of(method: str, logps: PairLogps) -> np.ndarray:
    """z of each pair, the log-odds that the chosen reply wins by the method's own loss."""
    if method.startswith("DPO"):
        return 0.1 * np.subtract(*logps.ratios)
    return np.subtract(*map(log_odds, logps.means))


class Outcome(NamedTuple):
    """One run: which held-out pairs it orders rightly, margins by step, and operations."""

    ahead: np.ndarray
    margins: list[float]
    operations: float


def mean_tokens(pairs: list[EncodedPair]) -> tuple[int, int]:
    """Tokens of a prompt and of a reply, on average and rounded."""
    prompts = np.mean([pair[0].n_prompt for pair in pairs])
    return round(prompts), round(np.mean([len(one.ids) - one.n_prompt for pair in pairs for one in pair]))


def features(decoder: Decoder, pairs: list[EncodedPair]) -> list[np.ndarray]:
    """Features of the chosen and of the rejected replies."""
    return [pooled_features(decoder, [pair[side] for pair in pairs]) for side in (0, 1)]


def run_coala(
    decoder: Decoder, pairs: list[EncodedPair], judge: list[np.ndarray], variant: str, reg: float, seed: int
) -> Outcome:
    """Features, both phases; the margins are those of accelerated steps of Phase II."""
    X, settings = features(decoder, pairs), {"variant": variant, "tol": TOL, "max_iter": 20_000}
    head = CoalaHead(GATES, reg=reg, random_state=seed, **settings).fit_pairs(*X)
    steps = {"method": "agd", "scheme": "nesterov", "max_iter": PHASE_TWO, "tol": 1e-30}
    margins = minimise(head.pair_objective(*X), head.theta2_phase_one_, **steps).margins
    reading = closed_form.shared_flops(decoder.config, len(pairs), *mean_tokens(pairs))
    return Outcome(hits(head.decision_function, judge), margins.tolist(), reading + head_flops(head))


def run_rival(
    decoder: Decoder, pairs: list[EncodedPair], judge: PairRows, method: str, learning_rate: float, seed: int
) -> Outcome:
    """One epoch of a rival, its reference read once; the margins are those that the steps report."""
    name, lora = RIVALS[method]
    config = TrainConfig(
        steps=len(pairs) // BATCH, batch=BATCH, context=TOKENS - 1, learning_rate=learning_rate, warmup=0.1,
        weight_decay=0.0, seed=seed,
    )  # fmt: skip
    adapters = LoraConfig(16, 32.0, lora_targets(decoder.config)) if lora else None
    start, more = decoder, {}
    if adapters:
        start, more = add_lora(decoder, adapters, jax.random.key(seed)), {"trainable": Adapter, "reference": decoder}
    trained, history = train_preferences(start, pairs, name, config, **more)
    length = sum(mean_tokens(pairs))
    spent = closed_form.training_flops(decoder.config, 2 * len(pairs), length, lora=adapters)
    if name == "dpo":
        spent += closed_form.forward_flops(decoder.config, 2 * len(pairs), length, logits=True)
    margins = history["rewards/margins" if name == "dpo" else "log_odds_chosen"]
    return Outcome(right(log_odds_of(method, read_pairs(trained, judge))), margins, spent)


def compared(decoder: Decoder, data: Split) -> dict[str, Any]:
    """All methods on one data set."""
    regs, rates, runs = {}, {}, {}
    choice_X, test_X = features(decoder, data.choice), features(decoder, data.test)
    choice, test = (with_reference(decoder, pair_rows(part, TOKENS - 1)) for part in (data.choice, data.test))
    for variant in ("relu", "gated"):
        head = CoalaHead(GATES, variant=variant, tol=TOL, max_iter=20_000)
        path = head.reg_path(*features(decoder, data.fit), SHARES, held_out=choice_X)
        regs[variant] = path.best_head.reg
    for method in RIVALS:
        tried = {r: float(run_rival(decoder, data.fit, choice, method, r, 0).ahead.mean()) for r in RATES}
        rates[method] = max(tried, key=tried.__getitem__)
        typer.echo(f"{method}, pairs ordered rightly by learning rate: {tried}")
    for seed in range(SEEDS):
        for labels in ("", ", random labels"):
            pairs = flipped(data.fit, seed if labels else None)
            for variant, reg in regs.items():
                run = run_coala(decoder, pairs, test_X, variant, reg, seed)
                runs.setdefault(f"COALA, {variant}{labels}", []).append(run)
            for method, learning_rate in rates.items():
                run = run_rival(decoder, pairs, test, method, learning_rate, seed)
                runs.setdefault(method + labels, []).append(run)
    ahead = {name: np.mean([run.ahead for run in each], axis=0) for name, each in runs.items()}
    frozen = read_pairs(decoder, test)
    ahead["likelihood, per token"] = right(np.subtract(*frozen.means))
    ahead["likelihood, whole"] = right(frozen.chosen - frozen.rejected)
    prompt, reply = mean_tokens(data.fit)
    return {
        "tokens": {"prompt": prompt, "reply": reply},
        "chosen": {f"COALA, {variant}": reg for variant, reg in regs.items()} | rates,
        "rates": {name: rate(values, data.groups).summary() for name, values in ahead.items()},
        "gains": {
            f"COALA, {variant} less {rival}": gain(ahead[f"COALA, {variant}"], ahead[rival], data.groups)
            for variant in regs
            for rival in RIVALS
        },
        "operations": {name: float(np.mean([run.operations for run in each])) for name, each in runs.items()},
        "margins": {name: [np.round(run.margins, 5).tolist() for run in each] for name, each in runs.items()},
    }


def main(
    data: Annotated[Path, typer.Argument(help="holds the data sets")],
    models: Annotated[Path, typer.Argument(help="holds the checkpoint")],
    target: Path = TARGET,
) -> None:
    """Train every method on both data sets and write rates, operations and curves."""
    decoder, tokenizer = load_decoder(models / MODEL), load_tokenizer(models / MODEL)
    rows = {}
    for name, read in {"IMDb": reviews, HELPFUL: dialogues}.items():
        rows[name] = compared(decoder, read(data, tokenizer))
        typer.echo(f"{name}: {rows[name]['rates']}")
    sizes = {"fit": FIT, "choice": CHOICE, "test": TEST, "seeds": SEEDS, "batch": BATCH, "rates": RATES, "gates": GATES}
    found = results.dated("benchmarks/real_training.py") | {"model": MODEL, "sizes": sizes}
    found["sources"] = {"IMDb": SOURCES["IMDb"], HELPFUL: ", ".join(DATA[HELPFUL][2:])}
    results.write(target, found | {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
