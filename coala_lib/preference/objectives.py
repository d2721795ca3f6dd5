"""The convex family of preference objectives that Phase II minimises over the second layer theta.

    sum_k w_k [softplus(-z_k) + smoothing z_k] + ridge/2 ||theta - anchor||^2,      z_k = beta theta.a_k - margin_k

with a_k = y_k phi_k (`pointwise`, the paper's Eq. 9 on both labels) or a_k = chosen_k - rejected_k (`pairwise`).
Everything is a closed form and runs on numpy and on jax arrays alike.

Differs from the paper: its Eq. 8 (`printed`) takes log-probabilities of a classifier, and is not convex for two
responses with features of their own; with log-odds in their place it becomes the pairwise form. Weights, label
smoothing, margins by row and the ridge are ours.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

AnyArray = Array | np.ndarray
Scalar = float | Float[AnyArray, ""]
Vector = Float[AnyArray, " m"]
Matrix = Float[AnyArray, "N m"]


def softplus(t: AnyArray) -> AnyArray:
    """log(1 + e^t), without overflow."""
    xp = t.__array_namespace__()
    return xp.logaddexp(t, xp.zeros_like(t))


def sigmoid(t: AnyArray) -> AnyArray:
    """1 / (1 + e^-t), with full relative precision on both sides."""
    return t.__array_namespace__().exp(-softplus(-t))


def gram(rows: Matrix, weights: Float[AnyArray, " N"]) -> Float[AnyArray, "m m"]:
    """sum_k weights_k rows_k rows_k^T."""
    return (rows * weights[:, None]).T @ rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Objective:
    """One member of the convex family; made by `pairwise`, `pointwise` or `from_rows`, which check.

    Attributes:
        rows: (N, m) a_k.
        weights: (N,) w_k >= 0, summing to one.
        margin: (N,) gamma by row, in nats.
        beta: reward scale; without a ridge only beta * theta matters.
        smoothing: epsilon in [0, 1/2): the share of labels believed to be swapped.
        ridge: mu >= 0, and anchor: (m,) its centre.
    """

    rows: Matrix
    weights: Float[AnyArray, " N"]
    margin: Float[AnyArray, " N"]
    beta: Scalar
    smoothing: Scalar
    ridge: Scalar
    anchor: Vector

    def logits(self, theta: Vector) -> Float[AnyArray, " N"]:
        """z_k = beta theta.a_k - margin_k."""
        return self.beta * (self.rows @ theta) - self.margin

    def losses(self, theta: Vector) -> Float[AnyArray, " N"]:
        """Loss of each row, unweighted and without the ridge, in nats."""
        z = self.logits(theta)
        return softplus(-z) + self.smoothing * z

    def value(self, theta: Vector) -> Scalar:
        """The objective with its ridge, in nats."""
        return self.weights @ self.losses(theta) + 0.5 * self.ridge * ((theta - self.anchor) ** 2).sum()

    def slopes(self, theta: Vector) -> Float[AnyArray, " N"]:
        """d loss_k / d (theta.a_k), unweighted."""
        return self.beta * (self.smoothing - sigmoid(-self.logits(theta)))

    def curvatures(self, theta: Vector) -> Float[AnyArray, " N"]:
        """Second derivative of loss_k in theta.a_k, unweighted: beta^2 sigma(z)(1 - sigma(z))."""
        z = self.logits(theta)
        return self.beta**2 * sigmoid(z) * sigmoid(-z)

    def gradient(self, theta: Vector) -> Vector:
        """(m,) derivative at theta."""
        return (self.weights * self.slopes(theta)) @ self.rows + self.ridge * (theta - self.anchor)

    def hessian(self, theta: Vector) -> Float[AnyArray, "m m"]:
        """(m, m) second derivative at theta, positive semidefinite."""
        eye = self.rows.__array_namespace__().eye(self.rows.shape[1], dtype=self.rows.dtype)
        return gram(self.rows, self.weights * self.curvatures(theta)) + self.ridge * eye

    def hvp(self, theta: Vector, v: Vector) -> Vector:
        """Hessian times v: two products with the rows."""
        return (self.weights * self.curvatures(theta) * (self.rows @ v)) @ self.rows + self.ridge * v

    def lipschitz(self) -> Scalar:
        """L = beta^2/4 lambda_max(sum_k w_k a_k a_k^T) + ridge; attained where every z_k is zero."""
        spread = gram(self.rows, self.weights)
        return self.beta**2 / 4 * spread.__array_namespace__().linalg.eigvalsh(spread)[-1] + self.ridge

    def without(self, removed: ArrayLike) -> "Objective":
        """The objective of the rows that are left, with the same ridge; numpy only."""
        kept = np.ones(len(self.rows), bool)
        kept[removed] = False
        weights = np.asarray(self.weights)[kept]
        if not weights.sum() > 0:
            raise ValueError("removing these rows leaves nothing to fit; remove fewer")
        rows, margin = np.asarray(self.rows)[kept], np.asarray(self.margin)[kept]
        return Objective(rows, weights / weights.sum(), margin, self.beta, self.smoothing, self.ridge, self.anchor)


def from_rows(
    A: ArrayLike,
    beta: float = 1.0,
    margin: float | ArrayLike = 0.0,
    *,
    weights: ArrayLike | None = None,
    smoothing: float = 0.0,
    ridge: float = 0.0,
    anchor: ArrayLike | None = None,
) -> Objective:
    """The convex objective of rows a_k, in float64.

    Args:
        A: (N, m) rows a_k.
        beta: reward scale > 0.
        margin: gamma, one number or (N,); y_k delta makes the threshold delta of TRL's `bco_pair`.
        weights: (N,) >= 0, scaled to sum to one; equal by default.
        smoothing: in [0, 1/2).
        ridge: mu >= 0.
        anchor: (m,) centre of the ridge, zero by default.

    Returns:
        An `Objective` of numpy arrays.

    Raises:
        ValueError: saying which of them does not fit.

    Example:
        >>> objective = from_rows(np.ones((3, 2)))
        >>> round(float(objective.value(np.zeros(2))), 4), float(objective.lipschitz())
        (0.6931, 0.5)
    """
    A = np.asarray(A, float)
    if A.ndim != 2 or 0 in A.shape:
        raise ValueError(f"A must be (N, m), not empty; got shape {A.shape}")
    (N, m), margin = A.shape, np.asarray(margin, float)
    anchor = np.zeros(m) if anchor is None else np.asarray(anchor, float)
    weights = np.ones(N) if weights is None else np.asarray(weights, float)
    if anchor.shape != (m,) or weights.shape != (N,) or margin.shape not in ((), (N,)):
        raise ValueError(
            f"with A of shape {A.shape}, anchor must be ({m},), weights ({N},) and margin one number or ({N},); "
            f"got {anchor.shape}, {weights.shape} and {margin.shape}"
        )
    if not all(np.isfinite(values).all() for values in (A, anchor, margin, weights)):
        raise ValueError("A, anchor, margin and weights must be finite; they hold NaN or infinite values")
    if not 0 < beta < np.inf or not 0 <= ridge < np.inf or not 0 <= smoothing < 0.5:
        given = f"got beta {beta}, ridge {ridge}, smoothing {smoothing}"
        raise ValueError(f"beta must be positive, ridge not negative (both finite), smoothing in [0, 1/2); {given}")
    if (weights < 0).any() or not weights.sum() > 0:
        raise ValueError("weights must not be negative, nor all zero")
    numbers = float(beta), float(smoothing), float(ridge)
    return Objective(A, weights / weights.sum(), np.broadcast_to(margin, N).astype(float), *numbers, anchor)


def pairwise(
    chosen: ArrayLike, rejected: ArrayLike, beta: float = 1.0, margin: float | ArrayLike = 0.0, **more
) -> Objective:
    """softplus(margin - beta theta.(chosen - rejected)) by pair: Bradley-Terry on rewards beta theta.phi.

    Args:
        chosen, rejected: (N, m) hidden features; what both share (the prompt) cancels.
        beta, margin, more: as in `from_rows`.

    Returns:
        An `Objective` of N rows.
    """
    chosen, rejected = np.asarray(chosen, float), np.asarray(rejected, float)
    if chosen.shape != rejected.shape:
        raise ValueError(f"chosen and rejected must pair up; got shapes {chosen.shape} and {rejected.shape}")
    return from_rows(chosen - rejected, beta, margin, **more)


def pointwise(hidden: ArrayLike, y: ArrayLike, beta: float = 1.0, margin: float | ArrayLike = 0.0, **more) -> Objective:
    """softplus(margin - beta y theta.phi) by row: the paper's Eq. 9, for labels of both signs.

    Args:
        hidden: (n, m) hidden features.
        y: (n,) labels +1 and -1. With one sign only, non-negative features let the loss fall to zero for nothing.
        beta, margin, more: as in `from_rows`.

    Returns:
        An `Objective` of n rows; its minimum is at least half of the pairwise one with twice the margin.
    """
    y = np.asarray(y, float)
    if not np.isin(y, (-1, 1)).all():
        raise ValueError("y must hold labels +1 and -1")
    return from_rows(y[:, None] * np.asarray(hidden, float), beta, margin, **more)
