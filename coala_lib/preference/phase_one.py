"""Phase I as the head runs it: standardise, sample gates, solve the convex program, read off the network.

Features are standardised so that every row has mean squared norm 1; `reg` is a share of `reg_max`, above which the
solution is zero, so that it means the same for all data. A ReLU head deploys the ReLU network of the solution; a
gated head keeps the gated network itself, whose gates stay fixed.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from coala_lib.cvxnn import ConvexProgram, ReluNetwork, reg_max, sample_gates, to_relu_network
from coala_lib.solution import Solution

FLOAT32_REACH = 1e-4  # relative gaps below are out of reach of float32, whatever the features' dtype


@dataclass(frozen=True)
class GatedNetwork(ReluNetwork):
    """f(x) = sum_j 1[gate_j . x >= 0] (theta1_j . x) theta2_j.

    Attributes:
        gates: (d, m) one gate a neuron.

    Example:
        >>> GatedNetwork(np.array([[2.0]]), np.array([3.0]), np.array([[1.0]]))(np.array([[1.0], [-1.0]]))
        array([6., 0.])
    """

    gates: Float[np.ndarray, "d m"]

    def hidden(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        return (X @ self.gates >= 0) * (X @ self.theta1.T)


def relu_reward(
    mean: Float[Array, " d"],
    scale: Float[Array, " d"],
    theta1: Float[Array, "m d"],
    theta2: Float[Array, " m"],
    features: Float[Array, "B d"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, " B"]:
    """Reward of raw features inside a compiled loop; `key` is there for scorers that draw, and not used."""
    standardised = (features - mean[None, :]) / scale[None, :]
    return jnp.maximum(standardised @ theta1.T, 0) @ theta2


def gated_reward(
    mean: Float[Array, " d"],
    scale: Float[Array, " d"],
    theta1: Float[Array, "m d"],
    theta2: Float[Array, " m"],
    gates: Float[Array, "d m"],
    features: Float[Array, "B d"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, " B"]:
    """As `relu_reward`, for a gated network."""
    standardised = (features - mean[None, :]) / scale[None, :]
    return jnp.where(standardised @ gates >= 0, standardised @ theta1.T, 0) @ theta2


def compiled_reward(
    network: ReluNetwork, theta2: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> jax.tree_util.Partial:
    """The reward as a `Partial` of float32 arrays: heads with equally many neurons share one compiled program."""
    gates = (network.gates,) if isinstance(network, GatedNetwork) else ()
    arrays = (jnp.asarray(array, jnp.float32) for array in (mean, scale, network.theta1, theta2, *gates))
    return jax.tree_util.Partial(gated_reward if gates else relu_reward, *arrays)


def standardisation(X: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale by column; a constant column carries nothing, and its scale is infinite."""
    spread = X.std(axis=0, dtype=float)
    # its rounding is not blown up
    rounding = len(X) * np.finfo(float).eps * np.abs(X).max(axis=0)
    return X.mean(axis=0, dtype=float), np.where(spread > rounding, spread, np.inf) * np.sqrt(X.shape[1])


def fingerprint(X: Float[np.ndarray, "n d"], signs: Float[np.ndarray, " n"]) -> str:
    """sha256 of the training rows and their labels, 16 hexadecimal digits."""
    digest = hashlib.sha256(f"{X.dtype}{X.shape}".encode())
    for array in (X, signs):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]


def make_program(
    Z: Float[np.ndarray, "n d"],
    signs: Float[np.ndarray, " n"],
    n_gates: int,
    share: float,
    variant: Literal["relu", "gated"],
    loss: Literal["squared", "logistic"],
    seed: int,
) -> ConvexProgram:
    """The program of standardised rows at a share of its `reg_max`.

    Raises:
        ValueError: where the features do not tell the classes apart.
    """
    gates = sample_gates(Z, n_gates, seed)
    program = ConvexProgram(Z, signs, gates, reg=1.0, variant=variant, loss=loss)
    top = reg_max(program)
    if top <= 1e-6:
        raise ValueError("the features do not tell the classes apart: are chosen and rejected the same rows?")
    return program.with_reg(share * top)


def deployed(program: ConvexProgram, solution: Solution) -> ReluNetwork:
    """The network that a head carries.

    Raises:
        ValueError: where every block is zero.
    """
    if program.variant == "relu":
        return to_relu_network(program, solution)
    norms = np.linalg.norm(solution.v.astype(float), axis=1)
    kept = norms > 0
    if not kept.any():
        raise ValueError(f"the solution is zero: reg = {program.reg:.3g} is too large for these data; lower it, or tol")
    roots = np.sqrt(norms[kept])
    return GatedNetwork(solution.v[kept].astype(float) / roots[:, None], roots, program.gates[:, kept].astype(float))


def signs_of(y: ArrayLike, preferred: object) -> Float[np.ndarray, " n"]:
    """+1 where y is the preferred class, else -1."""
    return np.where(np.asarray(y) == preferred, 1.0, -1.0)


def mesh_of(X: ArrayLike) -> jax.sharding.Mesh | None:
    """The devices that hold a sharded array."""
    sharding = getattr(X, "sharding", None)
    spread = isinstance(sharding, jax.sharding.NamedSharding) and sharding.num_devices > 1
    return sharding.mesh if spread else None
