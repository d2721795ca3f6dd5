"""The state of a training run in one file, so that a run that was killed ends as if it had not been."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from coala_lib._files import replacing


class TrainingState(NamedTuple):
    """What a step leaves behind: trained parameters, the optimiser's memory, and the loss of every step so far."""

    params: nnx.State
    optimiser: optax.OptState
    losses: list[float]


def save_state(file: str | os.PathLike[str], state: TrainingState) -> None:
    """Write the state, whole or not at all."""
    leaves = jax.tree.leaves((state.params, state.optimiser))
    tensors = {f"{number:05d}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
    with replacing(file) as temporary:
        save_file(tensors | {"losses": np.array(state.losses)}, temporary)


def load_state(file: str | os.PathLike[str], start: TrainingState, rows: Iterator[Any], batch: int) -> TrainingState:
    """The state in the file, and the stream of rows moved on to it; the start itself where there is no file.

    Args:
        file: what `save_state` wrote, or nothing yet.
        start: the state before the first step, which gives the shapes.
        rows: stream of rows; those of the steps done are taken from it.
        batch: rows a step.

    Returns:
        The state to go on from.

    Raises:
        ValueError: one sentence, where the file is damaged or of a model of other shapes.
    """
    if not Path(file).exists():
        return start
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); delete it and train again") from None
    leaves, tree = jax.tree.flatten((start.params, start.optimiser))
    names = [f"{number:05d}" for number in range(len(leaves))]
    if set(found) != {*names, "losses"} or any(
        (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype)
        for name, leaf in zip(names, leaves, strict=True)
    ):
        raise ValueError(f"{file} is of another model or another choice of parameters; delete it and train again")
    params, optimiser = jax.tree.unflatten(tree, [jnp.asarray(found[name]) for name in names])
    losses = found["losses"].tolist()
    for _ in itertools.islice(rows, len(losses) * batch):
        pass
    return TrainingState(params, optimiser, losses)
