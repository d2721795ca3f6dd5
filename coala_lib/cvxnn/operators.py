"""F, G and their adjoints as matrix products with masks, never as block matrices (paper, Eq. 4).

    F u = sum_i D_i X (v_i - w_i)          G u = ((2 D_i - I) X u_i)_i, one block a cone

Blocks U have shape (H, P, d): H = 2 halves (v, w) for the ReLU program, H = 1 for the gated one.
All P blocks share X, so each product is one matrix product of X with H P columns, followed by a mask.

Differs from the paper: it never defines G; here it carries plus signs in both halves, as both v_i and w_i lie in K_i.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

AnyArray = Array | np.ndarray  # the solver runs these products in jax, the certificate in numpy


class Features(NamedTuple):
    """The data of F and G.

    Attributes:
        X: (n, d) rows of features.
        XT: (d, n), its transpose; stored, because a product with a transposed view costs twice as much on a CPU.
        D: (n, P) patterns, 0 or 1.
    """

    X: Float[AnyArray, "n d"]
    XT: Float[AnyArray, "d n"]
    D: Float[AnyArray, "n P"]


def features(X: Float[AnyArray, "n d"], D: Float[AnyArray, "n P"]) -> Features:
    """Collect the data of the products.

    Args:
        X: (n, d) features.
        D: (n, P) patterns of the same dtype.

    Returns:
        `Features`.

    Example:
        >>> A = features(np.eye(2), np.ones((2, 1)))
        >>> fit(A, np.ones((2, 1, 2)))
        array([0., 0.])
    """
    return Features(X, X.T, D)


def _signs(halves: int, like: AnyArray) -> np.ndarray:
    return np.array([1, -1], dtype=like.dtype)[:halves]


def pull_back(A: Features, S: Float[AnyArray, "n H P"]) -> Float[AnyArray, "H P d"]:
    """X^T s for every block: what both adjoints end with."""
    n, halves, P = S.shape
    pulled = A.XT @ S.reshape(n, halves * P)
    if isinstance(pulled, jax.Array):
        # the compiler would move the transpose into the product and read X against the grain
        pulled = jax.lax.optimization_barrier(pulled)
    return pulled.T.reshape(halves, P, -1)


def products(A: Features, U: Float[AnyArray, "H P d"]) -> Float[AnyArray, "n H P"]:
    """X u for every block: what both F and G start from."""
    return (A.X @ U.reshape(-1, U.shape[-1]).T).reshape(-1, *U.shape[:2])


def fit_of(A: Features, XU: Float[AnyArray, "n H P"]) -> Float[AnyArray, " n"]:
    """F u from the products X u."""
    difference = XU[:, 0] - XU[:, 1] if XU.shape[1] == 2 else XU[:, 0]
    return (A.D * difference).sum(axis=1)


def cones_of(A: Features, XU: Float[AnyArray, "n H P"]) -> Float[AnyArray, "n H P"]:
    """G u from the products X u; the map is its own inverse."""
    return (2 * A.D - 1)[:, None, :] * XU


def fit(A: Features, U: Float[AnyArray, "H P d"]) -> Float[AnyArray, " n"]:
    """F u = sum_i D_i X (v_i - w_i), the model's output on the rows of X.

    Args:
        A: `Features`.
        U: (H, P, d) blocks.

    Returns:
        (n,) outputs.
    """
    difference = U[0] - U[1] if len(U) == 2 else U[0]
    return (A.D * (A.X @ difference.T)).sum(axis=1)


def fit_adjoint(A: Features, r: Float[AnyArray, " n"], halves: int) -> Float[AnyArray, "H P d"]:
    """F^T r: block i is +-X^T D_i r.

    Args:
        A: `Features`.
        r: (n,) residual.
        halves: 2 for (v, w), 1 for the gated program.

    Returns:
        (halves, P, d) blocks.
    """
    half = pull_back(A, (A.D * r[:, None])[:, None, :])
    # numpy and jax arrays alike: the certificate runs this in float64 numpy, the solver in jitted float32
    return half * _signs(halves, half)[:, None, None]


def cones(A: Features, U: Float[AnyArray, "H P d"]) -> Float[AnyArray, "n H P"]:
    """G u: entry (k, half, i) is (2 D_i - I) x_k . u_i, non-negative inside the cone.

    Args:
        A: `Features`.
        U: (H, P, d) blocks.

    Returns:
        (n, H, P) slacks.
    """
    return cones_of(A, products(A, U))


def cones_adjoint(A: Features, S: Float[AnyArray, "n H P"]) -> Float[AnyArray, "H P d"]:
    """G^T s: block i is X^T (2 D_i - I) s_i.

    Args:
        A: `Features`.
        S: (n, H, P) multipliers or slacks.

    Returns:
        (H, P, d) blocks.
    """
    return pull_back(A, cones_of(A, S))


def explicit_matrices(
    X: Float[np.ndarray, "n d"], D: Float[np.ndarray, "n P"], halves: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """F and G as dense matrices, for tests and for reading.

    Args:
        X: (n, d) features.
        D: (n, P) patterns.
        halves: 2 for (v, w), 1 for the gated program.

    Returns:
        F (n, H P d) and G (H P n, H P d). Rows of G are ordered (half, gate, row), columns (half, gate, feature).

    Example:
        >>> F, G = explicit_matrices(np.ones((3, 2)), np.ones((3, 4)))
        >>> F.shape, G.shape
        ((3, 16), (24, 16))
    """
    (n, d), P = X.shape, D.shape[1]
    blocks = [D[:, i : i + 1] * X for i in range(P)]
    F = np.concatenate([sign * b for sign in _signs(halves, X) for b in blocks], axis=1)
    G = np.zeros((halves, P, n, halves, P, d))
    for half in range(halves):
        for i in range(P):
            G[half, i, :, half, i, :] = (2 * D[:, i : i + 1] - 1) * X
    return F, G.reshape(halves * P * n, halves * P * d)
