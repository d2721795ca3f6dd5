"""Preference fine-tuning of a decoder by any baseline of `preference/baselines.py`, on the loop of `train.py`.

Full training or adapters, in parts and with `Decoder(remat=True)` where memory is short; a killed run goes on from its
checkpoint and ends with the same bits. Full training of bfloat16 weights loses updates smaller than their rounding:
small learning rates want adapters, which stay in float32, or float32 weights.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.pairs import EncodedPair, PairRows, pair_logps, pair_rows
from coala_lib.lm.reference import fingerprints, with_reference
from coala_lib.lm.rows import shuffled
from coala_lib.lm.step import Measures
from coala_lib.lm.train import TrainConfig, run
from coala_lib.lm.train_state import History
from coala_lib.preference.baselines import BASELINES, hyper_parameters, objective, pair_metrics


@dataclass(frozen=True)
class PreferenceLoss:
    """The `Loss` of a baseline on `PairRows` (or a tuple of the same arrays); it reports TRL's metrics.

    Equal ones are one loss to the compiler. Made by `preference_loss`, which checks.

    Attributes:
        name: of `preference.baselines.BASELINES`.
        hyper: names and values of its hyper-parameters.
    """

    name: str
    hyper: tuple[tuple[str, float | str], ...]

    def __call__(
        self, decoder: Decoder, rows: tuple[Array, Array, Array]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Measures]]:
        pairs, hyper = pair_logps(decoder, PairRows(*rows)), dict(self.hyper)
        values = objective(self.name, **hyper)(pairs)
        measures = {key: value.sum() for key, value in pair_metrics(self.name, pairs, **hyper).items()}
        return values.sum(), (jnp.float32(values.shape[0]), measures)


def preference_loss(name: str, **hyper: float | str) -> PreferenceLoss:
    """The loss of a baseline, its other hyper-parameters at their defaults.

    Raises:
        ValueError: naming an unknown baseline or hyper-parameter.

    Example:
        >>> from coala_lib.lm.config import DecoderConfig
        >>> from coala_lib.lm.tokenizer import Encoded
        >>> decoder = Decoder(DecoderConfig(8, 8, 8, 1, 1, 1, 8), nnx.Rngs(0))
        >>> rows = pair_rows([(Encoded((1, 2, 3), 2), Encoded((1, 2, 4), 2))] * 2, context=4)
        >>> batch = tuple(jnp.asarray(part) for part in with_reference(decoder, rows))
        >>> total, (pairs, _) = preference_loss("dpo")(decoder, batch)
        >>> round(float(total / pairs), 4)
        0.6931
    """
    return PreferenceLoss(name, tuple(hyper_parameters(name, **hyper).items()))


def shuffled_pairs(rows: PairRows, seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """All pairs without end, each as a tuple of its arrays, in the order of `rows.shuffled`."""
    return (tuple(part[at] for part in rows) for at in shuffled(len(rows.tokens), seed))


def train_preferences(
    decoder: Decoder,
    pairs: Sequence[EncodedPair] | PairRows,
    name: str,
    config: TrainConfig,
    *,
    hyper: Mapping[str, float | str] | None = None,
    reference: Decoder | None = None,
    cache: str | os.PathLike[str] | None = None,
    trainable: type[nnx.Param] = nnx.Param,
    **more: Any,
) -> tuple[Decoder, History]:
    """Fine-tune on preference pairs.

    Args:
        decoder: initial model; not changed. With adapters, pass `trainable=Adapter`.
        pairs: encoded pairs, or their rows (a `reference` that is not all zero is taken as it stands).
        name: of `preference.baselines.BASELINES`.
        config: how to train; `context` is the tokens a row, `seed` orders the pairs.
        hyper: hyper-parameters of the baseline, where they are not the defaults.
        reference: the reference model, by default the initial one; read only where the baseline needs it.
        cache: file of the reference's sums, see `with_reference`.
        trainable: which parameters move.
        more: `stop_after`, `on_step`, `checkpoint` and `every` of `train.run`; a checkpoint of another baseline,
            configuration, model or other pairs is refused.

    Returns:
        (trained decoder, "loss" and TRL's metrics by step: means over the step's pairs before its update).

    Raises:
        ValueError: for an unknown baseline or hyper-parameter, pairs that do not fit, or files of another run.
    """
    values = hyper_parameters(name, **(hyper or {}))
    loss = preference_loss(name, **values)
    rows = pairs if isinstance(pairs, PairRows) else pair_rows(pairs, config.context)
    if BASELINES[name].needs_reference and not rows.reference.any():
        rows = with_reference(reference or decoder, rows, batch=config.batch, cache=cache)
    identity = ""
    if more.get("checkpoint") is not None:
        identity = f"{name} {values} {config} {trainable.__name__} {fingerprints(decoder, rows)}"
    return run(decoder, shuffled_pairs(rows, config.seed), config, loss, trainable=trainable, identity=identity, **more)
