"""Projection on the cones K_i = {u : (2 D_i - I) X u >= 0}, exact to rounding, and a cheaper repair.

For one block: min ||u - c||^2 / 2 subject to A u >= 0 by the augmented Lagrangian of its constraints. The inner
problem is piecewise quadratic; a semismooth Newton step solves it on the rows that bind, and the next step tries the
rows that the solution asks for. All blocks share X, so one product tests every block's rows at once.
Where Newton does not settle, non-negative least squares takes over.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from coala_lib.cvxnn.operators import Features, cones, cones_of, products

PENALTIES = (1e2, 1e5, 1e5, 1e5)  # relative to ||X||^2; the first finds the rows, the others close the violation
NEWTON_STEPS, ROUGH_STEPS = 15, 200
COMPLEMENTARY = 1e-15  # of |c|^2
FEASIBLE = 1e-12  # of |c| |x_k|: what rounding leaves


def _newton_block(
    rows: Float[np.ndarray, "k d"], target: Float[np.ndarray, " d"], mu: Float[np.ndarray, " k"], kappa: float
) -> Float[np.ndarray, " d"]:
    """argmin ||u - target||^2 / 2 + ||mu - kappa rows u||^2 / (2 kappa), in the smaller of k and d dimensions."""
    k, d = rows.shape
    b = target + rows.T @ mu
    if k < d:
        inner = rows @ rows.T
        inner[np.diag_indices(k)] += 1 / kappa
        return b - rows.T @ cho_solve(cho_factor(inner, check_finite=False), rows @ b, check_finite=False)
    inner = kappa * (rows.T @ rows)
    inner[np.diag_indices(d)] += 1
    return cho_solve(cho_factor(inner, check_finite=False), b, check_finite=False)


@jax.jit
def _rough_support(
    X: Float[Array, "n d"], XT: Float[Array, "d n"], flips: Float[Array, "n m"], targets: Float[Array, "m d"]
) -> Bool[Array, "n m"]:
    """Rows that probably bind: the support of a rough dual solution, for all blocks at once.

    Accelerated projected gradient on min ||c + A^T mu||^2 / 2 over mu >= 0, step 1 / ||X||^2.
    """
    step = 1 / jnp.maximum(jnp.linalg.eigvalsh(XT @ X)[-1], jnp.finfo(X.dtype).tiny)

    def move(k: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        mu, ahead = carry
        new = jnp.maximum(ahead - step * flips * (X @ (targets.T + XT @ (flips * ahead))), 0)
        return new, new + (k / (k + 3.0)).astype(X.dtype) * (new - mu)

    start = jnp.zeros(flips.shape, X.dtype)
    return jax.lax.fori_loop(0, ROUGH_STEPS, move, (start, start))[0] > 0


def _least_squares_block(
    X: Float[np.ndarray, "n d"],
    flips: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    active: Bool[np.ndarray, " n"],
    slack: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " d"]:
    """Non-negative least squares on a working set that grows until the projection is feasible."""
    while True:
        rows = X[active] * flips[active, None]
        # scipy's nnls aborts the process when it is given no column
        mu = nnls(rows.T, -c)[0] if len(rows) else np.zeros(0)
        point = c + rows.T @ mu
        missing = (flips * (X @ point) < -slack) & ~active
        if not missing.any():
            return point
        active = active | missing


def _newton(
    X: Float[np.ndarray, "n d"],
    flips: Float[np.ndarray, "n m"],
    targets: Float[np.ndarray, "m d"],
    slack: Float[np.ndarray, "n m"],
) -> tuple[Float[np.ndarray, "m d"], Bool[np.ndarray, " m"]]:
    """Augmented Lagrangian with full Newton steps; quick from nearby points, may fail to settle from far ones.

    A settled point is p = c + A^T mu with mu >= 0. It is the projection where it is feasible and <p - c, p> = 0;
    feasible alone is not enough. ||p - Pi(c)||^2 <= <p - c, p> then bounds its error.

    Returns:
        (points (m, d), which of them are the projection (m,)).
    """
    scale = np.linalg.norm(X, 2) ** 2
    sizes = np.square(targets).sum(axis=1)
    points, mu, done = targets.copy(), np.zeros(flips.shape), np.zeros(len(targets), bool)
    for level in PENALTIES:
        kappa, before = level / scale, None
        for _ in range(NEWTON_STEPS):
            wanted = mu - kappa * flips * (X @ points.T) > 0
            moving = ~done if before is None else ~done & (wanted != before).any(axis=0)
            for j in np.flatnonzero(moving):
                on = wanted[:, j]
                points[j] = _newton_block(X[on] * flips[on, j, None], targets[j], mu[on, j], kappa)
            before = wanted
            if not moving.any():
                break
        fits = flips * (X @ points.T)
        mu = np.where(done, mu, np.maximum(mu - kappa * fits, 0))
        complementary = np.abs(((points - targets) * points).sum(axis=1)) <= COMPLEMENTARY * sizes
        done |= (fits >= -slack).all(axis=0) & complementary & ~moving
        if done.all():
            break
    return points, done


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
    if not len(gates):
        return C
    out = C.copy()
    targets, flips, slack = C[halves, gates], (2 * A.D - 1)[:, gates], slack[:, halves, gates]
    guess = violated[:, halves, gates]
    points, done = targets.copy(), np.zeros(len(gates), bool)
    if guess.sum() <= X.shape[1] * len(gates):
        points, done = _newton(X, flips, targets, slack)
    else:
        # far from the cones most violated rows do not bind, and least squares over all of them is slow
        guess = np.asarray(_rough_support(*(jnp.asarray(a, jnp.float32) for a in (X, X.T, flips, targets))))
    for j, (half, i) in enumerate(zip(halves, gates, strict=True)):
        point = points[j]
        if not done[j]:
            point = _least_squares_block(X, flips[:, j], targets[j], guess[:, j], slack[:, j])
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
