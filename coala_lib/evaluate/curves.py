"""Curves of a run: a band over repeats, a running mean, and how far a curve falls that should rise.

Whether a curve "rises steadily" depends on what is averaged at each point and on the window; both are arguments here.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import t

from coala_lib.evidence.records import Curve, thin


def smooth(curve: ArrayLike, width: int) -> Float[np.ndarray, " k"]:
    """Running mean over `width` values; whole windows only, so the result is shorter by width - 1.

    Args:
        curve: (n,) values, n >= width.
        width: values a window.

    Returns:
        (n - width + 1,) means.

    Raises:
        ValueError: for a window that holds nothing, or is longer than the curve.

    Example:
        >>> smooth([0.0, 2.0, 4.0], 2).tolist()
        [1.0, 3.0]
    """
    values = np.asarray(curve, float)
    if not 1 <= width <= len(values):
        raise ValueError(f"a window holds 1 to {len(values)} values; got {width}")
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


def deepest_fall(curve: ArrayLike) -> float:
    """The largest drop below the highest value so far, as a share of the curve's range; 0 for one that never falls.

    Args:
        curve: (n,) values.

    Returns:
        A number in [0, 1].

    Example:
        >>> deepest_fall([0.0, 3.0, 1.0, 4.0])
        0.5
    """
    values = np.asarray(curve, float)
    reach = float(np.ptp(values))
    return float((np.maximum.accumulate(values) - values).max()) / reach if reach else 0.0


def band(x: ArrayLike, runs: ArrayLike, x_label: str, y_label: str) -> tuple[Curve, tuple[Curve, Curve]]:
    """Mean curve of repeated runs, and the ends of Student's 95 % interval of the mean at every point.

    Args:
        x: (k,) abscissae.
        runs: (r, k) ordinates, a row a run, r >= 2.
        x_label, y_label: names of the axes, units in brackets.

    Returns:
        (mean, (low, high)), as `figures.lines` takes them.

    Raises:
        ValueError: for fewer than two runs.

    Example:
        >>> mean, (low, high) = band([0, 1], [[0.0, 1.0], [0.0, 3.0]], "step", "margin (log-odds)")
        >>> mean.y, low.y[0], round(high.y[1], 1)
        ([0.0, 2.0], 0.0, 14.7)
    """
    values = np.asarray(runs, float)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"a band needs two runs or more, of equal length; got an array of shape {values.shape}")
    r, middle = len(values), values.mean(axis=0)
    spread = t.ppf(0.975, r - 1) * values.std(axis=0, ddof=1) / np.sqrt(r)
    low, high = (thin(x, middle + sign * spread, x_label, y_label) for sign in (-1, 1))
    return thin(x, middle, x_label, y_label), (low, high)
