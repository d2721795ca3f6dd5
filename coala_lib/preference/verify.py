"""A saved head held against its data: is it the minimiser it claims to be?

Nothing of the solver is trusted. The data must have the fingerprint of the training data; the program is built again
from them (same seed, same gates); the network's weights must lie in its cones; the saved dual point is made feasible
by exact projections. What comes out is a certificate of its own, to be held against the saved one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from coala_lib.cvxnn import ConvexProgram, ReluNetwork, from_relu_network
from coala_lib.cvxnn.operators import fit_adjoint
from coala_lib.cvxnn.projection import project_cones
from coala_lib.preference.objectives import Objective
from coala_lib.preference.phase_one import GatedNetwork, fingerprint, make_program, signs_of

if TYPE_CHECKING:
    from coala_lib.preference.head import CoalaHead

ROUNDING = 1e-9  # of the primal value: two ways to compute one number


class VerificationError(ValueError):
    """A head that is not what it claims to be on these data; the message says what differs."""


@dataclass(frozen=True)
class Verified:
    """Bounds computed anew.

    Attributes:
        primal, dual: of the sampled program of Phase I.
        phase_two_bound: distance of Phase II's loss from its minimum, nats; None where there was no Phase II.
    """

    primal: float
    dual: float
    phase_two_bound: float | None

    @property
    def gap(self) -> float:
        """primal - dual."""
        return self.primal - self.dual


def verify_pairs(head: "CoalaHead", X_chosen: ArrayLike, X_rejected: ArrayLike) -> Verified:
    """Verify a head that `fit_pairs` made; see `verify_rows`."""
    chosen, rejected = np.asarray(X_chosen), np.asarray(X_rejected)
    X, signs = np.concatenate([chosen, rejected]), np.repeat([1.0, -1.0], [len(chosen), len(rejected)])
    return _verify(head, X, signs, "pairs", lambda: head.pair_objective(chosen, rejected))


def verify_rows(head: "CoalaHead", X: ArrayLike, y: ArrayLike) -> Verified:
    """Verify a head that `fit` made.

    Args:
        head: fitted or loaded.
        X, y: the training data, in the dtype they had.

    Returns:
        The bounds, computed anew.

    Raises:
        VerificationError: where the data are others, or the saved certificate does not hold on them.
    """
    signs = signs_of(y, head.classes_[1])
    return _verify(head, np.asarray(X), signs, "rows", lambda: head.row_objective(X, y))


def _verify(
    head: "CoalaHead", X: np.ndarray, signs: np.ndarray, form: str, objective: Callable[[], Objective]
) -> Verified:
    X = X if X.dtype in (np.float64, np.float32) else X.astype(float)  # as scikit-learn's validation has it
    if head.form_ != form or fingerprint(X, signs) != head.fingerprint_:
        raise VerificationError(f"the head was trained on other {head.form_}; give the training data as they were")
    program = make_program(
        head.standardise(X), signs, head.n_gates, head.reg, head.variant, head.loss, head.random_state
    )
    network = replace(head.network_, theta2=head.theta2_phase_one_)
    try:
        primal = program.objective(*_blocks(program, network))
    except ValueError as error:
        raise VerificationError(f"the network is no point of its program: {error}") from None
    A, y, z = program.features(), program.y.astype(float), head.certificate_.dual_point
    blocks = fit_adjoint(A, z, program.halves)
    if program.variant == "relu":
        blocks = project_cones(A, blocks)
    most = np.linalg.norm(blocks, axis=-1).max()
    scale = program.loss_function.scale(z, y, program.reg / most if most else np.inf)
    dual = float(program.loss_function.dual(scale * z, y))
    found = Verified(primal, dual, None)
    slack = ROUNDING * abs(primal)
    if found.gap > max(head.certificate_.gap, head.tol * abs(dual)) + slack or found.gap < -slack:
        raise VerificationError(
            f"the certificate does not hold: the gap is {found.gap:.3g}, the head says {head.certificate_.gap:.3g}"
        )
    if head.phase_two == "none":
        return found
    Phi, theta = objective(), head.network_.theta2
    slope = float(np.linalg.norm(Phi.gradient(theta)))
    bound = slope**2 / (2 * Phi.ridge)
    if bound > 2 * head.phase_two_.bound + 1e-12:
        raise VerificationError(f"Phase II is {bound:.3g} nats from its optimum, the head says less")
    return Verified(primal, dual, bound)


def _blocks(program: ConvexProgram, network: ReluNetwork) -> np.ndarray:
    """The network's weights in the blocks of the program."""
    if not isinstance(network, GatedNetwork):
        return from_relu_network(program, network)
    blocks = np.zeros((1, program.gates.shape[1], program.X.shape[1]))
    for gate, weights in zip(network.gates.T, network.theta1 * network.theta2[:, None], strict=True):
        same = np.flatnonzero((gate == program.gates.T).all(axis=1))
        if not len(same):
            raise ValueError("a gate is not among those that its seed draws")
        blocks[0, same[0]] = weights
    return blocks
