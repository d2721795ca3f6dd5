"""A certificate: one feasible point of the program, one of its dual, and the gap between them.

Dual of the program (squared loss): maximise z.y - ||z||^2 / 2 subject to
||Pi_{K_i}(+-X^T D_i z)|| <= reg for every gate and both signs. For any mu >= 0,
||c + A_i^T mu|| bounds ||Pi_{K_i}(c)||, and ADMM's own multipliers are such mu: the bound is free.

Everything here runs in float64 whatever the solver used. It speaks of the *sampled* program:
nothing is said about patterns that were not drawn.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import nnls

from coala_lib.cvxnn.program import ConvexProgram, cones, cones_adjoint, fit, fit_adjoint
from coala_lib.solution import Certificate

HINT_STEPS = 200


@jax.jit
def _hint(X: Float[Array, "n d"], D: Float[Array, "n P"], C: Float[Array, "2 P d"]) -> Bool[Array, "2 n P"]:
    """Rows that probably bind in each block's projection: the support of a rough dual solution, for all blocks at once.

    Accelerated projected gradient on min ||c + A^T mu||^2 / 2 over mu >= 0, step 1 / ||X||^2.
    """
    step = 1 / jnp.maximum(jnp.linalg.eigvalsh(X.T @ X)[-1], jnp.finfo(X.dtype).tiny)

    def move(k: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        mu, ahead = carry
        new = jnp.maximum(ahead - step * cones(X, D, C + cones_adjoint(X, D, ahead)), 0)
        return new, new + (k / (k + 3.0)).astype(X.dtype) * (new - mu)

    mu = jnp.zeros((2, *D.shape), X.dtype)
    return jax.lax.fori_loop(0, HINT_STEPS, move, (mu, mu))[0] > 0


def project_cones(
    X: Float[np.ndarray, "n d"], D: Float[np.ndarray, "n P"], C: Float[np.ndarray, "2 P d"]
) -> Float[np.ndarray, "2 P d"]:
    """Project each block on its cone K_i = {u : (2 D_i - I) X u >= 0}, by non-negative least squares.

    Moreau: Pi_K(c) = c + A^T mu with mu the solution of min ||c + A^T mu|| over mu >= 0.
    The working set starts from a rough guess and grows until the projection is feasible, so the result is exact.

    Args:
        X: (n, d) features, float64.
        D: (n, P) patterns.
        C: (2, P, d) blocks.

    Returns:
        (2, P, d) projected blocks. Zero blocks stay zero at no cost.
    """
    out, lengths = C.copy(), np.linalg.norm(X, axis=1)
    guess = cones(X, D, C) < 0
    outside = guess.any(axis=1)
    if guess.sum() > X.shape[1] * outside.sum():
        # far from the cones most violated rows do not bind, and least squares over all of them is slow
        guess = np.asarray(_hint(*(jnp.asarray(a, jnp.float32) for a in (X, D, C))))
    for half, i in np.argwhere(outside):
        c, A, active = C[half, i], (2 * D[:, i : i + 1] - 1) * X, guess[half, :, i]
        while True:
            mu, _ = nnls(A[active].T, -c)
            point = c + A[active].T @ mu
            missing = (A @ point < -1e-12 * np.linalg.norm(c) * lengths) & ~active
            if not missing.any():
                break
            active = active | missing
        # what rounding leaves of a block that lies in the polar cone would become a neuron of its own
        out[half, i] = point if np.linalg.norm(point) > 1e-12 * np.linalg.norm(c) else 0.0
    return out


def dual_bound(
    program: ConvexProgram, r: Float[np.ndarray, " n"], mu: Float[np.ndarray, "2 n P"] | None = None
) -> float:
    """Best dual value on the ray through r, made feasible by the free bound.

    Args:
        program: the program.
        r: (n,) direction; y - F u of a late iterate is nearly optimal.
        mu: (2, n, P) multipliers, clipped at zero; None uses mu = 0 (the bound without cones).

    Returns:
        A lower bound on the optimum of the sampled program.
    """
    X, D, y = program.X.astype(float), program.patterns.astype(float), program.y.astype(float)
    r = r.astype(float)
    blocks = fit_adjoint(X, D, r)
    if mu is not None:
        blocks = blocks + cones_adjoint(X, D, np.maximum(mu.astype(float), 0))
    bound = np.linalg.norm(blocks, axis=-1).max()
    if not r.any():
        return 0.0
    # the constraint is one-sided for cones (both signs are among the blocks), so the ray is s >= 0
    scale = np.clip((r @ y) / (r @ r), 0.0, program.reg / bound if bound else np.inf)
    return float(scale * (r @ y) - 0.5 * scale**2 * (r @ r))


def certify(
    program: ConvexProgram,
    U: Float[np.ndarray, "2 P d"],
    V: Float[np.ndarray, "2 P d"],
    rho_lam: Float[np.ndarray, "2 P d"],
    sigma_nu: Float[np.ndarray, "2 n P"],
) -> tuple[np.ndarray, Certificate]:
    """Certify an ADMM iterate.

    Args:
        program: the program.
        U: (2, P, d) raw u-iterate: its residual gives the dual point.
        V: (2, P, d) group-sparse iterate: its projection on the cones gives the primal point.
        rho_lam: (2, P, d) unscaled multipliers of u = v.
        sigma_nu: (2, n, P) unscaled multipliers of G u = s, <= 0.

    Returns:
        (feasible point (2, P, d), its `Certificate`).
    """
    X, D = program.X.astype(float), program.patterns.astype(float)
    U, V, rho_lam, sigma_nu = (a.astype(float) for a in (U, V, rho_lam, sigma_nu))
    point = project_cones(X, D, V)
    residual = program.y - fit(X, D, U)
    e = fit_adjoint(X, D, -residual) + rho_lam + cones_adjoint(X, D, sigma_nu)
    slack = cones(X, D, point)
    size = np.linalg.norm(fit(X, D, point)) or 1.0
    return point, Certificate(
        primal=program.objective(point[0], point[1]),
        dual=dual_bound(program, residual, -sigma_nu),
        kkt_residual=float(np.linalg.norm(e, axis=-1).max() / program.reg),
        cone_violation=float(max(-slack.min(), 0.0) / size),
    )
