"""Sampling with a cache of keys and values: temperature, the k likeliest tokens, the nucleus of mass p, then a draw.

Every row draws from a key of its own, which depends on the seed, the prompt's number and the candidate's: so a reply
does not depend on what shares its batch, and the first candidate of any policy is what plain sampling would draw.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from coala_lib.lm.decoder import Cache, Decoder, empty_cache
from coala_lib.lm.extraction import repeat_rows
from coala_lib.lm.pooling import Reading, Running, absorb, start_running


def nucleus(
    logits: Float[Array, "B V"], temperature: Float[Array, ""] | float, top_k: int, top_p: float
) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    """The truncated distribution, likeliest token first.

    Args:
        logits: (B, V) float32.
        temperature: > 0; small values approach greedy decoding.
        top_k: keep the k likeliest tokens; V or more keeps all.
        top_p: of those keep the smallest set of mass at least top_p; the likeliest token always stays.

    Returns:
        (B, k) logits over temperature, -inf outside the nucleus, and the (B, k) tokens they belong to.

    Example:
        >>> kept, tokens = nucleus(jnp.log(jnp.array([[0.3, 0.5, 0.05, 0.15]])), 1.0, top_k=3, top_p=0.7)
        >>> jnp.isfinite(kept)[0].tolist(), tokens[0].tolist()
        ([True, True, False], [1, 0, 3])
    """
    best, tokens = jax.lax.top_k(logits / temperature, min(top_k, logits.shape[-1]))
    mass = jnp.cumsum(jax.nn.softmax(best, axis=-1), axis=-1)
    # a float32 sum of all masses reaches 1 before its last terms: top_p = 1 must keep them all the same
    below = mass[:, :-1] < (top_p if top_p < 1 else jnp.inf)
    inside = jnp.concatenate([jnp.ones_like(mass[:, :1], bool), below], axis=-1)
    return jnp.where(inside, best, -jnp.inf), tokens


def draw(
    keys: Key[Array, " B"], logits: Float[Array, "B V"], temperature: Float[Array, ""] | float, top_k: int, top_p: float
) -> Int[Array, " B"]:
    """Draw one token a row from the nucleus, each with its own key; at temperature 0 the likeliest.

    The full distribution (top_k = V, top_p = 1) is drawn from without sorting it.
    """
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if top_k == 1:
        return greedy
    warm = jnp.where(temperature > 0, temperature, jnp.float32(1))
    if top_k >= logits.shape[-1] and top_p == 1:
        drawn = jax.vmap(jax.random.categorical)(keys, logits / warm)
    else:
        kept, tokens = nucleus(logits, warm, top_k, top_p)
        drawn = jax.vmap(jax.random.categorical)(keys, kept)
        drawn = jnp.take_along_axis(tokens, drawn[:, None], axis=1)[:, 0]
    return jnp.where(temperature > 0, drawn.astype(jnp.int32), greedy)


@dataclass(frozen=True)
class Settings:
    """What a compiled loop is compiled for; temperature and stop tokens are no part of it, so a sweep compiles once.

    Attributes:
        top_k, top_p: see `nucleus`.
        reading: features to carry along.
    """

    top_k: int
    top_p: float
    reading: Reading


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """Replies that are being written, one a row.

    Attributes:
        cache: keys and values of prompt and reply.
        hidden: last state of the last token; the next one is drawn from it.
        query: state of the prompt's last token at the reading's layer.
        running: features of the reply so far.
        written: tokens of the reply.
        count: how many there are, the stop token among them.
        done: whether the stop token was drawn.
        keys: where each row's draws come from.
    """

    cache: Cache
    hidden: Float[Array, "B d"]
    query: Float[Array, "B d"]
    running: Running
    written: Int[Array, "B M"]
    count: Int[Array, " B"]
    done: Bool[Array, " B"]
    keys: Key[Array, " B"]


def prefill(
    decoder: Decoder,
    prompts: Int[Array, "b T"],
    start: Int[Array, " b"],
    keys: Key[Array, " B"],
    room: int,
    settings: Settings,
) -> Rows:
    """Read each prompt once, and open B / b empty replies behind each.

    Args:
        decoder: frozen model.
        prompts: tokens, padded on the left.
        start: padding of each prompt.
        keys: one a reply, siblings side by side.
        room: tokens a reply at most.
        settings: what to read along.

    Returns:
        `Rows` that have written nothing.
    """
    batch, rows = prompts.shape[0], keys.shape[0]
    cache = empty_cache(decoder.config, start, prompts.shape[1] + room, decoder.dtype)
    hidden, cache = decoder(prompts, cache, (settings.reading.layer, -1))
    query, last = jnp.repeat(hidden[:, :, -1], rows // batch, axis=1, total_repeat_length=rows)
    return Rows(
        cache=repeat_rows(cache, rows // batch),
        hidden=last,
        query=query.astype(jnp.float32),
        running=start_running(rows, decoder.config.hidden_size),
        written=jnp.zeros((rows, room), jnp.int32),
        count=jnp.zeros((rows,), jnp.int32),
        done=jnp.zeros((rows,), bool),
        keys=keys,
    )


def grow(
    decoder: Decoder,
    rows: Rows,
    at: Int[Array, ""],
    steps: int,
    temperature: Float[Array, ""],
    stop: Int[Array, " s"],
    settings: Settings,
) -> tuple[Rows, Array]:
    """Write up to `steps` more tokens in every row, fewer where all rows have stopped.

    The state a token is drawn from and the state it is scored by come from the same forward of one token.

    Args:
        decoder: frozen model.
        rows: replies of `at` tokens, or stopped ones.
        at: tokens drawn so far.
        steps: tokens at most.
        temperature: of the draws; 0 is greedy.
        stop: tokens that end a reply.
        settings: how to draw.

    Returns:
        The longer replies, and how many tokens were drawn in all.
    """
    until = at + steps

    def more(carry: tuple[Rows, Array]) -> Array:
        return (carry[1] < until) & ~carry[0].done.all()

    def token(carry: tuple[Rows, Array]) -> tuple[Rows, Array]:
        r, at = carry
        keys = jax.vmap(jax.random.fold_in, (0, None))(r.keys, at)
        logits = decoder.logits(r.hidden[:, None])[:, 0]
        drawn = draw(keys, logits, temperature, settings.top_k, settings.top_p)
        drawn = jnp.where(r.done, stop[0], drawn)
        hidden, cache = decoder(drawn[:, None], r.cache, (settings.reading.layer, -1))
        live, first = ~r.done, settings.reading.first
        # the stop token belongs to the reply, as it does in the features the head was trained on
        pooled = live if first is None else live & (r.count < first)
        state = hidden[0, :, 0].astype(jnp.float32)
        rows = Rows(
            cache=cache,
            hidden=hidden[1, :, 0],
            query=r.query,
            running=absorb(r.running, state, r.query, pooled, settings.reading.pooling),
            written=jax.lax.dynamic_update_slice_in_dim(r.written, drawn[:, None], at, axis=1),
            count=r.count + live.astype(jnp.int32),
            done=r.done | (drawn[:, None] == stop[None]).any(axis=1),
            keys=r.keys,
        )
        return rows, at + 1

    return jax.lax.while_loop(more, token, (rows, at))
