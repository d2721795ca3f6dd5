"""Preference pairs as arrays, and the log-probabilities a decoder gives them.

A row is a pair: chosen and rejected, padded on the right to one width, with the reference's sums beside them.
Log-probabilities are summed over the response in float32, whatever the weights are; prompt and padding count nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from coala_lib.corpora.triplets import Triplet
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.rows import padded
from coala_lib.lm.tokenizer import Encoded, PreTrainedTokenizerFast, encode
from coala_lib.lm.train import token_losses
from coala_lib.preference.baselines import PairLogps

EncodedPair = tuple[Encoded, Encoded]  # chosen and rejected


class PairRows(NamedTuple):
    """Pairs as arrays.

    Attributes:
        tokens: (N, 2, T + 1) chosen and rejected, padded on the right.
        response: (N, 2, T) which targets belong to the response.
        reference: (N, 2) the reference's sums; zeros where none is used.
    """

    tokens: Int[np.ndarray, "N 2 T1"]
    response: Bool[np.ndarray, "N 2 T"]
    reference: Float[np.ndarray, "N 2"]


def encode_pairs(tokenizer: PreTrainedTokenizerFast, triplets: Sequence[Triplet]) -> list[EncodedPair]:
    """Both sides of every triplet as token ids."""
    return [
        (encode(tokenizer, t["prompt"], t["chosen"]), encode(tokenizer, t["prompt"], t["rejected"])) for t in triplets
    ]


def pair_rows(pairs: Sequence[EncodedPair], context: int) -> PairRows:
    """Pad pairs to one width.

    Args:
        pairs: chosen and rejected of each pair.
        context: tokens a row, less the one that is only a target.

    Returns:
        `PairRows` without a reference.

    Raises:
        ValueError: for no pairs, or naming the pair with a row without a prompt or response, or too long.

    Example:
        >>> rows = pair_rows([(Encoded((5, 6, 7), 2), Encoded((5, 6, 8, 9), 2))], context=3)
        >>> rows.tokens[0].tolist(), rows.response[0, 0].tolist()
        ([[5, 6, 7, 0], [5, 6, 8, 9]], [False, True, False])
    """
    if not pairs:
        raise ValueError("there are no pairs to train on; give at least one")
    sides = []
    for side, name in enumerate(("chosen", "rejected")):
        try:
            tokens, response = zip(*padded([pair[side] for pair in pairs], context), strict=True)
        except ValueError as error:
            raise ValueError(f"{name} response of {error}") from None
        sides.append((np.stack(tokens), np.stack(response)))
    tokens, response = (np.stack(part, axis=1) for part in zip(*sides, strict=True))
    return PairRows(tokens, response, np.zeros((len(pairs), 2), np.float32))


def sequence_logps(
    decoder: Decoder, tokens: Int[Array, "B T1"], response: Bool[Array, "B T"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Sum of the response's token log-probabilities, and how many tokens it has; both (B,) float32.

    Args:
        decoder: the model.
        tokens: padded rows, as `rows.padded` makes them.
        response: which targets count; the prompt and the padding do not.
    """
    losses = token_losses(decoder, tokens)
    return -jnp.where(response, losses, 0).sum(axis=1), response.sum(axis=1).astype(jnp.float32)


def pair_logps(decoder: Decoder, rows: PairRows) -> PairLogps:
    """Log-probabilities of both sides of B pairs, from one forward of 2B rows."""
    tokens, response, reference = rows
    flat = (part.reshape(-1, part.shape[-1]) for part in (tokens, response))
    sums, lengths = (part.reshape(-1, 2) for part in sequence_logps(decoder, *flat))
    return PairLogps(sums[:, 0], sums[:, 1], lengths[:, 0], lengths[:, 1], reference[:, 0], reference[:, 1])


@nnx.jit
def _pair_logps(decoder: Decoder, rows: tuple[Array, Array, Array]) -> PairLogps:
    return pair_logps(decoder, PairRows(*rows))


def read_pairs(decoder: Decoder, rows: PairRows, batch: int = 64) -> PairLogps:
    """Log-probabilities of all pairs as (N,) numpy arrays, `batch` pairs at a time.

    Args:
        decoder: the model.
        rows: pairs; their `reference` is passed on.
        batch: pairs a forward; the last one is filled up, so that one program serves all.
    """
    batch, found = min(batch, len(rows.tokens)), []
    for begin in tqdm(range(0, len(rows.tokens), batch), desc="log-probabilities", unit="batch", leave=False):
        part = [leaf[begin : begin + batch] for leaf in rows]
        room = [(0, batch - len(part[0]))]
        # an empty response would divide by nothing: the last pair fills the batch
        full = tuple(np.pad(leaf, room + [(0, 0)] * (leaf.ndim - 1), mode="edge") for leaf in part)
        found.append(_pair_logps(decoder, full))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(rows.tokens)], *found)
