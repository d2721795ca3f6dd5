"""When Phase II has no minimum: some direction never hurts a pair and helps at least one.

Without a ridge the objective attains its infimum exactly where no theta has a_k.theta >= 0 for all k, not all zero
(Albert and Anderson 1984). A linear program decides: maximise sum_k a_k.theta over a_k.theta >= 0, |theta_i| <= 1.
Its value is zero where a minimum exists, and positive where the loss falls for ever.

Differs from the paper: its Theorem 2 compares with a minimiser and does not say when there is one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

NOISE = 1e-9  # of the longest row; below it the linear program's answer is rounding


@dataclass(frozen=True)
class Separability:
    """What the linear program found.

    Attributes:
        kind: "none" (a minimum exists), "quasi" (no minimum; some pairs stay at a margin of zero) or "complete".
        margin: min_k a_k.direction for the unit `direction`, positive where complete; else zero.
        direction: (m,) unit vector along which the loss falls for ever, or None.
    """

    kind: Literal["none", "quasi", "complete"]
    margin: float
    direction: np.ndarray | None

    def __str__(self) -> str:
        if self.kind == "none":
            return "the pairs are not separable: a minimum exists without the ridge"
        how = f"with margin {self.margin:.2g}" if self.kind == "complete" else "up to ties"
        return f"the pairs are separable {how}: without the ridge no minimum exists, and the ridge sets the norm"


def separability(A: ArrayLike) -> Separability:
    """Decide whether a direction separates the rows from the origin.

    Args:
        A: (N, m) rows a_k.

    Returns:
        A `Separability`. Its margin is that of the direction the second program finds (largest minimum in the box
        |theta_i| <= 1), a lower bound on the best one.

    Raises:
        ValueError: where A is not a finite matrix, or the solver fails.

    Example:
        >>> separability([[1.0, 1.0], [2.0, -1.0]]).kind, separability([[1.0], [-1.0]]).kind
        ('complete', 'none')
    """
    A = np.asarray(A, float)
    if A.ndim != 2 or 0 in A.shape or not np.isfinite(A).all():
        raise ValueError(f"A must be a finite (N, m) matrix, not empty; got shape {A.shape}")
    # positive factors by row change no sign; rows of one length keep the solver's tolerance meaningful
    lengths = np.linalg.norm(A, axis=1)
    rows = A[lengths > 0] / lengths[lengths > 0, None]
    if not len(rows):
        return Separability("none", 0.0, None)
    N, m = rows.shape
    found = _maximise(rows.sum(axis=0) / N, -rows, np.zeros(N), m)
    if rows.sum(axis=0) @ found <= N * NOISE:
        return Separability("none", 0.0, None)
    deepest = _maximise(np.append(np.zeros(m), 1.0), np.hstack([-rows, np.ones((N, 1))]), np.zeros(N), m)
    if deepest[-1] > NOISE and len(rows) == len(A):
        direction = deepest[:m] / np.linalg.norm(deepest[:m])
        return Separability("complete", float((A @ direction).min()), direction)
    return Separability("quasi", 0.0, found / np.linalg.norm(found))


def _maximise(gain: np.ndarray, below: np.ndarray, zero: np.ndarray, m: int) -> np.ndarray:
    bounds = [(-1, 1)] * m + [(None, None)] * (len(gain) - m)
    answer = linprog(-gain, A_ub=below, b_ub=zero, bounds=bounds, method="highs")
    if answer.status != 0:
        raise ValueError(f"the linear program that tells separable pairs failed: {answer.message}")
    return answer.x
