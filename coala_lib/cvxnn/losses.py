"""The two losses of the program: value, derivative, dual and proximal step, each summed over the n rows.

    squared   l(t) = (t - y)^2 / 2          real targets; Phase I of the paper
    logistic  l(t) = log(1 + exp(-y t))     labels +1 and -1

Everything the solvers and certificates need of a loss stands here; the same code runs on numpy and jax arrays.

Differs from the paper: its Eq. 4 prints the squared loss without the 1/2 that its Algorithm 2 uses; we keep the 1/2.
"""

from types import ModuleType
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = Array | np.ndarray
Rows = Float[AnyArray, " n"]
Number = Float[AnyArray, ""] | float
PROX_STEPS = 60


def _numpy(t: AnyArray) -> ModuleType:
    return np if isinstance(t, np.ndarray) else jnp


@runtime_checkable
class Loss(Protocol):
    """What a loss provides."""

    curvature: float  # an upper bound of the second derivative

    def value(self, t: Rows, y: Rows) -> Number:
        """sum_k l(t_k, y_k)."""

    def derivative(self, t: Rows, y: Rows) -> Rows:
        """l'(t_k, y_k)."""

    def second(self, t: Rows, y: Rows) -> Rows:
        """l''(t_k, y_k)."""

    def dual(self, z: Rows, y: Rows) -> Number:
        """-l*(-z), the dual objective; -inf outside its domain."""

    def scale(self, z: Rows, y: Rows, most: Number) -> Number:
        """A good s in [0, most] for the dual point s z, given z = -l'(t)."""

    def prox(self, t: Rows, y: Rows, tau: Number) -> Rows:
        """argmin_s l(s) + tau/2 (s - t)^2."""


class Squared:
    """l(t) = (t - y)^2 / 2.

    Example:
        >>> float(Squared().value(np.array([0.0, 2.0]), np.array([1.0, 1.0])))
        1.0
    """

    curvature = 1.0

    def value(self, t: Rows, y: Rows) -> Number:
        return 0.5 * ((t - y) ** 2).sum()

    def derivative(self, t: Rows, y: Rows) -> Rows:
        return t - y

    def second(self, t: Rows, y: Rows) -> Rows:
        return _numpy(t).ones_like(t)

    def dual(self, z: Rows, y: Rows) -> Number:
        return (z * y).sum() - 0.5 * (z**2).sum()

    def scale(self, z: Rows, y: Rows, most: Number) -> Number:
        xp = _numpy(z)
        norm = (z**2).sum()
        return xp.clip((z * y).sum() / xp.where(norm > 0, norm, xp.ones_like(norm)), 0, most)

    def prox(self, t: Rows, y: Rows, tau: Number) -> Rows:
        return (y + tau * t) / (1 + tau)


class Logistic:
    """l(t) = log(1 + exp(-y t)), labels +1 and -1; a label of 0 marks a row that does not count.

    Its dual is sum_k H(y_k z_k), H the binary entropy in nats, for y_k z_k in [0, 1].

    Example:
        >>> float(Logistic().value(np.zeros(2), np.array([1.0, -1.0])).round(4))
        1.3863
    """

    curvature = 0.25

    def value(self, t: Rows, y: Rows) -> Number:
        xp = _numpy(t)
        return xp.where(y == 0, xp.zeros_like(t), xp.logaddexp(xp.zeros_like(t), -y * t)).sum()

    def derivative(self, t: Rows, y: Rows) -> Rows:
        xp = _numpy(t)
        return -y * xp.exp(-xp.logaddexp(xp.zeros_like(t), y * t))

    def second(self, t: Rows, y: Rows) -> Rows:
        # s (1 - s) of the sigmoid s; y^2 is 1 on rows that count and 0 on the others
        slope = self.derivative(t, y)
        return -slope * (y + slope)

    def dual(self, z: Rows, y: Rows) -> Number:
        xp = _numpy(z)
        a = y * z
        inside = (a > 0) & (a < 1)
        safe = xp.where(inside, a, xp.full_like(a, 0.5))
        entropy = -safe * xp.log(safe) - (1 - safe) * xp.log1p(-safe)
        outside = ((a < 0) | (a > 1)).any() | ((y == 0) & (z != 0)).any()
        total = xp.where(inside, entropy, xp.zeros_like(a)).sum()
        return xp.where(outside, xp.full_like(total, -xp.inf), total)

    def scale(self, z: Rows, y: Rows, most: Number) -> Number:
        # z = -l'(t) lies inside the domain, so shrinking keeps it there; at the optimum s = 1
        return _numpy(z).minimum(most, _numpy(z).ones_like((y * z).sum()))

    def prox(self, t: Rows, y: Rows, tau: Number) -> Rows:
        # in m = y s the derivative tau (m - y t) - sigmoid(-m) has its root in [y t, y t + 1/tau]: Newton and bisection
        # in turns, because Newton alone jumps between the ends where the sigmoid is flat
        start = y * t

        def move(k: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            m, low, high = carry
            sigmoid = jax.nn.sigmoid(-m)
            slope = tau * (m - start) - sigmoid
            low, high = jnp.where(slope < 0, m, low), jnp.where(slope > 0, m, high)
            newton = m - slope / (tau + sigmoid * (1 - sigmoid))
            trusted = (newton > low) & (newton < high) & ((k % 2 == 1) | (k >= PROX_STEPS - 20))
            return jnp.where(trusted, newton, (low + high) / 2), low, high

        m, _, _ = jax.lax.fori_loop(0, PROX_STEPS, move, (start, start, start + 1 / tau))
        return jnp.where(y == 0, t, y * m)


LOSSES: dict[str, Loss] = {"squared": Squared(), "logistic": Logistic()}
