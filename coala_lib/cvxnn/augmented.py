"""The augmented Lagrangian of the ReLU program, a smooth convex function of u, and what Newton's method asks of it.

    phi(u) = l(F u) + env(u + lam / rho) + 1/(2 sigma) ||(mu - sigma G u)_+||^2

lam are multipliers of u = v, mu >= 0 those of G u >= 0, env is the Moreau envelope of reg sum_j ||u_j|| with parameter
1/rho. Its gradient F^T l' - G^T (mu - sigma G u)_+ + cut(rho u + lam), cut shortening blocks to length reg, holds both
multipliers as they stand after an update: where it vanishes, ||F_j^T l' - G_j^T mu|| <= reg for every block j.

Only rows with mu - sigma G u > 0 bend phi in a block, about as many as the block has dimensions. Their d x d sums are
kept from step to step and corrected by the rows that changed, so a curvature product needs two products with X, for F.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coala_lib.cvxnn.losses import LOSSES
from coala_lib.cvxnn.operators import Features, cones_of, fit_of, pull_back

FEW_ROWS = 64  # that join or leave a sum at a time; where no block has more, all blocks go together
FLOOR = 1e-6  # share of the stiffness left along a block, where phi may be flat


class Multipliers(NamedTuple):
    """What phi depends on besides the data.

    Attributes:
        lam: (H, P, d) multipliers of u = v, no block longer than reg.
        mu: (n, H, P) multipliers of the cones, >= 0.
        rho, sigma: penalties of u = v and of the cones.
    """

    lam: Float[Array, "H P d"]
    mu: Float[Array, "n H P"]
    rho: Float[Array, ""]
    sigma: Float[Array, ""]


class Look(NamedTuple):
    """phi at u.

    Attributes:
        fit, slope: (n,) F u and l'(F u).
        lam, mu: the multipliers after an update at u.
        size: (H, P, 1) length of rho u + lam before it is cut.
        gradient: (H, P, d) of phi.
    """

    fit: Float[Array, " n"]
    slope: Float[Array, " n"]
    lam: Float[Array, "H P d"]
    mu: Float[Array, "n H P"]
    size: Float[Array, "H P 1"]
    gradient: Float[Array, "H P d"]


def cut(z: Float[Array, "H P d"], reg: Float[Array, ""]) -> tuple[Float[Array, "H P d"], Float[Array, "H P 1"]]:
    """The blocks of z cut to length reg, and their lengths before."""
    size = jnp.linalg.norm(z, axis=-1, keepdims=True)
    return z * jnp.minimum(1, reg / jnp.maximum(size, jnp.finfo(z.dtype).tiny)), size


def look(
    at: Multipliers,
    U: Float[Array, "H P d"],
    XU: Float[Array, "n H P"],
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    loss: str,
) -> Look:
    """phi's gradient at U and its parts, from the products XU = X u; one product with X^T."""
    fit = fit_of(A, XU)
    slope = LOSSES[loss].derivative(fit, y)
    mu = jnp.maximum(at.mu - at.sigma * cones_of(A, XU), 0)
    lam, size = cut(at.rho * U + at.lam, reg)
    half = (A.D * slope[:, None])[:, None, :]
    pulled = pull_back(A, jnp.concatenate([half, -half], axis=1) - cones_of(A, mu))
    return Look(fit, slope, lam, mu, size, pulled + lam)


def slope_along(
    at: Multipliers,
    seen: Look,
    U: Float[Array, "H P d"],
    XU: Float[Array, "n H P"],
    x: Float[Array, "H P d"],
    Xx: Float[Array, "n H P"],
    A: Features,
    y: Float[Array, " n"],
    reg: Float[Array, ""],
    loss: str,
) -> Callable[[Array], Array]:
    """phi's derivative at U + s x as a function of s, without another product with X."""
    slack, bend, fit = cones_of(A, XU), cones_of(A, Xx), fit_of(A, Xx)

    def slope(s: Float[Array, ""]) -> Float[Array, ""]:
        mu = jnp.maximum(at.mu - at.sigma * (slack + s * bend), 0)
        lam, _ = cut(at.rho * (U + s * x) + at.lam, reg)
        return (LOSSES[loss].derivative(seen.fit + s * fit, y) * fit).sum() - (mu * bend).sum() + (lam * x).sum()

    return slope


