"""What every solver returns: a value, a status with a sentence that helps, a trace, and a certificate."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np


class Status(Enum):
    """How a solve ended; `str(status)` tells the likely cause and what to do."""

    SOLVED = "solved: the certificate is below the tolerance"
    MAX_ITER = "stopped at max_iter before the tolerance: raise max_iter, loosen tol, or raise reg"
    STALLED = "stopped where rounding leaves no room: loosen tol, or give float64 features"
    DIVERGED = "the iterates left the finite numbers: scale the features, or use float64"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Certificate:
    """Proof of how far a point can be from the optimum of the *sampled* convex program.

    Who trusts nobody checks it with products alone: ||F_j^T z + A_j^T mu_j|| <= reg for every block j and mu >= 0, so
    the dual value of z bounds the optimum from below.

    Attributes:
        primal: objective at a feasible point, an upper bound on the optimum.
        dual: value of a feasible dual point, a lower bound on the optimum.
        kkt_residual: largest block norm of the stationarity residual, relative to reg.
        cone_violation: largest violation of the cone constraints at the certified point, relative to its fit.
        dual_point: z, (n,) float64, whose dual value is `dual`.
        multipliers: mu, (n, H, P) float64 multipliers of the cones that make z feasible; None for the gated variant,
            for zero multipliers, and in a head read from a file.
        block_residuals: (H, P) norms of the stationarity residual of each block, relative to reg; None in a head read
            from a file.
    """

    primal: float
    dual: float
    kkt_residual: float
    cone_violation: float
    dual_point: np.ndarray | None = field(default=None, repr=False, compare=False)
    multipliers: np.ndarray | None = field(default=None, repr=False, compare=False)
    block_residuals: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def gap(self) -> float:
        """Duality gap: primal - dual >= distance of the objective from its minimum."""
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        """Gap over the dual value's size; inf where the bound says nothing."""
        return self.gap / abs(self.dual) if self.dual else float("inf")


@dataclass(frozen=True)
class Solution:
    """A solved convex program.

    Attributes:
        v, w: (P, d) feasible weights of the positive and the negative neurons, one block a gate.
        status: how the solve ended.
        certificate: primal and dual bounds.
        n_iter: iterations spent.
        trace: name -> (k,) values along the solve: "iteration" with "estimated_gap" and "dual", and "certified_at"
            with "relative_gap", the iterations where a certificate was computed and the gap that it proved.
        state: the solver's arrays, to start another solve from; not part of the result.
    """

    v: np.ndarray
    w: np.ndarray
    status: Status
    certificate: Certificate
    n_iter: int
    trace: dict[str, np.ndarray]
    state: tuple | None = field(default=None, repr=False, compare=False)

    @property
    def primal(self) -> float:
        return self.certificate.primal

    @property
    def dual(self) -> float:
        return self.certificate.dual

    @property
    def gap(self) -> float:
        return self.certificate.gap
