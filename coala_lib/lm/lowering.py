"""The project's own steps with abstract arrays for arguments: what is counted, or compiled ahead, is what runs.

Each builder gives a function and shapes in place of its arguments, so that an 8B model needs no weights: extracting
features, one optimiser step of any loss, the pass of a reference model, and guided sampling.

This file stands in lm/ because it builds the decoder; `evidence.flops`, which counts, knows no model.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from coala_lib.lm.branching import write
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import abstract_decoder
from coala_lib.lm.extraction import read_shared, read_whole
from coala_lib.lm.lora import Adapter, LoraConfig, add_lora
from coala_lib.lm.pairs import PairRows, pair_logps
from coala_lib.lm.policy import Policy
from coala_lib.lm.pooling import Reading
from coala_lib.lm.sampling import Settings
from coala_lib.lm.step import Loss, make_step
from coala_lib.lm.train import TrainConfig, make_optimiser
from coala_lib.preference.phase_one import relu_reward


class Abstract(NamedTuple):
    """A function and its abstract arguments: `count_flops(*step.parts)` counts it, `step.lower()` is what XLA sees."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    @property
    def parts(self) -> tuple[Any, ...]:
        """The function, then its arguments."""
        return self.function, *self.arguments

    def lower(self) -> jax.stages.Lowered:
        """The program, neither compiled nor optimised."""
        return jax.jit(self.function).lower(*self.arguments)


def _array(*shape: int, dtype: DTypeLike = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@cache
def _decoder(
    config: DecoderConfig, dtype: DTypeLike, scan: bool = False, remat: bool = False, lora: LoraConfig | None = None
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Graph, trained and frozen shapes of a model: laying out 32 layers takes longer than tracing a loop over them."""
    decoder = abstract_decoder(config, dtype, scan=scan, remat=remat)
    if lora is None:
        return nnx.split(decoder, nnx.Param, ...)
    adapted = nnx.eval_shape(lambda bare, key: add_lora(bare, lora, key), decoder, jax.random.key(0))
    return nnx.split(adapted, Adapter, ...)


def feature_step(
    config: DecoderConfig,
    pairs: int,
    prompt: int,
    response: int,
    *,
    layer: int = -1,
    shared: bool = False,
    dtype: DTypeLike = jnp.bfloat16,
) -> Abstract:
    """Features of both responses of some pairs, by `extraction`.

    Args:
        config: shape of the model.
        pairs: how many, two rows each.
        prompt, response: tokens of each.
        layer: hidden state to read, and to stop at.
        shared: read the prompt once for both responses.
        dtype: of the weights.

    Returns:
        The step, layers unrolled.

    Example:
        >>> step = feature_step(DecoderConfig(32, 16, 32, 2, 2, 1, 64), 3, prompt=5, response=4)
        >>> jax.eval_shape(step.function, *step.arguments).shape
        (1, 6, 16)
    """
    graph, state, rest = _decoder(config, dtype)
    readings, rows = (Reading(layer),), 2 * pairs

    def whole(state: nnx.State, *data: jax.Array) -> jax.Array:
        return read_whole(nnx.merge(graph, state, rest), *data, readings)

    def by_prompt(state: nnx.State, *data: jax.Array) -> jax.Array:
        return read_shared(nnx.merge(graph, state, rest), *data, readings)

    length = response if shared else prompt + response
    tokens, mask = _array(rows, length), _array(rows, length, dtype=jnp.bool)
    if shared:
        return Abstract(by_prompt, (state, _array(pairs, prompt), _array(pairs), tokens, mask))
    return Abstract(whole, (state, tokens, mask, _array(rows)))


def pair_batch(pairs: int, length: int) -> PairRows:
    """Abstract `PairRows` of `length` predicted tokens."""
    reference = _array(pairs, 2, dtype=jnp.float32)
    return PairRows(_array(pairs, 2, length + 1), _array(pairs, 2, length, dtype=jnp.bool), reference)


def response_batch(rows: int, length: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Abstract rows of supervised fine-tuning."""
    return _array(rows, length + 1), _array(rows, length, dtype=jnp.bool)


def reference_step(
    config: DecoderConfig, pairs: int, length: int, *, dtype: DTypeLike = jnp.bfloat16, scan: bool = True
) -> Abstract:
    """Log-probabilities that a frozen model gives both responses of some pairs: what DPO's reference costs."""
    graph, state, rest = _decoder(config, dtype, scan)
    return Abstract(
        lambda state, rows: pair_logps(nnx.merge(graph, state, rest), rows), (state, pair_batch(pairs, length))
    )


def training_step(
    config: DecoderConfig,
    loss: Loss,
    batch: Any,
    *,
    lora: LoraConfig | None = None,
    remat: bool = False,
    scan: bool = True,
    accumulate: int = 1,
    dtype: DTypeLike = jnp.bfloat16,
) -> Abstract:
    """One optimiser step of a loss, the one that `train.run` compiles.

    Args:
        config: shape of the model.
        loss: of a decoder and a batch, such as `preference_loss("dpo")`.
        batch: abstract, such as `pair_batch(4, 256)`.
        lora: train adapters; None trains all weights.
        remat, scan: see `Decoder`.
        accumulate: parts of the batch.
        dtype: of the weights; adapters are float32.

    Returns:
        The step: (trained, frozen, optimiser's state, batch) to new ones, loss and measures.
    """
    graph, trained, frozen = _decoder(config, dtype, scan, remat, lora)
    optimiser = make_optimiser(TrainConfig())
    step = make_step(graph, optimiser, loss, accumulate)
    return Abstract(step, (trained, frozen, jax.eval_shape(optimiser.init, trained), batch))


def decoding_step(
    config: DecoderConfig, prompt: int, policy: Policy, *, neurons: int = 64, dtype: DTypeLike = jnp.bfloat16
) -> Abstract:
    """One guided reply: `branching.write`, whose two loops run n_choices and `chunk` times.

    Args:
        config: shape of the model.
        prompt: tokens.
        policy: candidates, chunk and length of the reply.
        neurons: of the head that scores.
        dtype: of the weights.

    Returns:
        The step; give its trips to `count_flops`.
    """
    graph, state, rest = _decoder(config, dtype)
    d, real = config.hidden_size, jnp.float32
    shapes = (d,), (d,), (neurons, d), (neurons,)
    head = jax.tree_util.Partial(relu_reward, *(_array(*shape, dtype=real) for shape in shapes))
    settings = Settings(policy.top_k, policy.top_p, Reading())
    sizes = {"n_candidates": policy.n_candidates, "chunk": policy.chunk, "room": policy.max_new_tokens}

    def reply(state: nnx.State, *data: Any) -> Any:
        return write(nnx.merge(graph, state, rest), *data, settings, **sizes)

    keys = jax.eval_shape(lambda key: jax.random.split(key, 1), jax.random.key(0))
    number = _array(dtype=real)
    return Abstract(reply, (state, _array(1, prompt), _array(1), keys, _array(), head, number, number, _array(1)))
