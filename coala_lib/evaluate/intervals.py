"""A mean with its 95 % interval, by the bootstrap, over the units that are independent.

Pairs of one conversation share their prompt, so conversations are resampled, not pairs.
"""

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from coala_lib.evidence.records import Metric

RESAMPLES = 2000


def mean_interval(
    values: Shaped[np.ndarray, " n"], unit: str, groups: ArrayLike | None = None, seed: int = 0
) -> Metric:
    """Mean and 95 % percentile bootstrap interval.

    Args:
        values: (n,) one value a row, numbers or booleans.
        unit: unit of the values.
        groups: (n,) cluster of each row; whole clusters are resampled. None: every row is its own.
        seed: of the resampling.

    Returns:
        A `Metric` with n the number of clusters; without an interval where there is one cluster only.

    Raises:
        ValueError: where there are no values.

    Example:
        >>> metric = mean_interval(np.array([0.0, 1.0, 1.0, 1.0]), "fraction", groups=["a", "a", "b", "c"])
        >>> metric.value, metric.n
        (0.75, 3)
    """
    values = np.asarray(values, float)
    if values.size == 0:
        raise ValueError("a mean needs at least one value")
    names = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    totals, sizes = np.bincount(names, weights=values), np.bincount(names)
    mean, n = float(values.mean()), len(sizes)
    if n == 1 or np.ptp(totals / sizes) == 0:
        return Metric(value=mean, unit=unit, n=n)
    interval = bootstrap(
        (totals, sizes),
        lambda total, size, axis: total.sum(axis) / size.sum(axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Metric(value=mean, unit=unit, low=float(interval.low), high=float(interval.high), n=n)
