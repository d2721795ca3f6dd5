"""The iterate of ADMM, and what one look at it tells: bounds of the optimum and residuals, all from products with X."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from coala_lib.cvxnn.linsolve import Penalties
from coala_lib.cvxnn.losses import LOSSES
from coala_lib.cvxnn.operators import Features, cones_adjoint, cones_of, fit_adjoint, fit_of, products


class State(NamedTuple):
    """Iterates and scaled duals. Invariants after every step: nu <= 0 and ||rho lam_j|| <= reg.

    Attributes:
        U, V, lam: (H, P, d) weights, their group-sparse copy, dual of u = v.
        S, nu: (n, H, P) slacks of the cones and their dual.
        T, pi: (n,) fit and its dual; the squared loss keeps them at y and 0.
        k: iterations done.
    """

    U: Float[Array, "H P d"]
    V: Float[Array, "H P d"]
    S: Float[Array, "n H P"]
    lam: Float[Array, "H P d"]
    nu: Float[Array, "n H P"]
    T: Float[Array, " n"]
    pi: Float[Array, " n"]
    k: Int[Array, ""]


def initial_state(A: Features, y: Float[Array, " n"], halves: int = 2) -> State:
    """All zeros: the start for which Theorem 1's constants are stated."""
    (n, d), P, dtype = A.X.shape, A.D.shape[1], A.X.dtype
    blocks, rows = jnp.zeros((halves, P, d), dtype), jnp.zeros((n, halves, P), dtype)
    return State(blocks, blocks, rows, blocks, rows, y, jnp.zeros_like(y), jnp.zeros((), jnp.int32))


class Measures(NamedTuple):
    """What one look at the iterate tells, all from products with X.

    Attributes:
        primal: objective at V, which may lie outside the cones.
        dual: a valid lower bound of the optimum.
        dual_error: how far the bound falls short of the unscaled dual value.
        primal_error: what V's cone violation is worth: |<sigma nu, G V>|.
        primal_residual: ||U - V|| / ||V||.
        kkt_residual: largest block of the stationarity residual over reg.
        cone_violation: ||min(G V, 0)|| / ||X V||.
    """

    primal: Float[Array, ""]
    dual: Float[Array, ""]
    dual_error: Float[Array, ""]
    primal_error: Float[Array, ""]
    primal_residual: Float[Array, ""]
    kkt_residual: Float[Array, ""]
    cone_violation: Float[Array, ""]


def measure(
    state: State, A: Features, y: Float[Array, " n"], reg: Float[Array, ""], penalties: Penalties, loss: str
) -> Measures:
    """Bounds and residuals of an iterate; see `Measures`.

    The dual point is -l'(F u) of the raw u-iterate, made feasible with ADMM's own multipliers of the cones.
    """
    _, rho, sigma = penalties
    norm = jnp.linalg.norm
    t = fit_of(A, products(A, state.U))
    z = -LOSSES[loss].derivative(t, y)
    c = fit_adjoint(A, z, len(state.U)) - sigma * cones_adjoint(A, state.nu)
    tiny = jnp.finfo(y.dtype).tiny
    scale = LOSSES[loss].scale(z, y, reg / jnp.maximum(norm(c, axis=-1).max(), tiny))
    dual = LOSSES[loss].dual(scale * z, y)
    XV = products(A, state.V)
    slack = cones_of(A, XV)
    return Measures(
        primal=LOSSES[loss].value(fit_of(A, XV), y) + reg * norm(state.V, axis=-1).sum(),
        dual=dual,
        dual_error=jnp.abs(LOSSES[loss].dual(z, y) - dual),
        primal_error=jnp.abs((sigma * state.nu * slack).sum()),
        primal_residual=norm(state.U - state.V) / jnp.maximum(norm(state.V), tiny),
        kkt_residual=norm(rho * state.lam - c, axis=-1).max() / reg,
        cone_violation=norm(jnp.minimum(slack, 0)) / jnp.maximum(norm(XV), tiny),
    )
