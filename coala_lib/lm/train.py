"""One training loop for pretraining, supervised fine-tuning and whatever loss comes: full parameters or adapters.

AdamW or RMSprop with warm-up, hold and decay over a seeded stream of rows; the step (`step.py`) is compiled once.
Equal seeds on one machine give equal losses; `tests` retrain the first steps of the book's model and compare.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.step import Loss, Measures, make_step
from coala_lib.lm.train_state import History, TrainingState, load_state, save_state

Row = Any  # of the data: arrays that stack into a batch


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults made the committed model.

    Attributes:
        steps: optimiser steps.
        batch: rows a step.
        context: tokens a row.
        learning_rate: peak rate.
        warmup, decay: shares of the steps spent rising to the peak and falling to zero.
        weight_decay: of the matrices.
        seed: of the weights.
        accumulate: parts a batch is computed in, one after the other, to save memory.
        optimizer: "adamw", or "rmsprop" as DPO's authors use it, without weight decay.

    Raises:
        ValueError: where the parts do not divide the batch, or the optimiser is unknown.
    """

    steps: int = 4000
    batch: int = 16
    context: int = 256
    learning_rate: float = 3e-3
    warmup: float = 0.02
    decay: float = 0.3
    weight_decay: float = 0.05
    seed: int = 0
    accumulate: int = 1
    optimizer: Literal["adamw", "rmsprop"] = "adamw"

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "rmsprop"):
            raise ValueError(f"optimizer is 'adamw' or 'rmsprop'; got {self.optimizer!r}")
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError(f"a batch of {self.batch} rows cannot be computed in {self.accumulate} equal parts")


def token_losses(decoder: Decoder, tokens: Int[Array, "B T1"]) -> Float[Array, "B T"]:
    """Negative log-likelihood of every next token, in nats."""
    hidden, _ = decoder(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(decoder.logits(hidden[-1]), tokens[:, 1:])


def next_token_loss(decoder: Decoder, rows: Int[Array, "B T1"]) -> Float[Array, ""]:
    """Mean negative log-likelihood of the next token, in nats."""
    return token_losses(decoder, rows).mean()


def pretraining(decoder: Decoder, rows: Int[Array, "B T1"]) -> tuple[Array, tuple[Array, Measures]]:
    """The `Loss` of packed rows: every token counts."""
    losses = token_losses(decoder, rows)
    return losses.sum(), (jnp.float32(losses.size), {})


def finetuning(
    decoder: Decoder, rows: tuple[Int[Array, "B T1"], Bool[Array, "B T"]]
) -> tuple[Array, tuple[Array, Measures]]:
    """The `Loss` of padded rows: the tokens of the responses count, and nothing else."""
    tokens, response = rows
    losses = jnp.where(response, token_losses(decoder, tokens), 0)
    return losses.sum(), (response.sum().astype(jnp.float32), {})


def schedule(config: TrainConfig) -> optax.Schedule:
    """Learning rate by step: linear warm-up, hold, linear decay to zero."""
    warm, cool = max(1, int(config.warmup * config.steps)), max(1, int(config.decay * config.steps))
    rate = config.learning_rate
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, rate, warm),
            optax.constant_schedule(rate),
            optax.linear_schedule(rate, 0.0, cool),
        ],
        [warm, config.steps - cool],
    )


def _decays(params: nnx.State) -> nnx.State:
    """Weight decay is for matrices; stacked layers give norms and biases a second axis, so names decide."""
    return jax.tree.map_with_path(lambda path, _: getattr(path[-2], "key", None) not in ("weight", "bias"), params)


def make_optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """The optimiser on the configuration's schedule, behind a clip of the gradient's norm at 1."""
    rate = schedule(config)
    rule = optax.rmsprop(rate)
    if config.optimizer == "adamw":
        rule = optax.adamw(rate, b2=0.98, weight_decay=config.weight_decay, mask=_decays)
    return optax.chain(optax.clip_by_global_norm(1.0), rule)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _step(graph: nnx.GraphDef, config: TrainConfig, loss: Loss, *arrays: Any) -> Any:
    """One step, compiled once for all runs that differ in their data only."""
    return make_step(graph, make_optimiser(config), loss, config.accumulate)(*arrays)


def run(
    decoder: Decoder,
    rows: Iterator[Row],
    config: TrainConfig,
    loss: Loss,
    *,
    stop_after: int | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    trainable: type[nnx.Param] = nnx.Param,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 100,
    identity: str = "",
) -> tuple[Decoder, History]:
    """Train on a stream of rows, and keep what every step reported.

    Args:
        decoder: initial model; not changed.
        rows: arrays, or tuples of arrays, that `loss` takes stacked; `batch` of them are taken a step.
        config: how to train.
        loss: what is minimised, a sum over the batch over its number of terms; equal ones share a compiled step.
        stop_after: stop early, with the same schedule (to compare a trajectory).
        on_step: called with (step, its loss and measures) after each step, for logs.
        trainable: which parameters move; `lora.Adapter` for adapters, whose model stays frozen.
        checkpoint: file of the training state; where it exists, training goes on from it, to the same end.
        every: steps between two states.
        identity: what the checkpoint belongs to; one of another identity is refused.

    Returns:
        (trained decoder, "loss" and the loss's measures by step).

    Raises:
        ValueError: where the rows run out, nothing is trainable, or the file is of another run.
    """
    graph, params, frozen = nnx.split(decoder, trainable, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"the decoder has no {trainable.__name__} to train; add adapters first")
    step = partial(_step, graph, replace(config, seed=0), loss)
    now = TrainingState(params, make_optimiser(config).init(params), {})
    if checkpoint is not None:
        now = load_state(checkpoint, now, rows, config.batch, identity)
    last = min(stop_after or config.steps, config.steps)
    with tqdm(total=last, initial=now.steps, unit="step", desc="train") as bar:
        for index in range(now.steps, last):
            batch = [row for _, row in zip(range(config.batch), rows, strict=False)]
            if len(batch) < config.batch:
                raise ValueError(f"the rows ran out at step {index} of {last}; give more text")
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batch)
            params, state, value, measures = step(now.params, frozen, now.optimiser, stacked)
            seen = {name: float(x) for name, x in ({"loss": value} | measures).items()}
            now = TrainingState(params, state, {name: [*now.history.get(name, []), x] for name, x in seen.items()})
            if checkpoint is not None and (now.steps % every == 0 or now.steps == last):
                save_state(checkpoint, now, identity)
            if on_step is not None:
                on_step(index, seen)
            bar.set_postfix(loss=f"{seen['loss']:.3f}", tokens=f"{(index + 1) * config.batch * config.context:,}")
            bar.update()
    return nnx.merge(graph, now.params, frozen), now.history


def train(
    decoder: Decoder,
    rows: Iterator[Row],
    config: TrainConfig,
    stop_after: int | None = None,
    on_step: Callable[[int, float], None] | None = None,
    *,
    loss: Loss = pretraining,
    **more: Any,
) -> tuple[Decoder, list[float]]:
    """`run` for those who need the loss only: `pretraining` on `packed` rows, `finetuning` on `padded` ones."""
    told = None if on_step is None else (lambda step, seen: on_step(step, seen["loss"]))
    decoder, history = run(decoder, rows, config, loss, stop_after=stop_after, on_step=told, **more)
    return decoder, history["loss"]
