"""Activation patterns: a gate vector h picks the rows with x.h >= 0, and a sample of gates stands for all of them.

n rows in general position in r dimensions have exactly 2 sum_{k<r} C(n-1, k) patterns (Cover), far too many to list
at the paper's scale; both the paper and CRONOS draw P Gaussian gates. For small n and d all of them are listed here,
to measure what a sample loses. Duplicate and empty patterns are dropped: they only repeat a block or add a zero.
"""

from math import comb
from typing import Literal

import numpy as np
from jaxtyping import Float, Real
from scipy.optimize import linprog

MOST_PATTERNS = 5000
ROUNDS = 10


def _features(X: Real[np.ndarray, "n d"]) -> Real[np.ndarray, "n d"]:
    X = np.asarray(X)
    if X.ndim != 2 or 0 in X.shape or not np.isfinite(X.astype(np.float32)).all():
        raise ValueError(f"X must be a finite matrix with rows and columns; got shape {X.shape}")
    return X


def sample_gates(
    X: Real[np.ndarray, "n d"],
    n_gates: int,
    seed: int = 0,
    distribution: Literal["gaussian", "rows"] = "gaussian",
) -> Float[np.ndarray, "d P"]:
    """Draw gates whose activation patterns on X are distinct and not empty.

    Args:
        X: (n, d) rows of features.
        n_gates: how many gates to aim for.
        seed: equal seeds give equal gates.
        distribution: "gaussian" draws isotropic gates, as the paper does; "rows" draws differences of two rows of X,
            so the gates point where the data vary.

    Returns:
        (d, P) float32 gates with P <= n_gates; fewer only where ten rounds of draws find no more patterns.

    Raises:
        ValueError: where n_gates < 1, X is no finite matrix, or no pattern is left (all rows zero).

    Differs from the paper: it keeps duplicates.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> sample_gates(X, n_gates=8).shape
        (3, 8)
    """
    X = _features(X)
    if n_gates < 1:
        raise ValueError(f"n_gates must be at least 1; got {n_gates}")
    if distribution not in ("gaussian", "rows"):
        raise ValueError(f"distribution must be 'gaussian' or 'rows'; got {distribution!r}")
    rng = np.random.default_rng(seed)
    single = X.astype(np.float32)
    kept, seen = [], set()
    for _ in range(ROUNDS):
        if distribution == "gaussian":
            draws = rng.standard_normal((n_gates, X.shape[1])).astype(np.float32)
        else:
            pairs = rng.integers(len(X), size=(2, n_gates))
            draws = single[pairs[0]] - single[pairs[1]]
        for gate in draws:
            rows = single @ gate
            key = np.packbits(rows >= 0).tobytes()
            if len(kept) < n_gates and key not in seen and (rows > 0).any():
                seen.add(key)
                kept.append(gate)
        if len(kept) == n_gates:
            break
    if not kept:
        raise ValueError("no gate has a row on its positive side; are all rows of X zero?")
    return np.stack(kept, axis=1)


def count_patterns(n: int, rank: int) -> int:
    """Number of activation patterns of n rows in general position (Cover): 2 sum_{k < rank} C(n - 1, k).

    Args:
        n: rows.
        rank: of X.

    Returns:
        The count, the empty pattern included. Rows that are not in general position have fewer.

    Example:
        >>> count_patterns(8, 2), count_patterns(7, 3)
        (16, 44)
    """
    return 2 * sum(comb(n - 1, k) for k in range(rank))


def enumerate_gates(X: Real[np.ndarray, "n d"]) -> Float[np.ndarray, "d P"]:
    """One gate for every full-dimensional activation pattern of X, the empty pattern left out.

    Rows are added one by one; each cell found so far keeps a point inside, and a linear program asks whether the new
    row's hyperplane also leaves room on the other side.

    Args:
        X: (n, d) rows; zero rows are on every gate's side.

    Returns:
        (d, P) float64 gates, each as far from the hyperplanes as its cell allows (in the box |h| <= 1).

    Raises:
        ValueError: where X is no finite matrix, is zero, or has more than 5000 patterns by Cover's count.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(6, 2))
        >>> enumerate_gates(X).shape[1] == count_patterns(6, 2)
        True
    """
    X = _features(X).astype(float)
    lengths = np.linalg.norm(X, axis=1)
    rows = X[lengths > 0] / lengths[lengths > 0, None]
    if not len(rows):
        raise ValueError("no gate has a row on its positive side; are all rows of X zero?")
    if (count := count_patterns(len(rows), int(np.linalg.matrix_rank(rows)))) > MOST_PATTERNS:
        raise ValueError(f"X has up to {count:.3g} patterns, enumerate_gates lists {MOST_PATTERNS}: use sample_gates")
    cells = [(np.array([1.0]), rows[0]), (np.array([-1.0]), -rows[0])]
    for k in range(1, len(rows)):
        grown = []
        for signs, point in cells:
            for sign in (1.0, -1.0):
                extended = np.append(signs, sign)
                inside = sign * (rows[k] @ point) > 1e-6 * np.linalg.norm(point)
                found = point if inside else _interior(extended[:, None] * rows[: k + 1])
                if found is not None:
                    grown.append((extended, found))
        cells = grown
    gates = [_interior(signs[:, None] * rows) for signs, _ in cells if (signs > 0).any()]
    return np.stack([gate for gate in gates if gate is not None], axis=1)


def _interior(rows: Float[np.ndarray, "k d"]) -> Float[np.ndarray, " d"] | None:
    """The point of the unit box that lies deepest inside {h : rows h > 0}, or None where there is none."""
    k, d = rows.shape
    cost = np.append(np.zeros(d), -1.0)
    answer = linprog(
        cost, A_ub=np.hstack([-rows, np.ones((k, 1))]), b_ub=np.zeros(k), bounds=[(-1, 1)] * d + [(None, 1)]
    )
    return answer.x[:d] if answer.status == 0 and answer.x[d] > 1e-9 else None
