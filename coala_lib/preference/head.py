"""`CoalaHead`: a certified preference head on frozen features, as a scikit-learn estimator.

Phase I trains a two-layer network through its convex program; Phase II refits its second layer on preferences.
Solved in float64 where the features are float64 or `tol` is below 1e-4, else in float32. A sharded JAX array is
solved on the devices that hold it.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from coala_lib.cvxnn import ConvexProgram, solve
from coala_lib.preference import phase_one
from coala_lib.preference.artefact import load_head, save_head
from coala_lib.preference.objectives import Objective, pairwise, pointwise
from coala_lib.preference.path import RegPath, fit_path
from coala_lib.preference.phase_two import PhaseTwo, minimise
from coala_lib.preference.scores import Scores, readable
from coala_lib.solution import Certificate, Solution, Status


class CoalaHead(Scores):
    """Convex preference head (paper, Algorithm 1).

    Args:
        n_gates: activation patterns P to sample.
        reg: group-lasso strength as a share of `reg_max`, in (0, 1).
        rho: ADMM penalty; None chooses it from the data.
        variant: "relu" (with cones, as the paper) or "gated" (without; the gates stay part of the head).
        loss: of Phase I, "squared" (as the paper) or "logistic".
        beta: reward scale of Phase II.
        margin: gamma of Phase II.
        ridge: pull of Phase II towards the Phase-I weights.
        phase_two: "newton", "agd", "lbfgs" or "adamw"; "none" keeps the weights of Phase I.
        tol: relative duality gap of Phase I.
        max_iter: iterations of Phase I at most.
        random_state: seed of the gates.

    Attributes:
        network_: the two-layer network after Phase II.
        theta2_phase_one_: its second layer after Phase I.
        certificate_, status_, trace_: the Phase-I `Certificate`, whose dual point `verify` proves again on the data,
            how it ended, and its trace.
        phase_two_: the `PhaseTwo` result, None for phase_two="none".
        reg_: the group-lasso strength itself.
        n_iter_: iterations of Phase I.
        fingerprint_: of the training data, by which `verify` knows them.

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
        "rho": [Interval(Real, 0, None, closed="neither"), None],
        "variant": [StrOptions({"relu", "gated"})],
        "loss": [StrOptions({"squared", "logistic"})],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "margin": [Real],
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "phase_two": [StrOptions({"newton", "agd", "lbfgs", "adamw", "none"})],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_gates: int = 32,
        reg: float = 0.05,
        rho: float | None = None,
        variant: str = "relu",
        loss: str = "squared",
        beta: float = 1.0,
        margin: float = 0.0,
        ridge: float = 1e-3,
        phase_two: str = "newton",
        tol: float = 1e-3,
        max_iter: int = 5000,
        random_state: int = 0,
    ) -> None:
        self.n_gates = n_gates
        self.reg = reg
        self.rho = rho
        self.variant = variant
        self.loss = loss
        self.beta = beta
        self.margin = margin
        self.ridge = ridge
        self.phase_two = phase_two
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> "CoalaHead":
        """Fit on labelled rows: Phase II is the pointwise form of the paper's Eq. 9.

        Args:
            X: (n, d) features of prompt + response.
            y: (n,) two classes; the larger label is the preferred one.

        Returns:
            The fitted head.
        """
        mesh = phase_one.mesh_of(X)
        X, y = validate_data(self, readable(X=X), y, dtype=(np.float64, np.float32), y_numeric=False)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) == 1:
            raise ValueError("y must hold two classes; got 1 class")
        if len(self.classes_) > 2:
            kind = "Only binary classification is supported. The type of the target is multiclass"
            raise ValueError(f"{kind}: y holds {len(self.classes_)} classes")
        program = self._program(X, phase_one.signs_of(y, self.classes_[1]), "rows")
        self._adopt(program, self._solve(program, mesh))
        return self._refit(self._row_form(self.network_.hidden(self.standardise(X)), y))

    def fit_pairs(self, X_chosen: ArrayLike, X_rejected: ArrayLike) -> "CoalaHead":
        """Fit on preference pairs: Phase I on 2N labelled rows, Phase II on their differences.

        Args:
            X_chosen: (N, d) features of prompt + chosen.
            X_rejected: (N, d) features of prompt + rejected.

        Returns:
            The fitted head.

        Raises:
            ValueError: where the two differ in shape or hold NaN.
        """
        mesh = phase_one.mesh_of(X_chosen)
        X_chosen, X_rejected = self._pairs(X_chosen, X_rejected)
        program = self._pair_program(X_chosen, X_rejected)
        self._adopt(program, self._solve(program, mesh))
        return self._refit_pairs(X_chosen, X_rejected)

    def reg_path(
        self,
        X_chosen: ArrayLike,
        X_rejected: ArrayLike,
        regs: ArrayLike | None = None,
        held_out: Sequence[ArrayLike] | None = None,
    ) -> RegPath:
        """Heads along the regularisation path, each Phase I started from the one before; see `path.fit_path`."""
        return fit_path(self, X_chosen, X_rejected, regs, held_out)

    def _pairs(self, X_chosen: ArrayLike, X_rejected: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        if np.shape(X_chosen) != np.shape(X_rejected):
            raise ValueError(f"chosen and rejected must pair up; got {np.shape(X_chosen)} and {np.shape(X_rejected)}")
        X_chosen, X_rejected = readable(X_chosen=X_chosen), readable(X_rejected=X_rejected)
        X_chosen = validate_data(self, X_chosen, dtype=(np.float64, np.float32))
        return X_chosen, validate_data(self, X_rejected, dtype=(np.float64, np.float32), reset=False)

    def _pair_program(self, X_chosen: np.ndarray, X_rejected: np.ndarray) -> ConvexProgram:
        self.classes_ = np.array([-1, 1])
        signs = np.repeat([1.0, -1.0], len(X_chosen))
        return self._program(np.concatenate([X_chosen, X_rejected]), signs, "pairs")

    def _program(self, X: np.ndarray, signs: np.ndarray, form: str) -> ConvexProgram:
        self._validate_params()
        self.mean_, self.scale_ = phase_one.standardisation(X)
        self.form_, self.n_rows_, self.fingerprint_ = form, len(X), phase_one.fingerprint(X, signs)
        program = phase_one.make_program(
            self.standardise(X), signs, self.n_gates, self.reg, self.variant, self.loss, self.random_state
        )
        self.dtype_ = str(program.X.dtype)
        return program

    def _solve(self, program: ConvexProgram, mesh: jax.sharding.Mesh | None) -> Solution:
        return solve(program, tol=self.tol, max_iter=self.max_iter, rho=self.rho, mesh=mesh)

    def _adopt(self, program: ConvexProgram, solution: Solution) -> None:
        unfinished = solution.status is not Status.SOLVED
        if unfinished and not (solution.v.any() or solution.w.any()):
            raise ValueError(f"Phase I has no weights yet: {solution.status}")
        self.network_ = phase_one.deployed(program, solution)
        self.certificate_: Certificate = solution.certificate
        self.status_, self.trace_, self.n_iter_ = solution.status, solution.trace, solution.n_iter
        self.reg_, self.theta2_phase_one_ = program.reg, self.network_.theta2
        if unfinished:
            warnings.warn(f"Phase I: {solution.status}", ConvergenceWarning, stacklevel=3)

    def _refit_pairs(self, X_chosen: np.ndarray, X_rejected: np.ndarray) -> "CoalaHead":
        return self._refit(
            self._pair_form(*(self.network_.hidden(self.standardise(X)) for X in (X_chosen, X_rejected)))
        )

    def _refit(self, objective: Objective) -> "CoalaHead":
        self.phase_two_: PhaseTwo | None = None
        if self.phase_two != "none":
            self.phase_two_ = minimise(objective, method=self.phase_two)
            self.network_ = replace(self.network_, theta2=self.phase_two_.theta)
        return self

    def pair_objective(self, X_chosen: ArrayLike, X_rejected: ArrayLike) -> Objective:
        """Phase II's objective on pairs, for this head's first layer; `network_.theta2` minimises it on its own."""
        return self._pair_form(self.hidden(X_chosen), self.hidden(X_rejected))

    def row_objective(self, X: ArrayLike, y: ArrayLike) -> Objective:
        """Phase II's objective on labelled rows, for this head's first layer."""
        return self._row_form(self.hidden(X), y)

    def _pair_form(self, chosen: np.ndarray, rejected: np.ndarray) -> Objective:
        return pairwise(chosen, rejected, self.beta, self.margin, ridge=self.ridge, anchor=self.theta2_phase_one_)

    def _row_form(self, hidden: np.ndarray, y: ArrayLike) -> Objective:
        signs = phase_one.signs_of(y, self.classes_[1])
        return pointwise(hidden, signs, self.beta, self.margin, ridge=self.ridge, anchor=self.theta2_phase_one_)

    def save(
        self, folder: str | os.PathLike[str], *, features: Mapping | None = None, about: Mapping | None = None
    ) -> Path:
        """Write the head with its certificate and model card; see `artefact.save_head`."""
        check_is_fitted(self)
        return save_head(self, folder, features, about)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, pairs: Sequence | None = None, rows: Sequence | None = None
    ) -> "CoalaHead":
        """Read a saved head, and verify it on its training data where given; see `artefact.load_head`."""
        return load_head(cls(), folder, pairs, rows)
