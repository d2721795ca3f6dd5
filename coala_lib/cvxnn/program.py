"""The convex program of a two-layer network over sampled patterns (paper, Eqs. 3-4).

    minimise  l(F u; y) + reg * sum_i (||v_i|| + ||w_i||)     subject to  G u >= 0               variant "relu"
    minimise  l(F u; y) + reg * sum_i ||u_i||                                                     variant "gated"

F u = sum_i D_i X (v_i - w_i) for the ReLU network and sum_i D_i X u_i for the gated one. The gated network
sum_i 1[x.h_i >= 0] x.u_i needs no cones, because its gates are fixed.

Differs from the paper: the squared loss carries the factor 1/2 of its Algorithm 2; the logistic loss and the gated
variant are ours to offer.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from coala_lib.cvxnn.losses import LOSSES, Loss
from coala_lib.cvxnn.operators import Features, features, fit, fit_adjoint


@dataclass(frozen=True)
class ConvexProgram:
    """Data and weights of one program; checked on construction.

    Args:
        X: (n, d) features; any float type, finite. float64 is solved in float64, all else in float32.
        y: (n,) labels +1 (chosen) and -1 (rejected); for the squared loss also real targets.
        gates: (d, P) gate vectors, from `sample_gates` or `enumerate_gates`.
        reg: strength of the group lasso, > 0.
        variant: "relu" (with cones) or "gated" (without).
        loss: "squared" or "logistic".

    Attributes:
        patterns: (n, P), 0/1: which rows each gate lets through.

    Raises:
        ValueError: saying what is wrong and where, before any work.

    Example:
        >>> program = ConvexProgram(np.eye(3), [1, -1, 1], gates=np.ones((3, 1)), reg=0.1)
        >>> program.patterns.T
        array([[1., 1., 1.]])
    """

    X: ArrayLike
    y: ArrayLike
    gates: ArrayLike
    reg: float
    variant: Literal["relu", "gated"] = "relu"
    loss: Literal["squared", "logistic"] = "squared"
    patterns: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        X, y, gates = (np.asarray(a) for a in (self.X, self.y, self.gates))
        # half-precision and integer features are welcome; the solve itself needs at least float32
        X = X if X.dtype == np.float64 else X.astype(np.float32)
        if X.ndim != 2 or 0 in X.shape:
            raise ValueError(f"X must have rows and columns, (n, d); got shape {X.shape}")
        if not np.isfinite(X).all():
            row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
            raise ValueError(f"X holds NaN or infinite values, first in row {row}; remove or impute them")
        if y.shape != X.shape[:1] or not np.isfinite(y.astype(float)).all():
            raise ValueError(f"y must be {X.shape[0]} finite labels, one a row of X; got shape {y.shape}")
        if (y == y[0]).all():
            raise ValueError(f"y holds the single value {y[0]}; a preference head needs both classes")
        if gates.ndim != 2 or gates.shape[0] != X.shape[1] or gates.shape[1] == 0:
            raise ValueError(f"gates must be (d, P) with d = {X.shape[1]}; got shape {gates.shape}")
        if not np.isfinite(gates.astype(float)).all():
            raise ValueError("gates hold NaN or infinite values; draw them with sample_gates")
        if not (np.isfinite(self.reg) and self.reg > 0):
            raise ValueError(f"reg must be a positive number; got {self.reg}")
        if self.variant not in ("relu", "gated"):
            raise ValueError(f"variant must be 'relu' or 'gated'; got {self.variant!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be 'squared' or 'logistic'; got {self.loss!r}")
        if self.loss == "logistic" and not np.isin(y, (-1, 1)).all():
            raise ValueError("the logistic loss needs labels +1 and -1; use loss='squared' for real targets")
        patterns = (X @ gates.astype(X.dtype) >= 0).astype(X.dtype)
        for name, value in {"X": X, "y": y.astype(X.dtype), "gates": gates.astype(X.dtype)}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "patterns", patterns)

    @property
    def halves(self) -> int:
        """Blocks a gate: 2 for ReLU (v and w), 1 for gated."""
        return 2 if self.variant == "relu" else 1

    @property
    def loss_function(self) -> Loss:
        """The loss with its derivative, dual and proximal step."""
        return LOSSES[self.loss]

    def features(self, dtype: type = np.float64) -> Features:
        """X, its transpose and the patterns as numpy arrays of `dtype`."""
        return features(self.X.astype(dtype), self.patterns.astype(dtype))

    def with_reg(self, reg: float) -> "ConvexProgram":
        """The same program at another regularisation strength."""
        return replace(self, reg=reg)

    def objective(self, v: np.ndarray, w: np.ndarray | None = None) -> float:
        """Value at (v, w), each (P, d), in float64; the constraints are not checked.

        Args:
            v: (P, d) weights; of the gated network those of u.
            w: (P, d) weights of the negative neurons; not looked at for the gated network.

        Returns:
            The objective, in units of the loss.
        """
        U = np.stack([v, w] if self.halves == 2 else [v]).astype(float)
        value = self.loss_function.value(fit(self.features(), U), self.y.astype(float))
        return float(value + self.reg * np.linalg.norm(U, axis=-1).sum())


def reg_max(program: ConvexProgram) -> float:
    """The smallest reg whose solution is zero: max over blocks of ||Pi(F^T r)||, r the negative derivative at zero.

    Pi projects on the cone of the block, and does nothing for the gated variant. Report `reg / reg_max`: a bare reg
    means nothing without the scale of the data.

    Args:
        program: its reg is not looked at.

    Returns:
        The threshold, in the units of reg.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(20, 2))
        >>> program = ConvexProgram(X, np.sign(X[:, 0]), gates=np.eye(2), reg=1.0)
        >>> reg_max(program) > 0
        True
    """
    from coala_lib.cvxnn.projection import project_cones

    A, y = program.features(), program.y.astype(float)
    blocks = fit_adjoint(A, -program.loss_function.derivative(np.zeros_like(y), y), program.halves)
    if program.variant == "relu":
        blocks = project_cones(A, blocks)
    return float(np.linalg.norm(blocks, axis=-1).max())
