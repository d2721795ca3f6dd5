"""A certificate: one feasible point of the program, one of its dual, and the gap between them.

Dual of the program: maximise -l*(-z) subject to ||Pi_{K_i}(+-X^T D_i z)|| <= reg for every gate and both signs
(for the gated variant without Pi). For any mu >= 0, ||c + A_i^T mu|| bounds ||Pi_{K_i}(c)||, and ADMM's own
multipliers are such mu: the bound is free. For the squared loss -l*(-z) = z.y - ||z||^2 / 2.

Everything here runs in float64 whatever the solver used. It speaks of the *sampled* program: nothing is said about
patterns that were not drawn. `all_patterns_bound` does speak of them, and is loose.
"""

import numpy as np
from jaxtyping import Float

from coala_lib.cvxnn.operators import cones, cones_adjoint, fit, fit_adjoint
from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.cvxnn.projection import project_cones
from coala_lib.solution import Certificate


def dual_bound(
    program: ConvexProgram, z: Float[np.ndarray, " n"], mu: Float[np.ndarray, "n H P"] | None = None
) -> float:
    """Best dual value on the ray through z, made feasible by the free bound.

    Args:
        program: the program.
        z: (n,) direction; -l'(F u) of a late iterate (for the squared loss y - F u) is nearly optimal.
        mu: (n, H, P) multipliers of the cones, clipped at zero; None uses mu = 0 (the bound without cones).

    Returns:
        A lower bound on the optimum of the sampled program.

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2), reg=0.5)
        >>> round(dual_bound(program, np.array([1.0, -1.0])), 4)
        0.5821
    """
    A, y, z = program.features(), program.y.astype(float), z.astype(float)
    blocks = fit_adjoint(A, z, program.halves)
    if mu is not None:
        blocks = blocks + cones_adjoint(A, np.maximum(mu.astype(float), 0))
    return _value(program, _scale(program, z, y, np.linalg.norm(blocks, axis=-1).max()) * z, y)


def _scale(program: ConvexProgram, z: np.ndarray, y: np.ndarray, bound: float) -> float:
    """The best s for which s z is feasible, given a bound on the block norms of z."""
    # the constraint is one-sided for cones (both signs are among the blocks), so the ray is s >= 0
    return float(program.loss_function.scale(z, y, program.reg / bound if bound else np.inf))


def _value(program: ConvexProgram, z: np.ndarray, y: np.ndarray) -> float:
    return float(program.loss_function.dual(z, y))


def certify(
    program: ConvexProgram,
    U: Float[np.ndarray, "H P d"],
    V: Float[np.ndarray, "H P d"] | None = None,
    rho_lam: Float[np.ndarray, "H P d"] | None = None,
    sigma_nu: Float[np.ndarray, "n H P"] | None = None,
    negligible: float = 0.0,
) -> tuple[np.ndarray, Certificate]:
    """Certify an iterate.

    Args:
        program: the program.
        U: (H, P, d) raw u-iterate: its residual gives the dual point.
        V: (H, P, d) group-sparse iterate, by default U: its projection on the cones gives the primal point.
        rho_lam: (H, P, d) unscaled multipliers of u = v; by default what makes each block stationary.
        sigma_nu: (n, H, P) unscaled multipliers of G u = s, <= 0; none for the gated variant.
        negligible: blocks of V no longer than this share of its longest count as zero, in [0, 1). What a loop has not
            yet brought to zero costs a projection each, and would stay as a neuron.

    Returns:
        (feasible point (H, P, d), its `Certificate`).

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2), reg=2.0, variant="gated")
        >>> certify(program, np.zeros((1, 2, 2)))[1].gap
        0.0
    """
    A, y = program.features(), program.y.astype(float)
    U = U.astype(float)
    V = U if V is None else V.astype(float)
    lengths = np.linalg.norm(V, axis=-1, keepdims=True)
    V = np.where(lengths > negligible * lengths.max(), V, 0)
    z = -program.loss_function.derivative(fit(A, U), y)
    pull = fit_adjoint(A, z, program.halves)
    cone_violation = 0.0
    point = V
    if program.variant == "relu":
        point = project_cones(A, V)
        size = np.linalg.norm(fit(A, point)) or 1.0
        cone_violation = float(max(-cones(A, point).min(), 0.0) / size)
    mu = None if sigma_nu is None else np.maximum(-sigma_nu.astype(float), 0)
    if mu is not None:
        pull = pull + cones_adjoint(A, mu)
    if rho_lam is None:
        norms = np.linalg.norm(V, axis=-1, keepdims=True)
        sizes = np.linalg.norm(pull, axis=-1, keepdims=True)
        shrunk = pull * (program.reg / np.maximum(sizes, program.reg))
        rho_lam = np.where(norms > 0, program.reg * V / np.where(norms > 0, norms, 1), shrunk)
    residuals = np.linalg.norm(rho_lam.astype(float) - pull, axis=-1) / program.reg
    scale = _scale(program, z, y, np.linalg.norm(pull, axis=-1).max())
    return point, Certificate(
        primal=program.objective(*point),
        dual=_value(program, scale * z, y),
        kkt_residual=float(residuals.max()),
        cone_violation=cone_violation,
        dual_point=scale * z,
        multipliers=None if mu is None else scale * mu,
        block_residuals=residuals,
    )


def all_patterns_bound(program: ConvexProgram, z: Float[np.ndarray, " n"]) -> float:
    """A lower bound on the *network's* optimum, over all patterns at once; rigorous and loose.

    For every u with ||u|| <= 1, z.(X u)_+ <= ||X^T z|| / 2 + sqrt(||z_+||_1 lambda_max(X^T diag(z_+) X)) / 2, because
    2 (t)_+ = t + |t|. Scaling z by reg over this number (both signs) makes it feasible for the dual of the network's
    own training problem (paper, Eq. 2), whatever its width.

    Args:
        program: data, loss and reg; its gates are not looked at. Only the ReLU network has this bound.
        z: (n,) direction, as in `dual_bound`.

    Returns:
        A lower bound on the training objective of every two-layer ReLU network.

    Raises:
        ValueError: for the gated variant, whose gates are part of the model.

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2), reg=0.5)
        >>> 0 < all_patterns_bound(program, np.array([1.0, -1.0])) <= 1
        True
    """
    if program.variant != "relu":
        raise ValueError("all_patterns_bound speaks of ReLU networks; the gated network is its own program")
    X, y, z = program.X.astype(float), program.y.astype(float), z.astype(float)
    half = np.linalg.norm(X.T @ z) / 2
    tails = []
    for part in (np.maximum(z, 0), np.maximum(-z, 0)):
        top = np.linalg.norm(np.sqrt(part)[:, None] * X, 2) ** 2
        tails.append(np.sqrt(part.sum() * top) / 2)
    return _value(program, _scale(program, z, y, float(half + max(tails))) * z, y)
