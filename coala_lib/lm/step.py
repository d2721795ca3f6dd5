"""One optimiser step of any loss: value, gradient and update, compiled once, whatever is trained.

A loss gives sums over its rows, so that a batch can be computed in parts and still weigh every row the same.
The step is a pure function of arrays: it can also be lowered from abstract ones, to count what it would cost.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from coala_lib.lm.decoder import Decoder

Batch = Any  # rows stacked: a pytree of arrays whose first axis is the batch
# measures by name: sums over the rows, as the loss is; they are reported over the same number of terms
Measures = dict[str, Float[Array, ""]]
Loss = Callable[[Decoder, Batch], tuple[Float[Array, ""], tuple[Float[Array, ""], Measures]]]
Step = Callable[
    [nnx.State, nnx.State, optax.OptState, Batch], tuple[nnx.State, optax.OptState, Float[Array, ""], Measures]
]


def make_step(graph: nnx.GraphDef, optimiser: optax.GradientTransformation, loss: Loss, accumulate: int = 1) -> Step:
    """The step (params, frozen, optimiser state, batch) -> (params, optimiser state, loss, measures), not yet jitted.

    Args:
        graph: of the decoder; `graph, params, frozen = nnx.split(decoder, trainable, ...)`.
        optimiser: what turns gradients into updates.
        loss: the sum over the batch of what is minimised, and how many terms it has, with sums to report.
        accumulate: equal parts the batch is computed in, one after the other, to save memory.

    Returns:
        The step; its loss and measures are means over the terms.
    """

    def gradients(params: nnx.State, frozen: nnx.State, batch: Batch) -> tuple[nnx.State, Array, Array, Measures]:
        def total(params: nnx.State) -> tuple[Array, tuple[Array, Measures]]:
            return loss(nnx.merge(graph, params, frozen), batch)

        (value, (terms, measures)), found = jax.value_and_grad(total, has_aux=True)(params)
        return found, value, terms, measures

    def step(
        params: nnx.State, frozen: nnx.State, state: optax.OptState, batch: Batch
    ) -> tuple[nnx.State, optax.OptState, Array, Measures]:
        parts = jax.tree.map(lambda leaf: leaf.reshape(accumulate, -1, *leaf.shape[1:]), batch)
        found = gradients(params, frozen, jax.tree.map(lambda leaf: leaf[0], parts))
        if accumulate > 1:
            rest = jax.tree.map(lambda leaf: leaf[1:], parts)

            def add(so_far: tuple, part: Batch) -> tuple[tuple, None]:
                return jax.tree.map(jnp.add, so_far, gradients(params, frozen, part)), None

            found, _ = jax.lax.scan(add, found, rest)
        grads, value, terms, measures = found
        updates, state = optimiser.update(jax.tree.map(lambda g: g / terms.astype(g.dtype), grads), state, params)
        means = {name: total / terms for name, total in measures.items()}
        return optax.apply_updates(params, updates), state, value / terms, means

    return step
