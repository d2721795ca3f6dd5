"""The u-step: (tau F^T F + rho I + sigma G^T G) u = b, the only linear system of the solver.

Three identities carry it. (2 D_i - I)^2 = I, so G^T G = I (x) X^T X whatever the patterns: with
B = rho I + sigma X^T X, one d x d inverse serves all 2P blocks. In sum and difference coordinates of the two halves
only the difference sees F. And F (I (x) B^-1) F^T is twice the Hadamard product (X B^-1 X^T) o (D D^T).

    "woodbury"  exact, by one n x n inverse; for n up to about a thousand, in float64
    "cg"        conjugate gradients on the difference, preconditioned by B: condition at most 1 + 2 tau P / sigma
    "nystrom"   conjugate gradients on the whole system with the randomised preconditioner of CRONOS
    "plain"     conjugate gradients on the whole system without a preconditioner

The last two are there to compare with: the paper names CG, and CRONOS (Feng, Frangella, Pilanci 2024) its sketch.
All three CG methods start from the last iterate.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float, Int

from coala_lib.cvxnn.operators import Features, fit, fit_adjoint

Method = Literal["woodbury", "cg", "nystrom", "plain"]
Map = Callable[[Array], Array]


class Penalties(NamedTuple):
    """Scalars of the u-system: tau of t = F u (1 for the squared loss), rho of u = v, sigma of G u = s."""

    tau: Float[Array, ""]
    rho: Float[Array, ""]
    sigma: Float[Array, ""]


class Factors(NamedTuple):
    """What a method prepares once for given penalties; unused parts have length 0.

    Attributes:
        gram: (d, d) X^T X.
        block: (d, d) inverse of B.
        rows: (n, n) inverse of I / (2 tau) + (X B^-1 X^T) o (D D^T).
        basis: (rank, H, P, d) and values: (rank,), approximate eigenpairs of tau F^T F + sigma G^T G.
    """

    gram: Float[Array, "d d"]
    block: Float[Array, "d d"]
    rows: Float[Array, "k k"]
    basis: Float[Array, "rank H P d"]
    values: Float[Array, " rank"]


def choose_method(n: int, double: bool, sharded: bool = False) -> Method:
    """The method for n rows: exact where one n x n inverse is cheap and float64 keeps it accurate, else CG.

    In float32 the inverse leaves a residual that no iteration removes; CG starts from the last iterate and does.

    Example:
        >>> choose_method(500, double=True), choose_method(500, double=False), choose_method(100_000, double=True)
        ('woodbury', 'cg', 'cg')
    """
    return "woodbury" if double and n <= 1000 and not sharded else "cg"


def _inverse(M: Float[Array, "k k"]) -> Float[Array, "k k"]:
    return cho_solve(cho_factor(M), jnp.eye(M.shape[0], dtype=M.dtype))


def apply_system(
    A: Features, penalties: Penalties, gram: Float[Array, "d d"], U: Float[Array, "H P d"]
) -> Float[Array, "H P d"]:
    """(tau F^T F + rho I + sigma G^T G) u, with G^T G as the Gram matrix.

    Args:
        A: data of the products.
        penalties: tau, rho, sigma.
        gram: (d, d) X^T X.
        U: (H, P, d) blocks.

    Returns:
        (H, P, d) blocks.
    """
    return penalties.tau * fit_adjoint(A, fit(A, U), len(U)) + penalties.rho * U + penalties.sigma * (U @ gram)


def nystrom(
    apply: Map, shape: tuple[int, ...], rank: int, key: Array, dtype: jnp.dtype
) -> tuple[Float[Array, "rank H P d"], Float[Array, " rank"]]:
    """Randomised eigenpairs of a positive semidefinite map (Frangella, Tropp, Udell 2023).

    Args:
        apply: the map on arrays of `shape`.
        shape: (H, P, d).
        rank: how many pairs.
        key: PRNG key of the Gaussian sketch.
        dtype: of the result.

    Returns:
        Orthonormal basis (rank, H, P, d) and eigenvalues (rank,), largest first.
    """
    size = shape[0] * shape[1] * shape[2]
    test = jnp.linalg.qr(jax.random.normal(key, (size, rank), dtype))[0]
    sketch = jax.lax.map(lambda column: apply(column.reshape(shape)).ravel(), test.T).T
    shift = jnp.finfo(dtype).eps * jnp.linalg.norm(sketch)
    sketch = sketch + shift * test
    root = jnp.linalg.cholesky((test.T @ sketch + sketch.T @ test) / 2, upper=True)
    left, singular, _ = jnp.linalg.svd(
        jax.scipy.linalg.solve_triangular(root.T, sketch.T, lower=True).T, full_matrices=False
    )
    return left.T.reshape(rank, *shape), jnp.maximum(singular**2 - shift, 0)


def prepare(A: Features, penalties: Penalties, method: Method, halves: int = 2, rank: int = 20) -> Factors:
    """Factor what `method` needs.

    Args:
        A: data of the products.
        penalties: tau, rho, sigma.
        method: see the module header.
        halves: 2 for (v, w), 1 for the gated program.
        rank: of the Nystrom sketch.

    Returns:
        `Factors`. Memory d^2, and n^2 for "woodbury" or 2 P d rank for "nystrom".
    """
    (n, d), P, dtype = A.X.shape, A.D.shape[1], A.X.dtype
    gram = A.XT @ A.X
    block = _inverse(penalties.rho * jnp.eye(d, dtype=dtype) + penalties.sigma * gram)
    rows = jnp.zeros((0, 0), dtype)
    basis, values = jnp.zeros((0, halves, P, d), dtype), jnp.zeros((0,), dtype)
    if method == "woodbury":
        shift = 1 / (halves * penalties.tau)
        rows = _inverse(shift * jnp.eye(n, dtype=dtype) + (A.X @ block @ A.XT) * (A.D @ A.D.T))
    if method == "nystrom":
        without = Penalties(penalties.tau, jnp.zeros((), dtype), penalties.sigma)
        basis, values = nystrom(
            lambda U: apply_system(A, without, gram, U), (halves, P, d), rank, jax.random.key(0), dtype
        )
    return Factors(gram, block, rows, basis, values)


def precondition(factors: Factors, penalties: Penalties, method: Method) -> Map:
    """The preconditioner of a CG method, a map on blocks (..., d).

    Args:
        factors: from `prepare`.
        penalties: tau, rho, sigma.
        method: "cg" divides by B; "nystrom" damps the sketched eigenspace; "plain" does nothing.

    Returns:
        A linear map, symmetric and positive definite.
    """
    if method == "cg":
        return lambda R: R @ factors.block
    if method == "plain":
        return lambda R: R
    Q, values, rho = factors.basis, factors.values, penalties.rho
    weights = (values[-1] + rho) / (values + rho) - 1
    return lambda R: R + jnp.tensordot(weights * jnp.tensordot(Q, R, axes=3), Q, axes=1)


def conjugate_gradient(
    apply: Map, b: Array, start: Array, divide: Map, tol: Float[Array, ""], max_steps: int
) -> tuple[Array, Int[Array, ""]]:
    """Preconditioned conjugate gradients until every block's residual norm is at most `tol`.

    Args:
        apply: a symmetric positive definite map.
        b: right-hand side, blocks along the last axis.
        start: first guess.
        divide: the preconditioner's inverse.
        tol: bound on the largest block norm of the residual.
        max_steps: steps at most.

    Returns:
        (solution, steps taken).
    """
    tiny = jnp.finfo(b.dtype).tiny

    def unfinished(carry: tuple) -> Array:
        _, r, _, _, k = carry
        return (k < max_steps) & (jnp.linalg.norm(r, axis=-1).max() > tol)

    def move(carry: tuple) -> tuple:
        x, r, p, rz, k = carry
        Ap = apply(p)
        length = rz / jnp.maximum((p * Ap).sum(), tiny)
        x, r = x + length * p, r - length * Ap
        z = divide(r)
        new = (r * z).sum()
        return x, r, z + new / jnp.maximum(rz, tiny) * p, new, k + 1

    r = b - apply(start)
    z = divide(r)
    x, _, _, _, k = jax.lax.while_loop(unfinished, move, (start, r, z, (r * z).sum(), jnp.zeros((), jnp.int32)))
    return x, k


def solve_u(
    factors: Factors,
    A: Features,
    penalties: Penalties,
    b: Float[Array, "H P d"],
    start: Float[Array, "H P d"],
    tol: Float[Array, ""],
    method: Method,
    max_steps: int = 4,
) -> tuple[Float[Array, "H P d"], Int[Array, ""]]:
    """Solve the u-system.

    Args:
        factors: from `prepare` with the same penalties and method.
        A: data of the products.
        penalties: tau, rho, sigma.
        b: (H, P, d) right-hand side.
        start: (H, P, d) first guess; "woodbury" does not look at it.
        tol: largest block norm of the residual that CG leaves, unless max_steps ends it.
        method: see the module header.
        max_steps: CG steps at most.

    Returns:
        (solution (H, P, d), CG steps).
    """
    if method == "woodbury":
        scaled = b @ factors.block
        pulled = fit_adjoint(A, factors.rows @ fit(A, scaled) / len(b), len(b))
        return scaled - pulled @ factors.block, jnp.zeros((), jnp.int32)
    if method == "cg" and len(b) == 2:
        doubled = Penalties(2 * penalties.tau, penalties.rho, penalties.sigma)
        total = (b[:1] + b[1:]) @ factors.block
        difference, steps = conjugate_gradient(
            lambda U: apply_system(A, doubled, factors.gram, U),
            b[:1] - b[1:],
            start[:1] - start[1:],
            precondition(factors, doubled, method),
            tol,
            max_steps,
        )
        return jnp.concatenate([total + difference, total - difference]) / 2, steps
    return conjugate_gradient(
        lambda U: apply_system(A, penalties, factors.gram, U),
        b,
        start,
        precondition(factors, penalties, method),
        tol,
        max_steps,
    )
