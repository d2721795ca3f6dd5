"""Candidates that share a prefix: the compiled loop of guided sampling.

Grow every candidate by a chunk, score what it has written, let all siblings go on from the winner, and again.
Prompts are read once; scores come from the states that the next token is drawn from anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from coala_lib.lm.decoder import Cache, Decoder
from coala_lib.lm.sampling import Rows, Settings, grow, prefill

Scorer = Callable[[Float[Array, "B d"], PRNGKeyArray], Float[Array, " B"]]
SELECTION = (
    2**31 - 1
)  # candidates' keys are numbered from 0; this number is the soft choice's, the one before the scorer's


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tally:
    """What each prompt took: tokens drawn, choices made, choices in which plain sampling would have written else."""

    drawn: Int[Array, " b"]
    choices: Int[Array, " b"]
    overruled: Int[Array, " b"]


def adopt(rows: Rows, winner: Int[Array, " B"], at: Int[Array, ""], chunk: int) -> Rows:
    """Every row goes on from its winner.

    Siblings differ in the last `chunk` slots of the cache alone; to copy all slots would cost as much as a token.
    """

    def tail(leaf: Array) -> Array:  # (..., row, slot, head, size)
        row, slot = leaf.ndim - 4, leaf.ndim - 3
        begin = at + leaf.shape[slot] - rows.written.shape[1]
        kept = jnp.take(jax.lax.dynamic_slice_in_dim(leaf, begin, chunk, slot), winner, axis=row)
        return jax.lax.dynamic_update_slice_in_dim(leaf, kept, begin, slot)

    cache: Cache = replace(rows.cache, k=jax.tree.map(tail, rows.cache.k), v=jax.tree.map(tail, rows.cache.v))
    moved = {name: getattr(rows, name)[winner] for name in ("hidden", "written", "count", "done")}
    return replace(rows, cache=cache, running=jax.tree.map(lambda leaf: leaf[winner], rows.running), **moved)


@partial(nnx.jit, static_argnames=("settings", "n_candidates", "chunk", "room"))
def write(
    decoder: Decoder,
    prompts: Int[Array, "b T"],
    start: Int[Array, " b"],
    keys: Key[Array, " b"],
    n_real: Int[Array, ""],
    score: Scorer,
    softness: Float[Array, ""],
    temperature: Float[Array, ""],
    stop: Int[Array, " s"],
    settings: Settings,
    *,
    n_candidates: int,
    chunk: int,
    room: int,
) -> dict[str, Array]:
    """Answer a batch of prompts; see `guided.generate` for what its arguments mean.

    Args:
        decoder: frozen model.
        prompts, start: tokens padded on the left, and how much padding there is.
        keys: one a prompt.
        n_real: lines that hold a prompt; the rest only fill the batch up.
        score, softness, temperature, stop, settings, n_candidates, chunk: how to draw and to choose.
        room: tokens a reply at most.

    Returns:
        For each prompt `tokens` (b, M), `count` of them, `done` where the last one is a stop token, `features` (b, d),
        `scores`; tokens `drawn` over its candidates, `choices` made and `overruled`; and the `steps` of the loop, ().
    """
    batch, K = prompts.shape[0], n_candidates
    fold = jax.vmap(jax.random.fold_in, (0, None))
    candidates = jax.vmap(fold, (None, 0), 1)(keys, jnp.arange(K)).reshape(batch * K)
    scoring, choosing = jax.random.fold_in(keys[0], SELECTION - 1), fold(keys, SELECTION)
    first = jnp.arange(batch) * K

    def score_at(rows: Rows, at: Int[Array, ""]) -> Float[Array, " B"]:
        return score(rows.running.features, jax.random.fold_in(scoring, at))

    def choose(carry: tuple[Rows, Array, Tally]) -> tuple[Rows, Array, Tally]:
        before, begin, tally = carry
        rows, at = grow(decoder, before, begin, chunk, temperature, stop, settings)
        drawn = tally.drawn + (rows.count - before.count).reshape(batch, K).sum(axis=1)
        if K == 1:
            return rows, at, replace(tally, drawn=drawn)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (K,)))(fold(choosing, begin))
        winner = first + jnp.argmax(score_at(rows, begin).reshape(batch, K) + softness * noise, axis=1)
        made = ~before.done[first]
        rewritten = made & (rows.written[winner] != rows.written[first]).any(axis=1)
        counts = (tally.choices + made.astype(jnp.int32), tally.overruled + rewritten.astype(jnp.int32))
        return (
            adopt(rows, jnp.repeat(winner, K, total_repeat_length=batch * K), begin, chunk),
            at,
            Tally(drawn, *counts),
        )

    rows = prefill(decoder, prompts, start, candidates, room, settings)
    # lines that only fill the batch up have nothing to write, and nobody waits for them
    rows = replace(rows, done=jnp.arange(batch * K) >= n_real * K)
    none = jnp.zeros((batch,), jnp.int32)
    rows, at, tally = jax.lax.while_loop(
        lambda carry: (carry[1] < room) & ~carry[0].done.all(),
        choose,
        (rows, jnp.zeros((), jnp.int32), Tally(none, none, none)),
    )
    scores = score_at(rows, jnp.asarray(room, jnp.int32))
    found = {"tokens": rows.written, "count": rows.count, "done": rows.done, "features": rows.running.features}
    mine = {name: leaf[first] for name, leaf in (found | {"scores": scores}).items()}
    return mine | {"drawn": tally.drawn, "choices": tally.choices, "overruled": tally.overruled, "steps": at}
