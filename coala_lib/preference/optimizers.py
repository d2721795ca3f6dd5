"""Four ways to minimise a smooth convex objective in a few numbers, each with the path it took.

`newton` and `agd` are one compiled loop; `adamw` (optax) and `lbfgs` (scipy) are there for comparison. Every method
records value, gradient norm, mean margin and norm after each step, so that curves of different methods compare.

Accelerated gradient with step 1/L satisfies, for every comparator t, f(theta_k) - f(t) <= 2 L ||theta_0 - t||^2 /
(k + 1)^2 (paper, Theorem 2, with its constant). Restarting (O'Donoghue and Candes 2015) is faster and has no such
constant; with a ridge mu constant momentum contracts the gap by 1 - sqrt(mu / L) a step.

Differs from the paper: Algorithm 1 names no optimiser for Phase II; Newton is our default.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from coala_lib.preference.objectives import AnyArray, Objective, Scalar

Scheme = Literal["restart", "nesterov", "constant", "none"]
Start = Float[Array, " m"]
Count = int | Int[Array, ""]
Run = tuple[Float[AnyArray, " m"], Int[AnyArray, ""] | int, Float[AnyArray, "steps 4"]]
PATH = ("losses", "gradient_norms", "margins", "norms")  # the columns of a path


def _measure(objective: Objective, theta: AnyArray) -> AnyArray:
    xp = theta.__array_namespace__()
    margin = objective.weights @ (objective.rows @ theta)
    slope = xp.linalg.norm(objective.gradient(theta))
    return xp.stack([objective.value(theta), slope, margin, xp.linalg.norm(theta)])


@partial(jax.jit, static_argnames="slots")
def newton(objective: Objective, start: Start, stop: Scalar, max_iter: Count, slots: int) -> Run:
    """Newton's method, halving the step until the objective falls.

    Args:
        objective: of jax arrays.
        start: (m,) first point.
        stop: gradient norm to reach.
        max_iter: steps at most, fewer than `slots`.
        slots: rows of the path; another number compiles again, another max_iter does not.

    Returns:
        (theta, steps, path); rows of the path after the last step are zero.
    """

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        theta, k, path = carry
        gradient, hessian = objective.gradient(theta), objective.hessian(theta)
        # without a ridge the Hessian may be singular; this much damping is below its rounding
        damping = jnp.finfo(theta.dtype).eps * jnp.trace(hessian)
        direction = jnp.linalg.solve(hessian + damping * jnp.eye(len(theta), dtype=theta.dtype), gradient)
        value, decrease = objective.value(theta), gradient @ direction
        slack = 4 * jnp.finfo(theta.dtype).eps * value

        def too_long(t: Array) -> Array:
            return ~(objective.value(theta - t * direction) <= value - 0.25 * t * decrease + slack) & (t > 1e-8)

        theta = theta - jax.lax.while_loop(too_long, lambda t: t / 2, jnp.ones_like(value)) * direction
        return theta, k + 1, path.at[k + 1].set(_measure(objective, theta))

    return _loop(step, objective, start, stop, max_iter, slots, ())


@partial(jax.jit, static_argnames=("slots", "scheme"))
def agd(
    objective: Objective, start: Start, stop: Scalar, max_iter: Count, slots: int, scheme: Scheme = "restart"
) -> Run:
    """Accelerated gradient with step 1/L.

    Args:
        objective, start, stop, max_iter, slots: as in `newton`.
        scheme: "restart" drops the momentum where it points uphill; "nesterov" never does, and has the bound of
            Theorem 2; "constant" is for a ridge; "none" is gradient descent.

    Returns:
        (theta, steps, path), as `newton`.
    """
    L = objective.lipschitz()
    root = jnp.sqrt(objective.ridge / L)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        theta, k, path, ahead, t = carry
        gradient = objective.gradient(ahead)
        new = ahead - gradient / L
        if scheme == "restart":
            t = jnp.where(gradient @ (new - theta) > 0, jnp.ones_like(t), t)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        momentum = {"none": jnp.zeros_like(t), "constant": (1 - root) / (1 + root)}.get(scheme, (t - 1) / t_next)
        path = path.at[k + 1].set(_measure(objective, new))
        return new, k + 1, path, new + momentum * (new - theta), t_next

    return _loop(step, objective, start, stop, max_iter, slots, (start, jnp.ones((), start.dtype)))


def _loop(
    step: Callable[[tuple], tuple],
    objective: Objective,
    start: Start,
    stop: Scalar,
    max_iter: Count,
    slots: int,
    more: tuple,
) -> Run:
    path = jnp.zeros((slots, len(PATH)), start.dtype).at[0].set(_measure(objective, start))

    def unfinished(carry: tuple[Array, ...]) -> Array:
        slope = carry[2][carry[1], 1]
        return (slope > stop) & (carry[1] < max_iter)

    return jax.lax.while_loop(unfinished, step, (start, jnp.zeros((), jnp.int32), path, *more))[:3]


@partial(jax.jit, static_argnames=("max_iter", "batch_size", "learning_rate", "weight_decay", "seed"))
def adamw(
    objective: Objective,
    start: Start,
    max_iter: int,
    learning_rate: float = 1e-4,
    batch_size: int | None = None,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Run:
    """AdamW over `max_iter` epochs; a step of the path is an epoch.

    Args:
        objective, start: as in `newton`.
        max_iter: epochs.
        learning_rate: constant.
        batch_size: rows a step, by default all of them; a last smaller batch is left out.
        weight_decay: of AdamW. The ridge is part of the objective already, so zero by default.
        seed: of the order of the rows.

    Returns:
        (theta, epochs, path).
    """
    N = len(objective.rows)
    size = min(batch_size or N, N)
    rule = optax.adamw(learning_rate, weight_decay=weight_decay)

    def update(carry: tuple, rows: Array) -> tuple[tuple, None]:
        theta, state = carry
        weights = objective.weights[rows]
        part = Objective(
            objective.rows[rows],
            weights / jnp.sum(weights),
            objective.margin[rows],
            objective.beta,
            objective.smoothing,
            objective.ridge,
            objective.anchor,
        )
        updates, state = rule.update(part.gradient(theta), state, theta)
        return (optax.apply_updates(theta, updates), state), None

    def epoch(carry: tuple, key: Array) -> tuple[tuple, Array]:
        order = jax.random.permutation(key, N)[: N // size * size].reshape(-1, size)
        carry, _ = jax.lax.scan(update, carry, order)
        return carry, _measure(objective, carry[0])

    keys = jax.random.split(jax.random.key(seed), max_iter)
    (theta, _), path = jax.lax.scan(epoch, (start, rule.init(start)), keys)
    return theta, jnp.asarray(max_iter), jnp.concatenate([_measure(objective, start)[None], path])


def lbfgs(objective: Objective, start: Float[np.ndarray, " m"], stop: float, max_iter: int) -> Run:
    """L-BFGS by scipy, on an objective of numpy arrays; arguments as in `newton`."""
    path = [_measure(objective, start)]
    with threadpool_limits(1):  # products this small only wait for other threads
        end = minimize(
            lambda theta: (objective.value(theta), objective.gradient(theta)),
            start,
            jac=True,
            method="L-BFGS-B",
            callback=lambda theta: path.append(_measure(objective, theta)),
            options={"maxiter": max_iter, "maxfun": 4 * max_iter, "ftol": 0.0, "gtol": stop / np.sqrt(len(start))},
        )
    return end.x, len(path) - 1, np.array(path)