class Curvature(NamedTuple):
    """An element of phi's generalised Hessian, F^T diag(weights) F + sigma gram + stiff (I - radial radial^T).

    Attributes:
        weights: (n,) l''(F u).
        gram: (H, P, d, d) sums of x x^T over the rows that bend phi.
        stiff: (H, P, 1) curvature of the envelope across a block.
        radial: (H, P, d) unit directions along which it is flat; zero for blocks inside the ball.
        sigma: penalty of the cones.
    """

    weights: Float[Array, " n"]
    gram: Float[Array, "H P d d"]
    stiff: Float[Array, "H P 1"]
    radial: Float[Array, "H P d"]
    sigma: Float[Array, ""]


def curvature(
    at: Multipliers, seen: Look, gram: Float[Array, "H P d d"], y: Float[Array, " n"], reg: Float[Array, ""], loss: str
) -> Curvature:
    """The `Curvature` at what was seen, given the sums over the rows where its mu is positive."""
    inside = seen.size <= reg
    stiff = jnp.where(inside, at.rho, at.rho * reg / jnp.maximum(seen.size, jnp.finfo(reg.dtype).tiny))
    # outside the ball the cut turns a block without lengthening it
    radial = jnp.where(inside, 0, (1 - FLOOR) * seen.lam / reg)
    return Curvature(LOSSES[loss].second(seen.fit, y), gram, stiff, radial, at.sigma)


def bend(H: Curvature, A: Features, x: Float[Array, "H P d"]) -> Float[Array, "H P d"]:
    """The Hessian times x."""
    f = H.weights * (A.D * (A.X @ (x[0] - x[1]).T)).sum(axis=1)
    half = pull_back(A, (A.D * f[:, None])[:, None, :])[0]
    turn = x - H.radial * (H.radial * x).sum(axis=-1, keepdims=True)
    return jnp.stack([half, -half]) + H.sigma * jnp.einsum("hpde,hpe->hpd", H.gram, x) + H.stiff * turn


class Preconditioner(NamedTuple):
    """An inverse of the Hessian with F taken to be half of (X, ..., X, -X, ..., -X), as if every pattern were 1/2.

    With blocks B_j, Z = (I, ..., I, -I, ..., -I) and K the part of F^T diag(weights) F that all blocks share, it is
    (diag(B_j) + Z^T K Z)^-1, by the formula of Sherman, Morrison and Woodbury: one more d x d matrix, K (I + T K)^-1
    with T = sum_j B_j^-1.

    Attributes:
        inverse: (H, P, d, d) inverses of the blocks B_j.
        core: (d, d).
    """

    inverse: Float[Array, "H P d d"]
    core: Float[Array, "d d"]


def preconditioner(H: Curvature, whole: Float[Array, "d d"]) -> Preconditioner:
    """The `Preconditioner` of a Hessian; `whole` is X^T X.

    A pattern holds half of the rows: a block of F^T F is whole / 2, of which the blocks share whole / 4.
    """
    eye = jnp.eye(len(whole), dtype=whole.dtype)
    shared = 0.25 * H.weights.mean() * whole
    inverse = jnp.linalg.inv(H.sigma * H.gram + shared[None, None] + H.stiff[..., None] * eye[None, None])
    # a product with ones: the compiler's sum over leading axes runs on one core, and slowly
    total = (jnp.ones(inverse[..., 0, 0].size, eye.dtype) @ inverse.reshape(-1, eye.size)).reshape(eye.shape)
    core = shared @ jnp.linalg.inv(eye + total @ shared)
    return Preconditioner(inverse, 0.5 * (core + core.T))


