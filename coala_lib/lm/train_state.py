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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from coala_lib._files import replacing

History = dict[str, list[float]]  # "loss" and whatever else a step reports, one number a step
PAST = "history/"


class TrainingState(NamedTuple):
    """What a step leaves behind: trained parameters, the optimiser's memory, and what every step so far reported."""

    params: nnx.State
    optimiser: optax.OptState
    history: History

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.history.get("loss", []))


def save_state(file: str | os.PathLike[str], state: TrainingState, identity: str = "") -> None:
    """Write the state, whole or not at all, and what run it belongs to."""
    leaves = jax.tree.leaves((state.params, state.optimiser))
    tensors = {f"{number:05d}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
    tensors |= {PAST + name: np.array(values) for name, values in state.history.items()}
    with replacing(file) as temporary:
        save_file(tensors, temporary, {"identity": identity})


def load_state(
    file: str | os.PathLike[str], start: TrainingState, rows: Iterator[Any], batch: int, identity: str = ""
) -> TrainingState:
    """The state in the file, and the stream of rows moved on to it; the start itself where there is no file.

    Args:
        file: what `save_state` wrote, or nothing yet.
        start: the state before the first step, which gives the shapes.
        rows: stream of rows; those of the steps done are taken from it.
        batch: rows a step.
        identity: what run the file must belong to.

    Returns:
        The state to go on from.

    Raises:
        ValueError: one sentence, where the file is damaged, of another run, or of a model of other shapes.
    """
    if not Path(file).exists():
        return start
    try:
        with safe_open(file, "numpy") as opened:
            theirs = (opened.metadata() or {}).get("identity", "")
        found = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); delete it and train again") from None
    if theirs != identity:
        raise ValueError(f"{file} is of another run ({theirs!r}, not {identity!r}); delete it or name another file")
    history = {name.removeprefix(PAST): found.pop(name).tolist() for name in list(found) if name.startswith(PAST)}
    leaves, tree = jax.tree.flatten((start.params, start.optimiser))
    names = [f"{number:05d}" for number in range(len(leaves))]
    if set(found) != set(names) or any(
        (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype)
        for name, leaf in zip(names, leaves, strict=True)
    ):
        raise ValueError(f"{file} is of another model or another choice of parameters; delete it and train again")
    params, optimiser = jax.tree.unflatten(tree, [jnp.asarray(found[name]) for name in names])
    state = TrainingState(params, optimiser, history)
    for _ in itertools.islice(rows, state.steps * batch):
        pass
    return state
