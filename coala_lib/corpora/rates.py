"""A rate over conversations: its interval and its test, from one and the same beta distribution.

Pairs of one conversation are not independent, so they count as fewer, by the variance measured between conversations;
the rest is Clopper and Pearson's exact interval (Korn and Graubard 1998).
It never leaves [0, 1] and does not collapse where every pair came out alike, as a bootstrap does.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike
from scipy.stats import beta


@dataclass(frozen=True)
class Rate:
    """A share with its uncertainty.

    Attributes:
        value: the mean of the rows.
        n: conversations behind it.
        n_effective: independent rows that would be as informative.
    """

    value: float
    n: int
    n_effective: float

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the two-sided 95 % interval."""
        hits, misses = self.value * self.n_effective, (1 - self.value) * self.n_effective
        low = beta.ppf(0.025, hits, misses + 1) if hits > 0 else 0.0
        high = beta.ppf(0.975, hits + 1, misses) if misses > 0 else 1.0
        return float(low), float(high)

    def summary(self) -> dict[str, float]:
        """Value and ends of the interval, as `evidence.Metric` and JSON take them."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high}

    def p_above(self, bar: float) -> float:
        """One-sided p-value of "the rate is at most `bar`"; at most 0.025 where the interval lies above it."""
        hits, misses = self.value * self.n_effective, (1 - self.value) * self.n_effective
        return float(beta.cdf(bar, hits, misses + 1)) if hits > 0 else 1.0

    def p_away(self, bar: float) -> float:
        """Two-sided p-value of "the rate is `bar`"."""
        below = Rate(1 - self.value, self.n, self.n_effective).p_above(1 - bar)
        return min(1.0, 2 * min(self.p_above(bar), below))


def rate(values: Shaped[np.ndarray, " n"], groups: ArrayLike) -> Rate:
    r"""Mean of values in [0, 1] with the rows it is worth.

    With e_g the summed residuals of conversation g of G, the variance of the mean is
    $v = \frac{G}{G-1}\sum_g e_g^2 / n^2$, or that of independent rows where it is larger. A binomial share of
    $\bar x(1-\bar x)/v$ rows varies as much. Ties are worth one half and vary less, so they count for more.

    Args:
        values: (n,) booleans or numbers in [0, 1]; a tie counts one half.
        groups: (n,) conversation of each row.

    Returns:
        The `Rate`.

    Raises:
        ValueError: where there are no values.

    Example:
        >>> whole, split = (rate(np.array([0, 0, 1, 1]), groups) for groups in ("aabb", "abab"))
        >>> whole.value, round(whole.n_effective, 2), round(split.n_effective, 2)
        (0.5, 1.0, 3.0)
    """
    values, names = np.asarray(values, float), np.unique(list(groups), return_inverse=True)[1]
    if values.size == 0:
        raise ValueError("a rate needs at least one row")
    n, mean = len(values), float(values.mean())
    residuals = np.bincount(names, weights=values - mean)
    G = len(residuals)
    if G == 1 or np.ptp(values) == 0:  # nothing to measure the spread by: count conversations
        return Rate(mean, G, float(G))
    independent = float(values.var(ddof=1)) / n
    clustered = G / (G - 1) * float(residuals @ residuals) / n**2
    return Rate(mean, G, mean * (1 - mean) / max(independent, clustered))


def gain(better: Shaped[np.ndarray, " n"], worse: Shaped[np.ndarray, " n"], groups: ArrayLike) -> dict[str, float]:
    """The mean difference of two shares on the same rows, with its 95 % interval.

    Args:
        better, worse: (n,) numbers in [0, 1], row by row.
        groups: (n,) conversation of each row.

    Returns:
        `value`, `low` and `high`, in [-1, 1]: the paired difference as a `rate` on [0, 1], and back.

    Example:
        >>> round(gain(np.array([1.0, 1.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.5, 0.0]), "abcd")["value"], 2)
        0.5
    """
    shares = rate((np.asarray(better, float) - np.asarray(worse, float) + 1) / 2, groups).summary()
    return {end: 2 * share - 1 for end, share in shares.items()}
