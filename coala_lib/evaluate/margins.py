"""Preference metrics by TRL's names: rewards of chosen and rejected, their margin, and pair accuracy.

A margin is cheap: it grows with the norm of the head and also on random labels. Never show it without the accuracy.
"""

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from coala_lib.evaluate.intervals import mean_interval
from coala_lib.evidence.records import Metric


def preference_metrics(
    rewards_chosen: Shaped[np.ndarray, " N"],
    rewards_rejected: Shaped[np.ndarray, " N"],
    groups: ArrayLike | None = None,
) -> dict[str, Metric]:
    """`rewards/chosen`, `rewards/rejected`, `rewards/margins` and `rewards/accuracies` with intervals.

    Args:
        rewards_chosen, rewards_rejected: (N,) rewards of each pair.
        groups: (N,) conversation of each pair.

    Returns:
        Metric by name. A tie counts one half, so a constant head has accuracy 0.5.

    Example:
        >>> preference_metrics(np.array([1.0, 0.0]), np.array([0.0, 0.0]))["rewards/accuracies"].value
        0.75
    """
    margin = np.asarray(rewards_chosen, float) - np.asarray(rewards_rejected, float)
    return {
        "rewards/chosen": mean_interval(rewards_chosen, "reward", groups),
        "rewards/rejected": mean_interval(rewards_rejected, "reward", groups),
        "rewards/margins": mean_interval(margin, "reward", groups),
        "rewards/accuracies": mean_interval((margin > 0) + 0.5 * (margin == 0), "fraction", groups),
    }
