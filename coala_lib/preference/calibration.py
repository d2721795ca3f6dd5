"""How sure a head is: a Laplace posterior at the certified optimum, a temperature, and what a reliability plot shows.

With N rows the loss N L(theta) is a negative log posterior: logistic likelihood, Gaussian prior of precision N ridge
around the Phase-I weights. At the optimum, certified and unique, its Hessian N H gives the covariance (N H)^-1 of
theta; nothing is sampled or trained again. Where the likelihood is wrong (it always is) the sandwich H^-1 G H^-1 / N,
G the second moment of the rows' gradients, has the right width for large N.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.calibration import calibration_curve

from coala_lib.preference.objectives import Objective, from_rows, gram
from coala_lib.preference.phase_two import PhaseTwoStatus, minimise


@dataclass(frozen=True)
class Laplace:
    """A Gaussian around the optimum.

    Attributes:
        theta: (m,) its mean.
        covariance: (m, m).
        beta: reward scale.
    """

    theta: Float[np.ndarray, " m"]
    covariance: Float[np.ndarray, "m m"]
    beta: float

    def std(self, hidden: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
        """Standard deviation of theta.phi by row: of a reward, or of a margin where phi is a difference of two."""
        return np.sqrt(np.maximum(((hidden @ self.covariance) * hidden).sum(axis=1), 0))

    def probability(self, hidden: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
        """sigma(beta theta.phi) averaged over the posterior, by MacKay's approximation: nearer to one half."""
        z, s = self.beta * (hidden @ self.theta), self.beta * self.std(hidden)
        return expit(z / np.sqrt(1 + np.pi * s**2 / 8))


def laplace(objective: Objective, theta: ArrayLike, *, sandwich: bool = False, n: int | None = None) -> Laplace:
    """The posterior at the minimiser of an objective.

    Args:
        objective: of all training rows.
        theta: (m,) its minimiser.
        sandwich: use the covariance that does not believe the model.
        n: effective number of rows, by default 1 / sum_k w_k^2 (N for equal weights).

    Returns:
        A `Laplace`.

    Raises:
        ValueError: where the Hessian is singular: without a ridge, unused neurons have no variance.

    Example:
        >>> objective = from_rows(np.random.default_rng(0).normal(0.5, 1, (200, 2)), ridge=1e-3)
        >>> posterior = laplace(objective, minimise(objective).theta)
        >>> bool(0 < posterior.std(np.eye(2)).max() < 0.3)
        True
    """
    theta = np.asarray(theta, float)
    n = 1 / np.sum(np.square(objective.weights)) if n is None else n
    H = objective.hessian(theta)
    if np.linalg.cond(H) > 1 / np.finfo(float).eps:
        raise ValueError("the Hessian is singular: give a ridge, or drop hidden features that are always zero")
    inverse = np.linalg.inv(H)
    covariance = inverse / n
    if sandwich:
        covariance = inverse @ gram(objective.rows, objective.weights * objective.slopes(theta) ** 2) @ inverse / n
    return Laplace(theta, (covariance + covariance.T) / 2, float(objective.beta))


def fit_temperature(logits: Float[np.ndarray, " N"], outcomes: ArrayLike = True) -> float:
    """The temperature T that makes sigma(logits / T) fit best: the same convex problem in one number, 1 / T.

    Args:
        logits: (N,) beta times the margin of held-out pairs, never the training pairs.
        outcomes: (N,) whether the first one won; True where every logit is that of the chosen one.

    Returns:
        T > 0; above one where the head was too sure.

    Raises:
        ValueError: where the pairs are separable (no finite temperature), or the head points the wrong way.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = 2 * rng.normal(size=4000)
        >>> abs(fit_temperature(3 * z, rng.random(4000) < expit(z)) - 3) < 0.3
        True
    """
    signed = np.where(np.broadcast_to(outcomes, np.shape(logits)), 1.0, -1.0) * np.asarray(logits, float)
    found = minimise(from_rows(signed[:, None], anchor=[1.0]))
    if found.status is PhaseTwoStatus.NO_MINIMUM:
        raise ValueError("all pairs are on one side, so no finite temperature fits best; hold out more pairs")
    if found.theta[0] <= 0:
        raise ValueError("the logits point the wrong way on these pairs: no positive temperature fits; check the signs")
    return float(1 / found.theta[0])


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram draws.

    Attributes:
        confidence: (k,) mean predicted probability of each bin that is not empty.
        frequency: (k,) how often it came true.
        counts: (k,) rows of the bin.
        ece: expected calibration error, sum_k counts_k |frequency_k - confidence_k| / N.
        brier: mean squared error of the probabilities.
    """

    confidence: Float[np.ndarray, " k"]
    frequency: Float[np.ndarray, " k"]
    counts: Float[np.ndarray, " k"]
    ece: float
    brier: float


def reliability(probabilities: Float[np.ndarray, " N"], outcomes: ArrayLike = True, n_bins: int = 10) -> Reliability:
    """Bin predicted probabilities and count how often they came true.

    Args:
        probabilities: (N,) that the first one wins.
        outcomes: (N,) whether it did; True where the first is always the chosen one.
        n_bins: bins of equal width on [1/2, 1]: every prediction is turned to the side it believes in, because a
            pair in the other order says the same.

    Returns:
        A `Reliability`.

    Raises:
        ValueError: for numbers outside [0, 1], or none.

    Example:
        >>> found = reliability(np.array([0.9, 0.9, 0.1, 0.6]), [True, False, False, True], n_bins=5)
        >>> found.counts.tolist(), round(found.ece, 3)
        ([1.0, 3.0], 0.275)
    """
    p, outcomes = np.asarray(probabilities, float), np.broadcast_to(outcomes, np.shape(probabilities)).astype(bool)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be (N,) numbers in [0, 1], not empty")
    believed = np.maximum(p, 1 - p)
    right = np.where(p >= 0.5, outcomes, ~outcomes)
    # scikit-learn bins [0, 1]; the believed side fills [1/2, 1]
    frequency, stretched = calibration_curve(right, 2 * believed - 1, n_bins=n_bins)
    bins = np.minimum(np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], 2 * believed - 1), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    counts, confidence = counts[counts > 0].astype(float), (1 + stretched) / 2
    ece = float(counts @ np.abs(frequency - confidence) / len(p))
    return Reliability(confidence, frequency, counts, ece, float(np.mean((p - outcomes) ** 2)))
