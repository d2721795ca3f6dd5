"""Small programs, their optimum by an interior-point solver, and where the shared real data stand."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

from coala_lib.cvxnn import ConvexProgram, sample_gates
from coala_lib.cvxnn.operators import explicit_matrices

KINDS = [(variant, loss) for variant in ("relu", "gated") for loss in ("squared", "logistic")]


@pytest.fixture(scope="session")
def make_program() -> Callable[..., ConvexProgram]:
    def make(n: int, d: int, P: int, reg: float, seed: int = 0, dtype: type = np.float64, **kind: str) -> ConvexProgram:
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(n, d))
        y = np.sign(X[:, 0] * X[:, 1] + 0.5 * rng.normal(size=n))
        return ConvexProgram(X.astype(dtype), y, sample_gates(X, P, seed), reg, **kind)

    return make


@pytest.fixture(scope="session")
def optimum() -> Callable[[ConvexProgram], float]:
    """The optimal value by CVXPY/Clarabel, from the explicit block matrices."""

    def solve(program: ConvexProgram) -> float:
        X, y, d = program.X.astype(float), program.y.astype(float), program.X.shape[1]
        F, G = explicit_matrices(X, program.patterns.astype(float), program.halves)
        U = cp.Variable((F.shape[1] // d, d))
        u = cp.vec(U, order="C")
        squared = program.loss == "squared"
        loss = 0.5 * cp.sum_squares(F @ u - y) if squared else cp.sum(cp.logistic(cp.multiply(-y, F @ u)))
        constraints = [G @ u >= 0] if program.variant == "relu" else []
        problem = cp.Problem(cp.Minimize(loss + program.reg * cp.sum(cp.norm(U, 2, axis=1))), constraints)
        tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where it stops at 1e-9 instead of 1e-10
            return float(problem.solve(solver=cp.CLARABEL, **tight))

    return solve


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("COALA_SHARED", Path(__file__).parents[3] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set COALA_SHARED")
    return folder
