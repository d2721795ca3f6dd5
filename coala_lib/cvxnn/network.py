"""From convex weights to a two-layer ReLU network and back, with the same outputs and the same objective.

Each non-zero block becomes one neuron: v_i gives Theta1 = v_i / sqrt(||v_i||), theta2 = sqrt(||v_i||), and w_i the
same with theta2 negative. Exact for every cone-feasible point, because (X v_i)_+ = D_i X v_i on the cone. Back, a
neuron goes to the gate that has its pattern, with v_i = |theta2| Theta1; neurons that share pattern and sign add up.

Differs from the paper: section 3.2 asks for "some m >= n + 1" neurons; m >= m* is enough, m* the non-zero blocks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog, minimize
from threadpoolctl import threadpool_limits

from coala_lib.cvxnn.operators import fit
from coala_lib.cvxnn.program import ConvexProgram
from coala_lib.cvxnn.projection import repair_cones
from coala_lib.solution import Solution

BOUNDARY = 1e-9  # of |neuron| |x|: a row so near counts as on the boundary
RANK = 1e-12  # share of the largest singular value below which directions of neurons say the same


@dataclass(frozen=True)
class ReluNetwork:
    """f(x) = sum_j (theta1_j . x)_+ theta2_j, bias-free (paper, Eq. 1).

    Attributes:
        theta1: (m, d) first layer.
        theta2: (m,) second layer.

    Example:
        >>> ReluNetwork(np.array([[1.0], [-1.0]]), np.array([2.0, 3.0]))(np.array([[1.0], [-1.0]]))
        array([2., 3.])
    """

    theta1: Float[np.ndarray, "m d"]
    theta2: Float[np.ndarray, " m"]

    def hidden(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        """(Theta1 x)_+, the features of Phase II."""
        return np.maximum(X @ self.theta1.T, 0)

    def __call__(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        return self.hidden(X) @ self.theta2

    def objective(self, program: ConvexProgram) -> float:
        """Training objective with weight decay (paper, Eq. 2): loss + reg / 2 (||Theta1||^2 + ||theta2||^2).

        Args:
            program: data, loss and reg.

        Returns:
            The objective, in float64.
        """
        outputs = self(program.X.astype(float))
        decay = program.reg / 2 * (np.sum(np.square(self.theta1)) + np.sum(np.square(self.theta2)))
        return float(program.loss_function.value(outputs, program.y.astype(float)) + decay)


def to_relu_network(program: ConvexProgram, solution: Solution) -> ReluNetwork:
    """Map a solution to its network.

    A gated solution u lies in no cone; it is written as v - w with v = u + t h and w = t h, both in the cone of the
    gate h. The network then has the gated model's outputs on the training rows, at a larger weight decay.

    Args:
        program: the program that was solved.
        solution: its feasible v and w.

    Returns:
        A `ReluNetwork` with one neuron per non-zero block, m <= 2P.

    Raises:
        ValueError: where every block is zero (reg is at or above `reg_max`), or a gated block cannot be split.

    Example:
        >>> from coala_lib.cvxnn import sample_gates, solve
        >>> X = np.random.default_rng(0).normal(size=(40, 3))
        >>> program = ConvexProgram(X, np.sign(X[:, 0]), sample_gates(X, 4), reg=0.5)
        >>> network = to_relu_network(program, solution := solve(program))
        >>> bool(np.isclose(network.objective(program), solution.primal))
        True
    """
    v, w = solution.v, solution.w
    if program.variant == "gated":
        A = program.features()
        v = repair_cones(A, v[None].astype(float), program.gates.astype(float))[0]
        w = v - solution.v
    blocks = np.concatenate([v, w])
    signs = np.repeat([1.0, -1.0], len(v))
    norms = np.linalg.norm(blocks, axis=1)
    kept = norms > 0
    if not kept.any():
        raise ValueError(f"the solution is zero: reg = {program.reg:.3g} is too large for these data; lower it, or tol")
    roots = np.sqrt(norms[kept])
    return ReluNetwork(theta1=blocks[kept] / roots[:, None], theta2=signs[kept] * roots)


def from_relu_network(program: ConvexProgram, network: ReluNetwork) -> Float[np.ndarray, "2 P d"]:
    """Map a network to feasible convex weights; their objective is at most the network's.

    Args:
        program: a ReLU program whose gates have the pattern of every neuron; `enumerate_gates` has them all.
        network: the network.

    Returns:
        (2, P, d) blocks v and w.

    Raises:
        ValueError: where a neuron's pattern is not among the program's, or the program is gated.

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2) - 0.5, reg=0.1)
        >>> from_relu_network(program, ReluNetwork(np.array([[2.0, -1.0]]), np.array([3.0])))[0]
        array([[ 6., -3.],
               [ 0.,  0.]])
    """
    if program.variant != "relu":
        raise ValueError("a ReLU network maps to the ReLU program; this one is gated")
    X, D = program.X.astype(float), program.patterns
    U = np.zeros((2, D.shape[1], X.shape[1]))
    for neuron, weight in zip(network.theta1, network.theta2, strict=True):
        rows = X @ neuron
        # rows on the neuron's boundary may stand on either side of a gate: the cone is closed
        outside = np.maximum((1 - 2 * D) * rows[:, None], 0).max(axis=0)
        if weight and (rows > 0).any():  # a neuron that no row wakes adds nothing to the outputs
            if outside.min() > BOUNDARY * np.linalg.norm(neuron) * np.linalg.norm(X, axis=1).max():
                raise ValueError("a neuron's pattern is not among the program's: list all with enumerate_gates")
            U[0 if weight > 0 else 1, np.argmin(outside)] += abs(weight) * neuron
    return U


def prune(network: ReluNetwork, X: Float[np.ndarray, "n d"]) -> ReluNetwork:
    """The same outputs on X with at most n neurons, at no more weight decay.

    With outputs and directions fixed, the least sum of sizes is a linear program with n equations; a vertex of it has
    at most n non-zero sizes. Solvers return more: a neuron on a wall between two cones is shared between them.

    Args:
        network: any network, such as an optimal one from `to_relu_network`.
        X: (n, d) rows on which the outputs stay.

    Returns:
        A balanced network; its neurons keep their directions.

    Raises:
        ValueError: where the linear program fails on rounding.

    Example:
        >>> twice = ReluNetwork(np.array([[1.0], [2.0]]), np.array([1.0, 1.0]))
        >>> prune(twice, np.array([[1.0], [-1.0]]))(np.array([[2.0]])).round(6)
        array([6.])
    """
    sizes, signs = np.linalg.norm(network.theta1, axis=1), np.sign(network.theta2)
    kept = (sizes > 0) & (signs != 0)
    units, signs = network.theta1[kept] / sizes[kept, None], signs[kept]
    columns = signs * np.maximum(X @ units.T, 0)
    if not signs.size:
        return ReluNetwork(units, signs)
    # equations on the row space, met by the sizes as they are: on the outputs they would be dependent up to rounding
    _, strengths, spaces = np.linalg.svd(columns, full_matrices=False)
    spaces = spaces[strengths > RANK * strengths.max(initial=0)]
    now = sizes[kept] * np.abs(network.theta2[kept])
    vertex = linprog(np.ones(len(signs)), A_eq=spaces, b_eq=spaces @ now, method="highs-ds")
    if vertex.status != 0:
        raise ValueError(f"no vertex found: {vertex.message}")
    kept = vertex.x > 1e-12 * vertex.x.max()
    # the solver meets an equation to 1e-7; a vertex's columns are independent, so least squares meets it to rounding
    exact = np.linalg.lstsq(spaces[:, kept], spaces @ now, rcond=None)[0]
    roots = np.sqrt(np.maximum(exact, 0))
    return ReluNetwork(units[kept] * roots[:, None], signs[kept] * roots)


def train_relu_network(program: ConvexProgram, m: int, seed: int = 0, max_iter: int = 500) -> ReluNetwork:
    """L-BFGS on the non-convex problem itself (paper, Eq. 2), from a random start: the rival of the convex program.

    Args:
        program: data, loss and reg; its gates are not looked at.
        m: neurons.
        seed: of the Gaussian start.
        max_iter: iterations at most. The objective has kinks, where the method stalls.

    Returns:
        The network at the end.

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2), reg=0.1)
        >>> round(train_relu_network(program, m=4).objective(program), 4)
        0.19
    """
    (_, d), X, y = program.X.shape, program.X.astype(float), program.y.astype(float)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        first, second = weights[: m * d].reshape(m, d), weights[m * d :]
        before = X @ first.T
        hidden = np.maximum(before, 0)
        outputs = hidden @ second
        slope = program.loss_function.derivative(outputs, y)
        value = program.loss_function.value(outputs, y) + program.reg / 2 * weights @ weights
        first_slope = ((slope[:, None] * second) * (before > 0)).T @ X
        return value, np.append(first_slope.ravel(), hidden.T @ slope) + program.reg * weights

    start = np.random.default_rng(seed).normal(size=m * (d + 1))
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "ftol": 1e-15, "gtol": 1e-10}
    with threadpool_limits(1):  # products this small only wait for other threads
        end = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return ReluNetwork(end[: m * d].reshape(m, d), end[m * d :])


def mismatch(program: ConvexProgram, v: Float[np.ndarray, "P d"], w: Float[np.ndarray, "P d"]) -> float:
    """How far the deployed network's outputs are from the convex model's: ||f(X) - F u|| / ||F u||.

    Zero for cone-feasible weights; about a third for the iterates of an ADMM stopped early.

    Args:
        program: a ReLU program.
        v, w: (P, d) weights, feasible or not.

    Returns:
        The relative difference on the training rows; zero for weights that are all zero.

    Example:
        >>> program = ConvexProgram(np.eye(2), [1, -1], gates=np.eye(2), reg=0.1)
        >>> mismatch(program, np.eye(2), np.zeros((2, 2)))
        0.0
    """
    A = program.features()
    model = fit(A, np.stack([v, w]).astype(float))
    deployed = np.maximum(A.X @ v.T, 0).sum(axis=1) - np.maximum(A.X @ w.T, 0).sum(axis=1)
    apart = np.linalg.norm(deployed - model)
    return float(apart / np.linalg.norm(model)) if apart else 0.0
