"""One training loop for pretraining, supervised fine-tuning and whatever loss comes: full parameters or adapters.

AdamW with warm-up, hold and decay over a seeded stream of rows; the step is compiled once.
Small on purpose: it makes the offline model of the book from nothing in minutes on two cores.
Equal seeds on one machine give equal losses; `tests` retrain the first steps and compare the trajectory.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.tokenizer import Encoded
from coala_lib.lm.train_state import TrainingState, load_state, save_state

# a row of the data (arrays that stack into a batch) and a loss: a sum over the batch, and how many terms it has
Row = Any
Loss = Callable[[Decoder, Any], tuple[Float[Array, ""], Float[Array, ""]]]


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

    Raises:
        ValueError: where the parts do not divide the batch.
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

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError(f"a batch of {self.batch} rows cannot be computed in {self.accumulate} equal parts")


def packed(documents: Iterable[Sequence[int]], context: int) -> Iterator[np.ndarray]:
    """Pack documents into rows of `context + 1` tokens.

    A row starts at a document's start, as features and sampling do; what does not fit into a row is dropped.

    Args:
        documents: token ids.
        context: tokens a row, less the one that is only a target.

    Yields:
        (context + 1,) int32 arrays.
    """
    row: list[int] = []
    for document in documents:
        row.extend(document)
        if len(row) > context:
            yield np.asarray(row[: context + 1], np.int32)
            row = []


def padded(sequences: Iterable[Encoded], context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows for fine-tuning: each sequence alone, padded on the right, with its response marked.

    Args:
        sequences: prompts with responses.
        context: tokens a row, less the one that is only a target.

    Yields:
        (context + 1,) int32 tokens, and (context,) bool: which targets belong to the response.

    Raises:
        ValueError: naming the row, where it has no response or is too long.

    Example:
        >>> tokens, response = next(padded([Encoded((5, 6, 7), 2)], context=3))
        >>> tokens.tolist(), response.tolist()
        ([5, 6, 7, 0], [False, True, False])
    """
    for row, sequence in enumerate(sequences):
        if not 0 < sequence.n_prompt < len(sequence.ids) <= context + 1:
            raise ValueError(
                f"row {row}: {sequence.n_prompt} tokens of prompt and {len(sequence.ids)} in all; "
                f"training needs both parts, in at most {context + 1} tokens"
            )
        tokens = np.zeros(context + 1, np.int32)
        tokens[: len(sequence.ids)] = sequence.ids
        target = np.arange(1, context + 1)
        yield tokens, (target >= sequence.n_prompt) & (target < len(sequence.ids))


def token_losses(decoder: Decoder, tokens: Int[Array, "B T1"]) -> Float[Array, "B T"]:
    """Negative log-likelihood of every next token, in nats."""
    hidden, _ = decoder(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(decoder.logits(hidden[-1]), tokens[:, 1:])


def next_token_loss(decoder: Decoder, rows: Int[Array, "B T1"]) -> Float[Array, ""]:
    """Mean negative log-likelihood of the next token, in nats."""
    return token_losses(decoder, rows).mean()


def pretraining(decoder: Decoder, rows: Int[Array, "B T1"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The `Loss` of packed rows: every token counts."""
    losses = token_losses(decoder, rows)
    return losses.sum(), jnp.float32(losses.size)


def finetuning(decoder: Decoder, rows: tuple[Int[Array, "B T1"], Array]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The `Loss` of padded rows: the tokens of the responses count, and nothing else."""
    tokens, response = rows
    return jnp.where(response, token_losses(decoder, tokens), 0).sum(), response.sum().astype(jnp.float32)


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


def adamw(config: TrainConfig) -> optax.GradientTransformation:
    """Clipped AdamW on the configuration's schedule."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule(config), b2=0.98, weight_decay=config.weight_decay, mask=_decays),
    )


def train(
    decoder: Decoder,
    rows: Iterator[Row],
    config: TrainConfig,
    stop_after: int | None = None,
    on_step: Callable[[int, float], None] | None = None,
    *,
    loss: Loss = pretraining,
    trainable: type[nnx.Param] = nnx.Param,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 100,
) -> tuple[Decoder, list[float]]:
    """Train on a stream of rows.

    Args:
        decoder: initial model; not changed.
        rows: arrays, or tuples of arrays, that `loss` takes stacked; `batch` of them are taken a step.
        config: how to train.
        stop_after: stop early, with the same schedule (to compare a trajectory).
        on_step: called with (step, loss) after each step, for logs.
        loss: what is minimised, a sum over the batch over its number of terms: `pretraining` on `packed` rows,
            `finetuning` on `padded` ones.
        trainable: which parameters move; `lora.Adapter` for adapters, whose model stays frozen.
        checkpoint: file of the training state; where it exists, training goes on from it and ends as if it had
            never stopped, given the same stream of rows.
        every: steps between two states.

    Returns:
        (trained decoder, loss of each step).

    Raises:
        ValueError: where the rows run out, nothing is trainable, or the file is of another run.
    """
    graph, params, frozen = nnx.split(decoder, trainable, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"the decoder has no {trainable.__name__} to train; add adapters first")
    optimiser = adamw(config)

    def gradients(params: nnx.State, frozen: nnx.State, batch: Row) -> tuple[nnx.State, Array, Array]:
        def total(params: nnx.State) -> tuple[Array, Array]:
            return loss(nnx.merge(graph, params, frozen), batch)

        (value, terms), found = jax.value_and_grad(total, has_aux=True)(params)
        return found, value, terms

    @jax.jit
    def step(
        params: nnx.State, frozen: nnx.State, state: optax.OptState, batch: Row
    ) -> tuple[nnx.State, optax.OptState, Array]:
        parts = jax.tree.map(lambda leaf: leaf.reshape(config.accumulate, -1, *leaf.shape[1:]), batch)
        found = gradients(params, frozen, jax.tree.map(lambda leaf: leaf[0], parts))
        if config.accumulate > 1:
            rest = jax.tree.map(lambda leaf: leaf[1:], parts)

            def add(so_far: tuple, part: Row) -> tuple[tuple, None]:
                return jax.tree.map(jnp.add, so_far, gradients(params, frozen, part)), None

            found, _ = jax.lax.scan(add, found, rest)
        grads, value, terms = found
        updates, state = optimiser.update(jax.tree.map(lambda g: g / terms.astype(g.dtype), grads), state, params)
        return optax.apply_updates(params, updates), state, value / terms

    now = TrainingState(params, optimiser.init(params), [])
    if checkpoint is not None:
        now = load_state(checkpoint, now, rows, config.batch)
    last = min(stop_after or config.steps, config.steps)
    with tqdm(total=last, initial=len(now.losses), unit="step", desc="train") as bar:
        for index in range(len(now.losses), last):
            batch = [row for _, row in zip(range(config.batch), rows, strict=False)]
            if len(batch) < config.batch:
                raise ValueError(f"the rows ran out at step {index} of {last}; give more text")
            params, state, value = step(
                now.params, frozen, now.optimiser, jax.tree.map(lambda *leaves: np.stack(leaves), *batch)
            )
            now = TrainingState(params, state, [*now.losses, float(value)])
            if checkpoint is not None and (len(now.losses) % every == 0 or len(now.losses) == last):
                save_state(checkpoint, now)
            if on_step is not None:
                on_step(index, now.losses[-1])
            bar.set_postfix(loss=f"{now.losses[-1]:.3f}", tokens=f"{(index + 1) * config.batch * config.context:,}")
            bar.update()
    return nnx.merge(graph, now.params, frozen), now.losses
