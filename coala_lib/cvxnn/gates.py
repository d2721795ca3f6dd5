"""Activation patterns: a gate vector h picks the rows with x.h >= 0, and a sample of gates stands for all of them.

The set of all patterns has O(r (n/r)^r) members (paper, section 3.2), too many to list; both the paper and CRONOS
draw P Gaussian gates. Duplicate and empty patterns are dropped here, because they only repeat a block or add a zero.
"""

import numpy as np
from jaxtyping import Float, Real


def sample_gates(X: Real[np.ndarray, "n d"], n_gates: int, seed: int = 0) -> Float[np.ndarray, "d P"]:
    """Draw Gaussian gates whose activation patterns on X are distinct and not empty.

    Args:
        X: (n, d) rows of features.
        n_gates: how many gates to aim for.
        seed: equal seeds give equal gates.

    Returns:
        (d, P) gates with P <= n_gates; fewer only where X admits too few patterns to find more in ten rounds.

    Raises:
        ValueError: where n_gates < 1, X is no finite matrix, or no pattern is left (all rows zero).

    Differs from the paper: it keeps duplicates.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> sample_gates(X, n_gates=8).shape
        (3, 8)
    """
    X = np.asarray(X)
    if n_gates < 1:
        raise ValueError(f"n_gates must be at least 1; got {n_gates}")
    if X.ndim != 2 or 0 in X.shape or not np.isfinite(X.astype(np.float32)).all():
        raise ValueError(f"X must be a finite matrix with rows and columns; got shape {X.shape}")
    rng = np.random.default_rng(seed)
    kept, seen = [], set()
    for _ in range(10):
        for gate in rng.standard_normal((n_gates, X.shape[1])).astype(np.float32):
            rows = X.astype(np.float32) @ gate
            key = np.packbits(rows >= 0).tobytes()
            if len(kept) < n_gates and key not in seen and (rows > 0).any():
                seen.add(key)
                kept.append(gate)
        if len(kept) == n_gates:
            break
    if not kept:
        raise ValueError("no gate has a row on its positive side; are all rows of X zero?")
    return np.stack(kept, axis=1)
