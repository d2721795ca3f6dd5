"""`CoalaHead`: a certified preference head on frozen features, as a scikit-learn estimator.

Phase I trains a two-layer ReLU network through its convex program; Phase II refits its second layer on preferences.
Features are standardised inside; every row then has mean squared norm 1.
"""

import os
from numbers import Integral, Real
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from coala_lib.cvxnn import ConvexProgram, ReluNetwork, reg_max, sample_gates, solve, to_relu_network
from coala_lib.preference.artefact import load_head, save_head
from coala_lib.preference.phase_two import PhaseTwo, fit_phase_two
from coala_lib.solution import Certificate


def relu_reward(
    mean: Float[Array, " d"],
    scale: Float[Array, " d"],
    theta1: Float[Array, "m d"],
    theta2: Float[Array, " m"],
    features: Float[Array, "B d"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, " B"]:
    """Reward of raw features inside a compiled loop; `key` is there for scorers that draw, and not used."""
    standardised = (features - mean[None, :]) / scale[None, :]
    return jnp.maximum(standardised @ theta1.T, 0) @ theta2


class CoalaHead(ClassifierMixin, BaseEstimator):
    """Convex preference head (paper, Algorithm 1).

    Args:
        n_gates: activation patterns P to sample.
        reg: group-lasso strength as a share of `reg_max`, in (0, 1).
        beta: reward scale of Phase II.
        margin: gamma of Phase II.
        ridge: pull of Phase II towards the Phase-I weights.
        tol: relative duality gap of Phase I.
        max_iter: ADMM iterations at most.
        random_state: seed of the gates.

    Attributes:
        network_: the two-layer ReLU network after Phase II.
        theta2_phase_one_: its second layer after Phase I.
        certificate_: the Phase-I `Certificate`.
        phase_two_: the `PhaseTwo` result.
        n_iter_: ADMM iterations.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> chosen, rejected = rng.normal(0.3, 1, (80, 4)), rng.normal(-0.3, 1, (80, 4))
        >>> head = CoalaHead(n_gates=4).fit_pairs(chosen, rejected)
        >>> head.certificate_.relative_gap <= 1e-3
        True
        >>> head.score_pairs(chosen, rejected) > 0.6
        True
    """

    _parameter_constraints = {
        "n_gates": [Interval(Integral, 1, None, closed="left")],
        "reg": [Interval(Real, 0, 1, closed="neither")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "margin": [Real],
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_gates: int = 32,
        reg: float = 0.05,
        beta: float = 1.0,
        margin: float = 0.0,
        ridge: float = 1e-3,
        tol: float = 1e-3,
        max_iter: int = 5000,
        random_state: int = 0,
    ) -> None:
        self.n_gates = n_gates
        self.reg = reg
        self.beta = beta
        self.margin = margin
        self.ridge = ridge
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: Float[np.ndarray, "n d"], y: Shaped[np.ndarray, " n"]) -> "CoalaHead":
        """Fit on labelled rows: Phase II is the pointwise form of the paper's Eq. 9.

        Args:
            X: (n, d) features of prompt + response.
            y: (n,) two classes; the larger label is the preferred one.

        Returns:
            The fitted head.
        """
        _refuse_missing(X=X)
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), y_numeric=False)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) == 1:
            raise ValueError("y must hold two classes; got 1 class")
        if len(self.classes_) > 2:
            kind = "Only binary classification is supported. The type of the target is multiclass"
            raise ValueError(f"{kind}: y holds {len(self.classes_)} classes")
        signs = np.where(y == self.classes_[1], 1.0, -1.0)
        hidden = self._phase_one(X, signs)
        return self._phase_two(signs[:, None] * hidden)

    def fit_pairs(self, X_chosen: Float[np.ndarray, "N d"], X_rejected: Float[np.ndarray, "N d"]) -> "CoalaHead":
        """Fit on preference pairs: Phase I on 2N labelled rows, Phase II on their differences.

        Args:
            X_chosen: (N, d) features of prompt + chosen.
            X_rejected: (N, d) features of prompt + rejected.

        Returns:
            The fitted head.

        Raises:
            ValueError: where the two differ in shape or hold NaN.
        """
        X_chosen, X_rejected = np.asarray(X_chosen), np.asarray(X_rejected)
        if X_chosen.shape != X_rejected.shape:
            raise ValueError(f"chosen and rejected must pair up; got shapes {X_chosen.shape} and {X_rejected.shape}")
        _refuse_missing(X_chosen=X_chosen, X_rejected=X_rejected)
        N = len(X_chosen)
        X = validate_data(self, np.concatenate([X_chosen, X_rejected]), dtype=(np.float64, np.float32))
        self.classes_ = np.array([-1, 1])
        hidden = self._phase_one(X, np.repeat([1.0, -1.0], N))
        return self._phase_two(hidden[:N] - hidden[N:])

    def _phase_one(self, X: np.ndarray, signs: np.ndarray) -> np.ndarray:
        self._validate_params()
        self.mean_ = X.mean(axis=0, dtype=float)
        spread = X.std(axis=0, dtype=float)
        # a constant column carries nothing: it is mapped to zero, and its rounding is not blown up
        rounding = len(X) * np.finfo(float).eps * np.abs(X).max(axis=0)
        self.scale_ = np.where(spread > rounding, spread, np.inf) * np.sqrt(X.shape[1])
        Z = self._standardise(X)
        gates = sample_gates(Z, self.n_gates, self.random_state)
        # zero solution above reg_max, so reg is a share of it and means the same for all data
        scale = reg_max(ConvexProgram(Z, signs, gates, reg=1.0))
        if scale <= 1e-6:
            raise ValueError("the features do not tell the classes apart: are chosen and rejected the same rows?")
        program = ConvexProgram(Z, signs, gates, reg=self.reg * scale)
        solution = solve(program, tol=self.tol, max_iter=self.max_iter)
        network = to_relu_network(program, solution)
        self.certificate_: Certificate = solution.certificate
        self.status_, self.trace_, self.n_iter_ = solution.status, solution.trace, solution.n_iter
        self.reg_, self.network_, self.theta2_phase_one_ = program.reg, network, network.theta2
        return network.hidden(Z)

    def _phase_two(self, A: np.ndarray) -> "CoalaHead":
        self.phase_two_: PhaseTwo = fit_phase_two(A, self.theta2_phase_one_, self.beta, self.margin, self.ridge)
        self.network_ = ReluNetwork(self.network_.theta1, self.phase_two_.theta)
        return self

    def _standardise(self, X: np.ndarray) -> np.ndarray:
        return ((X - self.mean_) / self.scale_).astype(np.float64 if X.dtype == np.float64 else np.float32)

    def decision_function(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Reward g(x) = theta2 . (Theta1 x)_+ of each row."""
        check_is_fitted(self)
        _refuse_missing(X=X)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self.network_(self._standardise(X))

    def predict(self, X: Float[np.ndarray, "n d"]) -> np.ndarray:
        """The preferred class where the reward is positive."""
        preferred = (self.decision_function(X) > 0).astype(int)
        return self.classes_[preferred]

    def score_pairs(self, X_chosen: Float[np.ndarray, "N d"], X_rejected: Float[np.ndarray, "N d"]) -> float:
        """Pair accuracy (`rewards/accuracies`): share of pairs with the chosen one ahead; ties count one half."""
        difference = self.decision_function(X_chosen) - self.decision_function(X_rejected)
        return float(np.mean((difference > 0) + 0.5 * (difference == 0)))

    def scorer(self, phase: int = 2) -> jax.tree_util.Partial:
        """The reward as a jit-compatible function of raw features, for guided sampling.

        Args:
            phase: 2 for the full head, 1 for the second layer as Phase I left it (the ablation).

        Returns:
            A `Partial` of float32 arrays: heads with equally many neurons share one compiled program.
        """
        check_is_fitted(self)
        theta2 = self.network_.theta2 if phase == 2 else self.theta2_phase_one_
        arrays = (self.mean_, self.scale_, self.network_.theta1, theta2)
        return jax.tree_util.Partial(relu_reward, *(jnp.asarray(array, jnp.float32) for array in arrays))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `head.safetensors`, `config.json` and `certificate.json`; see `artefact.save_head`."""
        check_is_fitted(self)
        return save_head(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "CoalaHead":
        """Read a saved head; see `artefact.load_head`."""
        return load_head(cls(), folder)


def _refuse_missing(**features: np.ndarray) -> None:
    """One sentence that names the row; scikit-learn's own check says more, and none of it helps here."""
    for name, X in features.items():
        values = np.asarray(X)
        finite = np.isfinite(values.astype(float)) if values.ndim == 2 and values.dtype.kind != "O" else np.True_
        if not finite.all():
            row = int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ValueError(f"{name} holds NaN or infinite values, first in row {row}; remove or impute them")
