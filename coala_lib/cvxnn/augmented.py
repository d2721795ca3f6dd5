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

ROWS_A_PASS = 128  # rows that join or leave the sum of a block in one pass
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


def block_inverse(H: Curvature, whole: Float[Array, "d d"]) -> Float[Array, "H P d d"]:
    """Inverses of the Hessian's diagonal blocks, a pattern taken to hold half of the rows of X^T X = `whole`."""
    eye = jnp.eye(len(whole), dtype=whole.dtype)[None, None]
    return jnp.linalg.inv(H.sigma * H.gram + 0.5 * H.weights.mean() * whole[None, None] + H.stiff[..., None] * eye)


def corrected_sums(
    A: Features, gram: Float[Array, "H P d d"], held: Bool[Array, "n H P"], wanted: Bool[Array, "n H P"]
) -> Float[Array, "H P d d"]:
    """Sums of x x^T over the rows `wanted` in each block, from those over the rows `held`, some changes a pass."""
    n, halves, P = held.shape
    most = min(ROWS_A_PASS, n)

    def one_pass(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        gram, held = carry
        changed = (held != wanted).reshape(n, -1).T
        rows = jax.vmap(lambda block: jnp.nonzero(block, size=most, fill_value=n)[0])(changed)
        # there is no row n: it reads as zero, and writing to it is dropped
        x = A.X.at[rows].get(mode="fill", fill_value=0)
        joins = jnp.take_along_axis(wanted.reshape(n, -1).T, jnp.minimum(rows, n - 1), axis=1)
        sign = jnp.where(joins, 1, -1).astype(x.dtype)
        gram = gram + jnp.einsum("bcd,bce->bde", x * sign[..., None], x).reshape(gram.shape)
        flipped = jax.vmap(lambda at: jnp.zeros((n,), bool).at[at].set(True, mode="drop"))(rows)
        return gram, held ^ flipped.T.reshape(n, halves, P)

    return jax.lax.while_loop(lambda carry: (carry[1] != wanted).any(), one_pass, (gram, held))[0]