def precondition(M: Preconditioner, r: Float[Array, "H P d"]) -> Float[Array, "H P d"]:
    """The preconditioner times r."""

    def by_block(r: Float[Array, "H P d"]) -> Float[Array, "H P d"]:
        return jnp.einsum("hpde,hpe->hpd", M.inverse, r)

    q = by_block(r)
    half = M.core @ (q[0] - q[1]).sum(axis=0)
    return q - by_block(jnp.broadcast_to(jnp.stack([half, -half])[:, None], r.shape))


def corrected_sums(
    A: Features,
    gram: Float[Array, "H P d d"],
    held: Bool[Array, "n H P"],
    wanted: Bool[Array, "n H P"],
    whole: Float[Array, "d d"],
) -> Float[Array, "H P d d"]:
    """Sums of x x^T over the rows `wanted` in each block, from those over the rows `held`.

    Where few rows changed in every block, all blocks are corrected together; else block after block, each from the
    nearest of what it held, nothing, and all rows. Far from the solution of a program with language-like features
    nearly every row changes in some block and few do in most.

    Args:
        A: data.
        gram: sums over `held`.
        held, wanted: rows in each block's sum, before and after.
        whole: X^T X, the sum over all rows.

    Returns:
        The sums over `wanted`.
    """
    most = (held != wanted).sum(axis=0, dtype=jnp.int32).max()
    held, wanted = (rows.reshape(len(rows), -1).T for rows in (held, wanted))
    blocks = gram.reshape(-1, *whole.shape)
    blocks = jax.lax.cond(
        most <= FEW_ROWS,
        lambda: _together(A, blocks, held, wanted),
        lambda: _by_block(A, blocks, held, wanted, whole),
    )
    return blocks.reshape(gram.shape)


def _together(
    A: Features, gram: Float[Array, "B d d"], held: Bool[Array, "B n"], wanted: Bool[Array, "B n"]
) -> Float[Array, "B d d"]:
    """Correct every block by its changed rows, of which none has more than FEW_ROWS."""
    changed, rows = jax.lax.top_k((held != wanted).astype(gram.dtype), min(FEW_ROWS, held.shape[1]))
    x = A.X[rows]
    signed = x * jnp.where(jnp.take_along_axis(wanted, rows, axis=1), changed, -changed)[..., None]
    return gram + jnp.einsum("bcd,bce->bde", signed, x)


def _by_block(
    A: Features,
    gram: Float[Array, "B d d"],
    held: Bool[Array, "B n"],
    wanted: Bool[Array, "B n"],
    whole: Float[Array, "d d"],
) -> Float[Array, "B d d"]:
    """Build each block from its nearest base, some rows at a time."""

    def one_block(block: tuple[Array, Array, Array]) -> Array:
        gram, held, wanted = block
        bases = jnp.stack([held, jnp.zeros_like(held), jnp.ones_like(held)])
        apart = (bases != wanted[None]).sum(axis=1, dtype=jnp.int32)
        nearest = apart.argmin()
        rows = jnp.nonzero(bases[nearest] != wanted, size=len(wanted) + FEW_ROWS, fill_value=0)[0]

        def one_chunk(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            gram, at = carry
            here = jax.lax.dynamic_slice(rows, (at,), (FEW_ROWS,))
            live = at + jnp.arange(FEW_ROWS, dtype=jnp.int32) < apart[nearest]
            x = A.X[here]
            sign = jnp.where(wanted[here], 1, -1).astype(x.dtype) * live.astype(x.dtype)
            return gram + (x * sign[:, None]).T @ x, at + FEW_ROWS

        start = jnp.stack([gram, jnp.zeros_like(gram), whole])[nearest], jnp.zeros((), jnp.int32)
        return jax.lax.while_loop(lambda carry: carry[1] < apart[nearest], one_chunk, start)[0]

    return jax.lax.map(one_block, (gram, held, wanted))
