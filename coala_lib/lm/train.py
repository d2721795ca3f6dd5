"""Next-token training in one loop: a seeded stream of packed rows, AdamW with warm-up, hold and decay.

Small on purpose: it makes the offline model of the book from nothing in minutes on two cores.
Equal seeds on one machine give equal losses; `tests` retrain the first steps and compare the trajectory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from coala_lib.lm.decoder import Decoder


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
    """

    steps: int = 4000
    batch: int = 16
    context: int = 256
    learning_rate: float = 3e-3
    warmup: float = 0.02
    decay: float = 0.3
    weight_decay: float = 0.05
    seed: int = 0


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


def next_token_loss(decoder: Decoder, rows: Int[Array, "B T1"]) -> Float[Array, ""]:
    """Mean negative log-likelihood of the next token, in nats."""
    hidden, _ = decoder(rows[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(decoder.logits(hidden[-1]), rows[:, 1:]).mean()


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


def train(
    decoder: Decoder,
    rows: Iterator[np.ndarray],
    config: TrainConfig,
    stop_after: int | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[Decoder, list[float]]:
    """Train on packed rows.

    Args:
        decoder: initial model; not changed.
        rows: stream of (context + 1,) token rows; `batch` of them are taken a step.
        config: how to train.
        stop_after: stop early, with the same schedule (to compare a trajectory).
        on_step: called with (step, loss) after each step, for checkpoints or logs.

    Returns:
        (trained decoder, loss of each step in nats per token).

    Raises:
        ValueError: where the rows run out.
    """
    graph, params = nnx.split(decoder)

    def is_matrix(tree: nnx.State) -> nnx.State:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)

    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule(config), b2=0.98, weight_decay=config.weight_decay, mask=is_matrix),
    )

    @jax.jit
    def step(params: nnx.State, state: optax.OptState, batch: Array) -> tuple[nnx.State, optax.OptState, Array]:
        loss, grads = jax.value_and_grad(lambda p: next_token_loss(nnx.merge(graph, p), batch))(params)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimiser.init(params), []
    with tqdm(total=min(stop_after or config.steps, config.steps), unit="step", desc="train") as bar:
        for index in range(bar.total):
            batch = [row for _, row in zip(range(config.batch), rows, strict=False)]
            if len(batch) < config.batch:
                raise ValueError(f"the rows ran out at step {index} of {bar.total}; give more text")
            params, state, loss = step(params, state, jnp.asarray(np.stack(batch)))
            losses.append(float(loss))
            if on_step is not None:
                on_step(index, losses[-1])
            bar.set_postfix(loss=f"{losses[-1]:.3f}", tokens=f"{(index + 1) * config.batch * config.context:,}")
            bar.update()
    return nnx.merge(graph, params), losses
