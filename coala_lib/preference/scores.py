"""What a fitted head says of features: rewards, classes, probabilities, pair accuracy.

Everything here needs the first and second layer and the standardisation only, fitted or loaded.
"""

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from coala_lib.preference import phase_one

ROUNDING = 16 * np.finfo(float).eps


class Scores(ClassifierMixin, BaseEstimator):
    """The scoring half of `CoalaHead`."""

    def standardise(self, X: np.ndarray) -> np.ndarray:
        """(n, d) rows as Phase I sees them."""
        wide = X.dtype == np.float64 or self.tol < phase_one.FLOAT32_REACH
        return ((X - self.mean_) / self.scale_).astype(np.float64 if wide else np.float32)

    def hidden(self, X: ArrayLike) -> np.ndarray:
        """(n, m) hidden features of raw rows: what Phase II weighs."""
        check_is_fitted(self)
        X = validate_data(self, readable(X=X), dtype=(np.float64, np.float32), reset=False)
        return self.network_.hidden(self.standardise(X))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """(n,) reward g(x) = theta2 . hidden(x) of each row; zero where it is within rounding of zero."""
        check_is_fitted(self)
        Z = self.standardise(validate_data(self, readable(X=X), dtype=(np.float64, np.float32), reset=False))
        rewards, network = self.network_(Z), self.network_
        # the sign of a rounding error would depend on what shares the batch
        size = np.linalg.norm(Z, axis=1) * (np.abs(network.theta2) @ np.linalg.norm(network.theta1, axis=1))
        return np.where(np.abs(rewards) > ROUNDING * size, rewards, 0.0)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The preferred class where the reward is positive."""
        preferred = (self.decision_function(X) > 0).astype(int)
        return self.classes_[preferred]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """(n, 2) sigma(-beta g) and sigma(beta g): the paper's "policy", a classifier of one row."""
        preferred = expit(self.beta * self.decision_function(X))
        return np.stack([1 - preferred, preferred], axis=1)

    def predict_proba_pairs(self, X_chosen: ArrayLike, X_rejected: ArrayLike) -> np.ndarray:
        """(N,) Bradley-Terry probability sigma(beta (g(chosen) - g(rejected))) that the first is preferred."""
        return expit(self.beta * (self.decision_function(X_chosen) - self.decision_function(X_rejected)))

    def score_pairs(self, X_chosen: ArrayLike, X_rejected: ArrayLike) -> float:
        """Pair accuracy (`rewards/accuracies`): share of pairs with the chosen one ahead; ties count one half."""
        difference = self.decision_function(X_chosen) - self.decision_function(X_rejected)
        return float(np.mean((difference > 0) + 0.5 * (difference == 0)))

    def scorer(self, phase: int = 2) -> jax.tree_util.Partial:
        """The reward as a jit-compatible function of raw features, for guided sampling.

        Args:
            phase: 2 for the full head, 1 for the second layer as Phase I left it (the ablation).

        Returns:
            See `phase_one.compiled_reward`.
        """
        check_is_fitted(self)
        theta2 = self.network_.theta2 if phase == 2 else self.theta2_phase_one_
        return phase_one.compiled_reward(self.network_, theta2, self.mean_, self.scale_)


def readable(**features: ArrayLike) -> ArrayLike:
    """The features, refused in one sentence that names the row; scikit-learn's own check says more, and less."""
    ((name, X),) = features.items()
    values = np.asarray(X)
    if values.ndim == 2 and values.dtype.kind not in "Oc" and not (finite := np.isfinite(values.astype(float))).all():
        row = int(np.flatnonzero(~finite.all(axis=1))[0])
        raise ValueError(f"{name} holds NaN or infinite values, first in row {row}; remove or impute them")
    return values if isinstance(X, jax.Array) else X
