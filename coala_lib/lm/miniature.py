"""A language model small enough to train in a second: short strings, a network that sees four symbols back.

Whole experiments on preference losses compile into one program, and every quantity can be known exactly: the strings
have a reward that is counted (good symbols less bad ones), and log-probabilities cost nothing. A string is (ROOM,)
symbols; `END` ends it and fills the places behind it. Not a model of text: it shows how losses move a policy.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from coala_lib.preference.baselines import PairLogps

SYMBOLS, ROOM, CONTEXT, WIDTH = 8, 12, 4, 48
END, START = SYMBOLS, SYMBOLS + 1  # behind the symbols 0 to 7; symbol 0 is the good one, 1 the bad one
Model = dict[str, Float[Array, "..."]]


def blank(key: PRNGKeyArray) -> Model:
    """An untrained network: one hidden layer over the one-hot symbols before a place."""
    first, second = jax.random.split(key)
    return {
        "in": 0.3 * jax.random.normal(first, (CONTEXT * (START + 1), WIDTH)),
        "out": 0.1 * jax.random.normal(second, (WIDTH, START)),
        "bias": jnp.zeros((1, WIDTH)),
        "start": jnp.zeros((1, START)),
    }


def _hidden(model: Model, windows: Float[Array, "n w"]) -> Float[Array, "n WIDTH"]:
    return jnp.tanh(windows @ model["in"] + model["bias"])


def next_logps(model: Model, windows: Float[Array, "n w"]) -> Float[Array, "n V"]:
    """Log-probabilities of the next symbol, `END` among them, behind windows of one-hot symbols."""
    return jax.nn.log_softmax(_hidden(model, windows) @ model["out"] + model["start"])


def one_hot(strings: Int[Array, "*s ROOM"]) -> tuple[Float[Array, "*s ROOM w"], Float[Array, "*s ROOM V"]]:
    """Windows and targets of every place, one-hot; targets behind the end are zero.

    Example:
        >>> windows, targets = one_hot(jnp.array([3, 0] + [END] * 10))
        >>> targets.sum(axis=1).tolist()[:4]
        [1.0, 1.0, 1.0, 0.0]
    """
    room = [(0, 0)] * (strings.ndim - 1) + [(CONTEXT, 0)]
    before = jnp.pad(strings, room, constant_values=START)
    windows = jnp.stack([before[..., k : k + ROOM] for k in range(CONTEXT)], axis=-1)
    ended = jnp.cumsum(strings == END, axis=-1)
    live = (ended == 0) | ((ended == 1) & (strings == END))
    hot = jax.nn.one_hot(windows, START + 1).reshape(*strings.shape, -1)
    return hot, jax.nn.one_hot(strings, START) * live[..., None].astype(jnp.float32)


def token_logps(
    model: Model, windows: Float[Array, "*s ROOM w"], targets: Float[Array, "*s ROOM V"]
) -> Float[Array, "*s ROOM"]:
    """Log-probability of the symbol at every place, zero behind the end."""
    flat = next_logps(model, windows.reshape(-1, windows.shape[-1]))
    return (flat.reshape(targets.shape) * targets).sum(-1)


def features(
    model: Model, windows: Float[Array, "*s ROOM w"], targets: Float[Array, "*s ROOM V"]
) -> Float[Array, "*s WIDTH"]:
    """What a head reads of strings: the hidden layer, mean over the places up to the end."""
    hidden = _hidden(model, windows.reshape(-1, windows.shape[-1])).reshape(*windows.shape[:-1], -1)
    live = targets.sum(-1, keepdims=True)
    return (hidden * live).sum(-2) / live.sum(-2)


def pair_logps(
    model: Model, windows: Float[Array, "N 2 ROOM w"], targets: Float[Array, "N 2 ROOM V"], reference: Array
) -> PairLogps:
    """What the losses see of pairs of strings; `reference` holds the (N, 2) sums of the reference."""
    sums, tokens = token_logps(model, windows, targets).sum(-1), targets.sum((-1, -2))
    return PairLogps(*sums.T, *tokens.T, *reference.T)


def draw(model: Model, key: PRNGKeyArray, n: int) -> Int[Array, "n ROOM"]:
    """n strings from the model."""

    def place(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        window, done = carry
        hot = jax.nn.one_hot(window, START + 1).reshape(n, -1)
        symbol = jnp.where(done, END, jax.random.categorical(key, next_logps(model, hot)))
        window = jnp.concatenate([window[:, 1:], symbol[:, None]], axis=1)
        return (window, done | (symbol == END)), symbol

    empty = jnp.full((n, CONTEXT), START), jnp.zeros(n, bool)
    return jax.lax.scan(place, empty, jax.random.split(key, ROOM))[1].T


def length(strings: Int[Array, "*s ROOM"]) -> Int[Array, "*s"]:
    """Symbols before the end."""
    return (strings != END).sum(-1)


def reward(strings: Int[Array, "*s ROOM"]) -> Float[Array, "*s"]:
    """How many good symbols more than bad ones."""
    return (strings == 0).sum(-1).astype(jnp.float32) - (strings == 1).sum(-1).astype(jnp.float32)


def random_strings(key: PRNGKeyArray, n: int, stop: float = 0.15) -> Int[Array, "n ROOM"]:
    """n strings of uniform symbols that end at each place with probability `stop`, and at `ROOM` at the latest."""
    sizes, symbols = jax.random.split(key)
    size = jnp.minimum(jax.random.geometric(sizes, stop, (n, 1)), ROOM)
    return jnp.where(jnp.arange(ROOM)[None] < size, jax.random.randint(symbols, (n, ROOM), 0, SYMBOLS), END)


def fit(
    model: Model,
    loss: Callable[[Model, Int[Array, " b"]], tuple[Float[Array, ""], Any]],
    key: PRNGKeyArray,
    rate: float | Float[Array, ""],
    steps: int,
    batch: int,
    n: int,
) -> tuple[Model, Any]:
    """Adam on random batches of n rows, as one compiled loop.

    Args:
        model: where to start.
        loss: of the model and the numbers of a batch's rows, with what a step shall report.
        key: draws the batches.
        rate, steps, batch, n: learning rate, number of steps, rows a step, and how many rows there are.

    Returns:
        The trained model, and the reports of all steps stacked.
    """
    rule = optax.adam(rate)

    def step(carry: tuple[Model, Any], key: Array) -> tuple[tuple[Model, Any], Any]:
        model, state = carry
        rows = jax.random.randint(key, (batch,), 0, n)
        slope, seen = jax.grad(loss, has_aux=True)(model, rows)
        updates, state = rule.update(slope, state)
        return (optax.apply_updates(model, updates), state), seen

    (model, _), seen = jax.lax.scan(step, (model, rule.init(model)), jax.random.split(key, steps))
    return model, seen
