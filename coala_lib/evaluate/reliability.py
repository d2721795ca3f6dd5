"""How good a head is on the first k tokens of a reply: guided sampling asks it long before the reply is whole.

A head that orders whole replies well may order their beginnings by chance; then chunks shorter than the k at which
its accuracy rises only add noise.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from coala_lib.evaluate.intervals import mean_interval
from coala_lib.evidence.records import Metric


def prefix_reliability(
    rewards_chosen: Mapping[int, Shaped[np.ndarray, " N"]],
    rewards_rejected: Mapping[int, Shaped[np.ndarray, " N"]],
    groups: ArrayLike | None = None,
    whole: tuple[Shaped[np.ndarray, " N"], Shaped[np.ndarray, " N"]] | None = None,
) -> dict[str, dict[int, Metric]]:
    """Pair accuracy by prefix length, and how often the prefix already orders a pair as the whole replies do.

    Args:
        rewards_chosen, rewards_rejected: k -> (N,) rewards of the replies' first k tokens (shorter replies are whole).
            Features for every k come from one forward: `lm.features.sweep_features` with `Reading(first=k)`.
        groups: (N,) conversation of each pair; whole conversations are resampled.
        whole: rewards of the whole chosen and rejected replies; by default those of the largest k.

    Returns:
        "accuracy": k -> share of pairs with the chosen prefix ahead, a tie counting one half;
        "agreement": k -> share of pairs whose prefixes are ordered as `whole` is, a tie on one side counting one half.

    Raises:
        ValueError: where the two sides have other k, or none.

    Example:
        >>> chosen, rejected = {1: np.array([0.0, 1.0]), 2: np.array([1.0, 1.0])}, {1: np.ones(2), 2: np.zeros(2)}
        >>> found = prefix_reliability(chosen, rejected)
        >>> [metric.value for metric in found["accuracy"].values()], found["agreement"][1].value
        ([0.25, 1.0], 0.25)
    """
    if not rewards_chosen or set(rewards_chosen) != set(rewards_rejected):
        raise ValueError(
            "chosen and rejected need rewards at the same prefix lengths, and at least one; "
            f"got {sorted(rewards_chosen)} and {sorted(rewards_rejected)}"
        )
    lengths = sorted(rewards_chosen)
    order = {k: np.sign(np.asarray(rewards_chosen[k], float) - np.asarray(rewards_rejected[k], float)) for k in lengths}
    final = order[lengths[-1]] if whole is None else np.sign(np.asarray(whole[0], float) - np.asarray(whole[1], float))
    return {
        "accuracy": {k: mean_interval((1 + order[k]) / 2, "fraction", groups) for k in lengths},
        "agreement": {k: mean_interval(1 - np.abs(order[k] - final) / 2, "fraction", groups) for k in lengths},
    }
