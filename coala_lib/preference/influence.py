"""Which pairs decide a head, and what removing them does: one Newton step, with a certified distance to retraining.

After removing the rows S the objective f_S is still strongly convex. From any theta, one Newton step on f_S lands at
theta'; the distance to the retrained optimum is bounded by what is left of the gradient there. Two bounds, the smaller
one counts:

    ||theta' - argmin f_S|| <= ||grad f_S(theta')|| / ridge                                          (strong convexity)
    ||theta' - argmin f_S|| <= -log(1 - R g / l) / R,   g = ||grad f_S(theta')||, l = lambda_min(Hessian f_S(theta'))

The second holds where R g < l, R = beta max ||a_k||: along a segment the Hessian of the logistic loss changes by at
most a factor e^(R length) (Bach 2010), so that the gradient cannot vanish farther away. `remove` evaluates g on the
rows that are left; `leave_one_out` bounds it for every row at once, from the Newton step's length, without a pass over
the rows for each.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from coala_lib.preference.objectives import Objective, gram

THIRD = 1 / (6 * np.sqrt(3))  # the largest third derivative of softplus


@dataclass(frozen=True)
class Removal:
    """The head without some rows.

    Attributes:
        theta: (m,) after the Newton steps.
        bound: certified distance to the retrained optimum, in the norm of theta.
    """

    theta: np.ndarray
    bound: float


@dataclass(frozen=True)
class LeaveOneOut:
    """The head without each row in turn.

    Attributes:
        deltas: (N, m) change of theta where row k is left out: one exact Newton step.
        bounds: (N,) certified distance of theta + delta_k to the retrained optimum; inf where nothing is certified.
        sizes: (N,) length of the change in the metric of the Hessian, sqrt(2 nats): how much row k decides.
    """

    deltas: Float[np.ndarray, "N m"]
    bounds: Float[np.ndarray, " N"]
    sizes: Float[np.ndarray, " N"]

    def top(self, k: int = 10) -> Int[np.ndarray, " k"]:
        """The k rows that decide the head most, largest first."""
        return np.argsort(-self.sizes, kind="stable")[:k]

    def effect(self, direction: ArrayLike) -> Float[np.ndarray, " N"]:
        """(N,) change of direction.theta, such as a held-out margin, where row k is left out."""
        return self.deltas @ np.asarray(direction, float)


def remove(objective: Objective, theta: ArrayLike, rows: ArrayLike, steps: int = 1) -> Removal:
    """Remove rows by Newton steps.

    Args:
        objective: with a ridge, on all rows.
        theta: (m,) its minimiser, or any point: the bound holds all the same.
        rows: indices to remove.
        steps: Newton steps; each squares the error.

    Returns:
        A `Removal`.

    Raises:
        ValueError: where there is no ridge, or nothing is left.

    Example:
        >>> from coala_lib.preference.objectives import from_rows
        >>> objective = from_rows(np.random.default_rng(0).normal(0.5, 1, (50, 3)), ridge=1e-2)
        >>> bool(remove(objective, np.zeros(3), [4, 7], steps=8).bound < 1e-9)
        True
    """
    _ridge(objective)
    left, theta = objective.without(rows), np.asarray(theta, float)
    for _ in range(steps):
        theta = theta - np.linalg.solve(left.hessian(theta), left.gradient(theta))
    slope = np.linalg.norm(left.gradient(theta))
    lowest = np.linalg.eigvalsh(left.hessian(theta))[0]
    reach = left.beta * np.linalg.norm(left.rows, axis=1).max()
    return Removal(theta, float(_distance(slope, float(objective.ridge), lowest, reach)))


def leave_one_out(objective: Objective, theta: ArrayLike) -> LeaveOneOut:
    """One Newton step for every row left out, all at once: O(N m^2).

    Args:
        objective: with a ridge.
        theta: (m,) its minimiser.

    Returns:
        A `LeaveOneOut`.

    Raises:
        ValueError: where there is no ridge or fewer than two rows carry weight.

    Example:
        >>> from coala_lib.preference.objectives import from_rows
        >>> from coala_lib.preference.phase_two import minimise
        >>> objective = from_rows([[1.0], [1.1], [0.9], [-8.0]], ridge=1e-2)
        >>> int(leave_one_out(objective, minimise(objective).theta).top(1)[0])
        3
    """
    ridge = _ridge(objective)
    theta, rows, w = np.asarray(theta, float), objective.rows, objective.weights
    if (w > 0).sum() < 2:
        raise ValueError("leaving one row out needs two rows with weight")
    beta, slopes, curvatures = objective.beta, objective.slopes(theta), objective.curvatures(theta)
    # (1 - w_k) f_k = data part - row k + (1 - w_k) ridge part; in the eigenbasis of the data Hessian every k is
    # diagonal plus rank one, which Sherman and Morrison invert
    data = gram(rows, w * curvatures)
    values, basis = np.linalg.eigh(data)
    A = rows @ basis
    kept = np.maximum(1 - w, np.finfo(float).tiny)[:, None]
    pull = basis.T @ (ridge * (theta - objective.anchor))
    gradient = basis.T @ ((w * slopes) @ rows) - (w * slopes)[:, None] * A + kept * pull
    diagonal = np.maximum(values, 0) + kept * ridge
    share = (w * curvatures)[:, None]
    solved_g, solved_a = gradient / diagonal, A / diagonal
    spent = share * (A * solved_a).sum(axis=1, keepdims=True)
    deltas = -(solved_g + solved_a * share * (A * solved_g).sum(axis=1, keepdims=True) / (1 - spent))
    # what the quadratic model left out of the gradient, by the largest third derivative
    lengths = np.linalg.norm(rows, axis=1)
    spread = basis.T @ gram(rows, w) @ basis
    # the row left out itself is not among them
    quadratic = ((deltas @ spread) * deltas).sum(axis=1) - w * (A * deltas).sum(axis=1) ** 2
    slope = 0.5 * beta**3 * THIRD * lengths.max() * np.maximum(quadratic, 0) / kept[:, 0]
    reach, far = beta * lengths.max(), np.linalg.norm(deltas, axis=1)
    lowest = (values[0] - share[:, 0] * lengths**2) / kept[:, 0] + ridge
    lowest = np.maximum(np.exp(-reach * far) * lowest, ridge)
    bounds = _distance(slope, ridge, lowest, reach)
    metric = diagonal / kept
    return LeaveOneOut(deltas @ basis.T, bounds, np.sqrt((metric * deltas**2).sum(axis=1)))


def _ridge(objective: Objective) -> float:
    if not objective.ridge > 0:
        raise ValueError("the distance to retraining is certified by the ridge; give ridge > 0")
    return float(objective.ridge)


def _distance(slope: ArrayLike, ridge: float, lowest: ArrayLike, reach: float) -> ArrayLike:
    share = reach * slope / lowest
    near = np.where(share < 1, -np.log1p(-np.minimum(share, 1 - 1e-16)) / max(reach, 1e-300), np.inf)
    return np.minimum(slope / ridge, near)
