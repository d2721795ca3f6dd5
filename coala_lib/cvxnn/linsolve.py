"""The u-step: (F^T F + rho I + sigma G^T G) u = b, solved exactly with one d x d and one n x n matrix.

Three identities carry it. (2 D_i - I)^2 = I, so G^T G = I (x) X^T X for every pattern. In sum and difference
coordinates of the two halves only the difference sees F. And F M^-1 F^T is twice the Hadamard product
(X B^-1 X^T) o (D D^T) with B = rho I + sigma X^T X, so Woodbury needs no block matrix.

Both inverses are formed once a solve: products with them run at the speed of memory, triangular solves do not,
and both matrices are bounded below (B >= rho I, the other >= I / 2).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from coala_lib.cvxnn.program import fit, fit_adjoint

Scalar = float | Float[Array, ""]


class Inverses(NamedTuple):
    """Inverses of B, (d, d), and of 1/2 I + (X B^-1 X^T) o (D D^T), (n, n)."""

    block: Float[Array, "d d"]
    rows: Float[Array, "n n"]


def _inverse(A: Float[Array, "k k"]) -> Float[Array, "k k"]:
    return cho_solve(cho_factor(A), jnp.eye(A.shape[0], dtype=A.dtype))


def factor(X: Float[Array, "n d"], D: Float[Array, "n P"], rho: Scalar, sigma: Scalar) -> Inverses:
    """Prepare the u-step for given penalties; memory n^2 + d^2."""
    n, d = X.shape
    block = _inverse(rho * jnp.eye(d, dtype=X.dtype) + sigma * X.T @ X)
    rows = _inverse(0.5 * jnp.eye(n, dtype=X.dtype) + (X @ block @ X.T) * (D @ D.T))
    return Inverses(block, rows)


def solve_u(
    inverses: Inverses, X: Float[Array, "n d"], D: Float[Array, "n P"], b: Float[Array, "2 P d"]
) -> Float[Array, "2 P d"]:
    """Solve the u-system for one right-hand side."""
    scaled = b @ inverses.block
    # Woodbury on F: its F M^-1 F^T is twice the Hadamard product, which I / 2 and the division by 2 account for
    pulled = fit_adjoint(X, D, inverses.rows @ fit(X, D, scaled) / 2)
    return scaled - pulled @ inverses.block
