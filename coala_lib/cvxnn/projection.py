"""Projection on the cones K_i = {u : (2 D_i - I) X u >= 0}, exact to rounding, and a cheaper repair.

For one block: min ||u - c||^2 / 2 subject to A u >= 0, which is c + A^T mu with the mu >= 0 of least ||c + A^T mu||:
non-negative least squares, on a working set of rows. One product tests every block's rows at once.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import nnls

from coala_lib.cvxnn.operators import Features, cones, cones_of, products

FEASIBLE = 1e-12  # of |c| |x_k|: what rounding leaves


def _worst(short: Float[np.ndarray, " n"], most: int) -> Bool[np.ndarray, " n"]:
    """The `most` rows that fall short most, of those that do (short < -1)."""
    level = np.partition(short, most - 1)[most - 1] if most < len(short) else 0.0
    return (short < -1) & (short <= level)


def _project_block(
    X: Float[np.ndarray, "n d"],
    flips: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    slack: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " d"]:
    """Non-negative least squares on a working set: rows without weight leave it, the rows most violated join.

    ||point|| falls with every set until the projection is feasible, so no set comes back; where rounding stops the
    fall, rows only join.
    """
    most, slack = max(1, X.shape[1] // 2), np.maximum(slack, np.finfo(float).tiny)
    point, size = c, np.inf
    active = np.zeros(len(X), bool)
    while True:
        missing = _worst(np.where(active, 0.0, flips * (X @ point) / slack), most)
        if not missing.any():
            return point
        active = active | missing
        mu, length = nnls((X[active] * flips[active, None]).T, -c)
        point = c + (X[active] * flips[active, None]).T @ mu
        if length < size:
            active[np.flatnonzero(active)[mu == 0]] = False
        size = min(size, length)


def project_cones(A: Features, C: Float[np.ndarray, "H P d"]) -> Float[np.ndarray, "H P d"]:
    """Project each block on its cone.

    Args:
        A: features and patterns, float64.
        C: (H, P, d) blocks.

    Returns:
        (H, P, d) projected blocks; slacks are at least -1e-12 of |c| |x_k|. Blocks inside their cone do not change.

    Example:
        >>> from coala_lib.cvxnn.operators import features
        >>> A = features(np.array([[1.0, 0.0]]), np.array([[1.0]]))
        >>> project_cones(A, np.array([[[-2.0, 3.0]]])).round(6).tolist() == [[[0.0, 3.0]]]
        True
    """
    X, lengths, sizes = A.X, np.linalg.norm(A.X, axis=1), np.linalg.norm(C, axis=-1)
    slack = FEASIBLE * lengths[:, None, None] * sizes[None]
    violated = cones(A, C) < -slack
    halves, gates = np.nonzero(violated.any(axis=0))
    out = C.copy()
    targets, flips, slack = C[halves, gates], (2 * A.D - 1)[:, gates], slack[:, halves, gates]
    for j, (half, i) in enumerate(zip(halves, gates, strict=True)):
        point = _project_block(X, flips[:, j], targets[j], slack[:, j])
        # what rounding leaves of a block that lies in the polar cone would become a neuron of its own
        out[half, i] = point if np.linalg.norm(point) > 1e-11 * sizes[half, i] else 0.0
    return out


def repair_cones(
    A: Features, U: Float[np.ndarray, "H P d"], gates: Float[np.ndarray, "d P"]
) -> Float[np.ndarray, "H P d"]:
    """Make blocks cone-feasible by adding a multiple of their own gate: u_i + t_i h_i, t_i the smallest that does.

    A_i h_i >= 0 by the definition of the pattern, so the step always helps. Two products and no solve, but a point
    that costs more than the projection: rows close to the gate's boundary need a long step.

    Args:
        A: features and patterns.
        U: (H, P, d) blocks.
        gates: (d, P) the gates that made the patterns.

    Returns:
        (H, P, d) blocks in their cones; zero blocks stay zero.

    Raises:
        ValueError: where a violated row lies on the boundary of its gate, so that no step repairs it.

    Example:
        >>> from coala_lib.cvxnn.operators import features
        >>> A, gates = features(np.array([[1.0, 0.0]]), np.array([[1.0]])), np.array([[1.0], [1.0]])
        >>> repair_cones(A, np.array([[[-2.0, 3.0]]]), gates).round(6).tolist()
        [[[0.0, 5.0]]]
    """
    slack = cones(A, U)
    room = cones_of(A, products(A, gates.T[None]))
    need, tiny = np.maximum(-slack, 0), np.finfo(float).tiny
    if (stuck := (need > 0) & (room <= 0)).any():
        raise ValueError(f"row {int(np.argwhere(stuck)[0, 0])} lies on its gate's boundary: use project_cones")
    # one unit in the last place further, or rounding would leave the binding row outside
    steps = (need / np.maximum(room, tiny)).max(axis=0) * (1 + 1e-12)
    return U + steps[..., None] * gates.T[None]
