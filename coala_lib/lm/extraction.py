"""Pooled hidden states of prompt + response, several layers and poolings from one pass of the frozen decoder.

A row's features do not depend on what shares its batch, on padding, or on whether its prompt was shared.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from coala_lib.lm.batches import Batch, Batching, plan_batches
from coala_lib.lm.decoder import Cache, Decoder, empty_cache
from coala_lib.lm.pooling import Pooling, Reading, pool
from coala_lib.lm.tokenizer import Encoded


def check_sequences(sequences: Sequence[Encoded], decoder: Decoder, readings: Sequence[Reading]) -> None:
    """Refuse, before any work and by number, the first row that this model cannot read.

    Raises:
        ValueError: for no rows, an empty response, more tokens than the context, token ids outside the vocabulary,
            a layer the model does not have, or pooling by attention without a prompt.
    """
    config = decoder.config
    limit, V = config.max_position_embeddings, config.vocab_size
    for reading in readings:
        reading.check(config.num_hidden_layers)
    if not sequences:
        raise ValueError("there are no rows to read features from; give at least one")
    asks = any(reading.pooling == "attention" for reading in readings)
    for row, sequence in enumerate(sequences):
        if len(sequence.ids) <= sequence.n_prompt:
            raise ValueError(f"row {row}: the response has no tokens; remove the row")
        if len(sequence.ids) > limit:
            raise ValueError(f"row {row}: {len(sequence.ids)} tokens, the model reads {limit}; shorten the prompt")
        if not 0 <= min(sequence.ids) <= max(sequence.ids) < V:
            outside = next(token for token in sequence.ids if not 0 <= token < V)
            raise ValueError(f"row {row}: token {outside} is none of the model's {V}; use its own tokenizer")
        if asks and not sequence.n_prompt:
            raise ValueError(f"row {row}: pooling by attention needs a prompt; use 'mean' or 'last'")


def _read(
    hidden: Float[Array, "R B T d"],
    response: Bool[Array, "B T"],
    queries: Float[Array, "R B d"],
    layers: tuple[int, ...],
    readings: tuple[Reading, ...],
) -> Float[Array, "F B d"]:
    nth = jnp.cumsum(response, axis=1)

    def one(reading: Reading) -> Float[Array, "B d"]:
        at = layers.index(reading.layer)
        kept = response if reading.first is None else response & (nth <= reading.first)
        return pool(hidden[at].astype(jnp.float32), kept, queries[at].astype(jnp.float32), reading.pooling)

    return jnp.stack([one(reading) for reading in readings])


def _layers(readings: tuple[Reading, ...]) -> tuple[int, ...]:
    return tuple(sorted({reading.layer for reading in readings}))


@partial(nnx.jit, static_argnames=("readings",))
def read_whole(
    decoder: Decoder,
    tokens: Int[Array, "B T"],
    response: Bool[Array, "B T"],
    n_prompt: Int[Array, " B"],
    readings: tuple[Reading, ...],
) -> Float[Array, "F B d"]:
    layers = _layers(readings)
    hidden, _ = decoder(tokens, layers=layers)
    last = jnp.maximum(n_prompt - 1, 0)[None, :, None, None]
    return _read(hidden, response, jnp.take_along_axis(hidden, last, axis=2)[:, :, 0], layers, readings)


def repeat_rows(cache: Cache, times: int) -> Cache:
    """Every row of the cache `times` over, siblings side by side."""

    def widen(leaf: Array) -> Array:  # keys and values may stand layer by layer or stacked: the row is fourth from last
        axis = max(leaf.ndim - 4, 0)
        return jnp.repeat(leaf, times, axis=axis, total_repeat_length=leaf.shape[axis] * times)

    return jax.tree.map(lambda leaf: widen(leaf) if leaf.ndim else leaf, cache)


@partial(nnx.jit, static_argnames=("readings",))
def read_shared(
    decoder: Decoder,
    prompts: Int[Array, "b P"],
    start: Int[Array, " b"],
    tokens: Int[Array, "B T"],
    response: Bool[Array, "B T"],
    readings: tuple[Reading, ...],
) -> Float[Array, "F B d"]:
    layers, siblings = _layers(readings), tokens.shape[0] // prompts.shape[0]
    slots = prompts.shape[1] + tokens.shape[1]
    read, cache = decoder(prompts, empty_cache(decoder.config, start, slots, decoder.dtype), layers)
    hidden, _ = decoder(tokens, repeat_rows(cache, siblings), layers)
    queries = jnp.repeat(read[:, :, -1], siblings, axis=1, total_repeat_length=tokens.shape[0])
    return _read(hidden, response, queries, layers, readings)


def run_batch(
    decoder: Decoder, sequences: Sequence[Encoded], batch: Batch, readings: tuple[Reading, ...]
) -> Float[np.ndarray, "F n d"]:
    """Features of one batch, for the rows `batch.rows.ravel()`, float32.

    Args:
        decoder: frozen model.
        sequences: all rows of the plan.
        batch: one of its batches.
        readings: F readings.

    Returns:
        (F, b G, d) float32.
    """
    siblings = batch.rows.shape[1]
    rows = batch.lines * siblings
    tokens, response = np.zeros((rows, batch.response), np.int32), np.zeros((rows, batch.response), bool)
    n_prompt = np.zeros(rows, np.int32)
    for at, row in enumerate(batch.rows.ravel().tolist()):
        sequence = sequences[row]
        begin = sequence.n_prompt if batch.prompt else 0
        length, n_prompt[at] = len(sequence.ids) - begin, sequence.n_prompt
        tokens[at, :length] = sequence.ids[begin:]
        response[at, sequence.n_prompt - begin : length] = True
    if not batch.prompt:
        found = read_whole(decoder, tokens, response, n_prompt, readings)
    else:
        # prompts are padded on the left, so that all responses begin in the same slot
        prompts, start = np.zeros((batch.lines, batch.prompt), np.int32), np.zeros(batch.lines, np.int32)
        for at, row in enumerate(batch.rows[:, 0].tolist()):
            start[at] = batch.prompt - sequences[row].n_prompt
            prompts[at, start[at] :] = sequences[row].ids[: sequences[row].n_prompt]
        found = read_shared(decoder, prompts, start, tokens, response, readings)
    return np.asarray(found)[:, : batch.rows.size]


def sweep_features(
    decoder: Decoder, sequences: Sequence[Encoded], readings: Sequence[Reading], batching: Batching | None = None
) -> dict[Reading, Float[np.ndarray, "n d"]]:
    """Features of every reading, from one forward a row: a sweep over layers, poolings or prefixes costs no more.

    Readings with `first` = 1, 2, 4, ... are the features of growing prefixes of the response: scored by a head and
    handed to `evaluate.prefix_reliability` they say from which token on the head can be trusted.

    Args:
        decoder: frozen model.
        sequences: n encoded prompts with responses.
        readings: what to read.
        batching: how to cut batches.

    Returns:
        (n, d) float32 by reading; row i for sequence i.

    Raises:
        ValueError: see `check_sequences`.

    Example:
        >>> from coala_lib.lm.decoder import DecoderConfig
        >>> decoder = Decoder(DecoderConfig(32, 16, 32, 2, 2, 1, 64), nnx.Rngs(0))
        >>> found = sweep_features(decoder, [Encoded((1, 2, 3, 4), 2)], [Reading(1), Reading(1, first=2)])
        >>> [X.shape for X in found.values()], bool(np.allclose(*found.values()))
        ([(1, 16), (1, 16)], True)
    """
    readings, batching = tuple(readings), batching or Batching()
    check_sequences(sequences, decoder, readings)
    out = np.empty((len(readings), len(sequences), decoder.config.hidden_size), np.float32)
    plan = plan_batches(sequences, batching, decoder.config.max_position_embeddings)
    with tqdm(total=plan.tokens, unit="tok", unit_scale=True, desc="features", leave=False) as bar:
        for batch in plan.batches:
            out[:, batch.rows.ravel()] = run_batch(decoder, sequences, batch, readings)
            bar.update(batch.tokens)
    return dict(zip(readings, out, strict=True))


def pooled_features(
    decoder: Decoder,
    sequences: Sequence[Encoded],
    layer: int = -1,
    pooling: Pooling = "mean",
    batching: Batching | None = None,
) -> Float[np.ndarray, "n d"]:
    """Features of each prompt + response, (n, d) float32; `sweep_features` of one reading."""
    return sweep_features(decoder, sequences, [Reading(layer, pooling)], batching)[Reading(layer, pooling)]
