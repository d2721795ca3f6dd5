"""From convex weights to a two-layer ReLU network, with the same outputs and the same objective.

Each non-zero block becomes one neuron: v_i gives Theta1 = v_i / sqrt(||v_i||), theta2 = sqrt(||v_i||), and w_i the
same with theta2 negative. Exact for every cone-feasible point, because (X v_i)_+ = D_i X v_i on the cone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.solution import Solution


@dataclass(frozen=True)
class ReluNetwork:
    """f(x) = sum_j (theta1_j . x)_+ theta2_j, bias-free (paper, Eq. 1).

    Attributes:
        theta1: (m, d) first layer.
        theta2: (m,) second layer.
    """

    theta1: Float[np.ndarray, "m d"]
    theta2: Float[np.ndarray, " m"]

    def hidden(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        """(Theta1 x)_+, the features of Phase II."""
        return np.maximum(X @ self.theta1.T, 0)

    def __call__(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        return self.hidden(X) @ self.theta2


def to_relu_network(program: ConvexProgram, solution: Solution) -> ReluNetwork:
    """Map a solution to its network.

    Args:
        program: the program that was solved.
        solution: cone-feasible v and w.

    Returns:
        A `ReluNetwork` with one neuron per non-zero block, m <= 2P.

    Raises:
        ValueError: where every block is zero: reg is at or above `reg_max`.
    """
    blocks = np.concatenate([solution.v, solution.w])
    signs = np.repeat([1.0, -1.0], len(solution.v))
    norms = np.linalg.norm(blocks, axis=1)
    kept = norms > 0
    if not kept.any():
        raise ValueError(f"the solution is zero: reg = {program.reg:.3g} is too large for these data; lower it")
    roots = np.sqrt(norms[kept])
    return ReluNetwork(theta1=blocks[kept] / roots[:, None], theta2=signs[kept] * roots)
