"""The convex program of a two-layer ReLU network over sampled patterns (paper, Eqs. 3-4).

    minimise  1/2 || sum_i D_i X (v_i - w_i) - y ||^2 + reg * sum_i (||v_i|| + ||w_i||),
    subject to  (2 D_i - I) X v_i >= 0  and  (2 D_i - I) X w_i >= 0.

With u = (v, w) stacked as (2, P, d): F u is the fit, G u >= 0 are the cones. Both are applied as X @ U with masks,
never as the n x 2dP block matrix.

Differs from the paper: the loss carries the factor 1/2 of its Algorithm 2 (its Eq. 4 does not), and G is spelled out
(plus signs in both halves).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

AnyArray = Array | np.ndarray  # the solver runs these products in jax, the certificate in numpy


def fit(X: Float[AnyArray, "n d"], D: Float[AnyArray, "n P"], U: Float[AnyArray, "2 P d"]) -> Float[AnyArray, " n"]:
    """F u = sum_i D_i X (v_i - w_i)."""
    return (D * (X @ (U[0] - U[1]).T)).sum(axis=1)


def fit_adjoint(
    X: Float[AnyArray, "n d"], D: Float[AnyArray, "n P"], r: Float[AnyArray, " n"]
) -> Float[AnyArray, "2 P d"]:
    """F^T r: block i is +-X^T D_i r."""
    half = (D * r[:, None]).T @ X
    # numpy and jax arrays alike: the certificate runs this in float64 numpy, the solver in jitted float32
    return half[None] * np.array([1, -1], dtype=half.dtype)[:, None, None]


def cones(
    X: Float[AnyArray, "n d"], D: Float[AnyArray, "n P"], U: Float[AnyArray, "2 P d"]
) -> Float[AnyArray, "2 n P"]:
    """G u: block i is (2 D_i - I) X u_i, non-negative inside the cone."""
    return (2 * D - 1)[None] * (X @ U.swapaxes(1, 2))


def cones_adjoint(
    X: Float[AnyArray, "n d"], D: Float[AnyArray, "n P"], S: Float[AnyArray, "2 n P"]
) -> Float[AnyArray, "2 P d"]:
    """G^T s: block i is X^T (2 D_i - I) s_i."""
    return ((2 * D - 1)[None] * S).swapaxes(1, 2) @ X


@dataclass(frozen=True)
class ConvexProgram:
    """Data and weights of one program; checked on construction.

    Args:
        X: (n, d) features; any float type, finite.
        y: (n,) labels +1 (chosen) and -1 (rejected), or real targets.
        gates: (d, P) gate vectors, from `sample_gates`.
        reg: strength of the group lasso, > 0.
        variant: "relu" (with cones); "gated" is reserved.
        loss: "squared"; "logistic" is reserved.

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
    variant: Literal["relu"] = "relu"
    loss: Literal["squared"] = "squared"
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
        if self.variant != "relu":
            raise ValueError(f"variant must be 'relu'; got {self.variant!r}")
        if self.loss != "squared":
            raise ValueError(f"loss must be 'squared'; got {self.loss!r}")
        patterns = (X @ gates.astype(X.dtype) >= 0).astype(X.dtype)
        for name, value in {"X": X, "y": y.astype(X.dtype), "gates": gates.astype(X.dtype)}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "patterns", patterns)

    def objective(self, v: np.ndarray, w: np.ndarray) -> float:
        """Value at (v, w), each (P, d), in float64; the constraints are not checked."""
        X, D, U = self.X.astype(float), self.patterns.astype(float), np.stack([v, w]).astype(float)
        residual = fit(X, D, U) - self.y
        return float(0.5 * residual @ residual + self.reg * np.linalg.norm(U, axis=-1).sum())


def explicit_matrices(program: ConvexProgram) -> tuple[np.ndarray, np.ndarray]:
    """F (n, 2Pd) and G (2nP, 2Pd) as dense matrices, for tests and for reading.

    Rows of G are ordered (half, gate, row); columns of both are ordered (half, gate, feature).
    """
    X, D = program.X.astype(float), program.patterns.astype(float)
    blocks = [D[:, i : i + 1] * X for i in range(D.shape[1])]
    signed = [(2 * D[:, i : i + 1] - 1) * X for i in range(D.shape[1])]
    n, d, P = *X.shape, D.shape[1]
    G = np.zeros((2, P, n, 2, P, d))
    for half in range(2):
        for i in range(P):
            G[half, i, :, half, i, :] = signed[i]
    return np.concatenate([*blocks, *(-b for b in blocks)], axis=1), G.reshape(2 * P * n, 2 * P * d)


def reg_max(program: ConvexProgram) -> float:
    """The smallest reg whose solution is zero: max over blocks and signs of ||Pi_K(+-X^T D_i y)||.

    Report `reg / reg_max`: a bare reg means nothing without the scale of the data.
    """
    from coala_lib.cvxnn.certificate import project_cones

    X, D = program.X.astype(float), program.patterns.astype(float)
    return float(np.linalg.norm(project_cones(X, D, fit_adjoint(X, D, program.y.astype(float))), axis=-1).max())
