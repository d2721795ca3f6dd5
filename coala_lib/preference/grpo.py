"""Group-relative policy optimisation: several replies to one prompt, each judged against the mean of its group.

No critic and no pairs: a reply's advantage is its standardised reward within the group, shared by all its tokens, and
the policy is moved by a clipped importance ratio. The paper names GRPO in its consent form only; it is here as the
on-policy rival, with a reward that may be an oracle or a head.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Reduction = Literal["grpo", "dapo", "dr_grpo"]


def group_advantages(rewards: Float[Array, "B G"], scale: bool = True, epsilon: float = 1e-4) -> Float[Array, "B G"]:
    """Rewards minus their group's mean, over the group's sample standard deviation.

    Args:
        rewards: of G >= 2 replies to each of B prompts.
        scale: divide by the standard deviation plus `epsilon`; "dr_grpo" does not.
        epsilon: keeps groups of equal rewards at exactly zero.

    Returns:
        (B, G) advantages.

    Raises:
        ValueError: for groups of one.

    Example:
        >>> group_advantages(jnp.array([[1.0, 0.0, 0.0, 1.0]])).round(6).tolist()[0][0]
        0.8658750057220459
    """
    if rewards.shape[1] < 2:
        raise ValueError("a group of one reply has nothing to be compared with; draw at least two a prompt")
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return centred / (rewards.std(axis=1, ddof=1, keepdims=True) + epsilon) if scale else centred


def grpo_loss(
    logps: Float[Array, "n T"],
    old_logps: Float[Array, "n T"],
    mask: Bool[Array, "n T"],
    advantages: Float[Array, " n"],
    ref_logps: Float[Array, "n T"] | None = None,
    *,
    clip: float = 0.2,
    beta_kl: float = 0.0,
    reduction: Reduction = "grpo",
) -> Float[Array, ""]:
    """The loss of a batch of replies:

        - mean_i mean_t [ min(k A_i, clip(k, 1 - eps, 1 + eps) A_i) - beta_kl (e^D - D - 1) ]

    with k = pi/pi_old and D = log(pi_ref/pi), token by token.

    Args:
        logps: token log-probabilities under the policy, which the gradient goes through.
        old_logps: the same under the policy that drew the replies.
        mask: which tokens belong to the reply.
        advantages: of each reply.
        ref_logps: under the reference model; needed where beta_kl > 0.
        clip: eps.
        beta_kl: weight of the KL estimate.
        reduction: how tokens are averaged: "grpo" over each reply and then over replies, "dapo" over all tokens,
            "dr_grpo" by the constant n T, so that no reply's length matters.

    Returns:
        The loss.

    Raises:
        ValueError: for an unknown reduction, or a KL term without a reference.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction is one of {', '.join(get_args(Reduction))}; got {reduction!r}")
    if beta_kl and ref_logps is None:
        raise ValueError("a KL term needs ref_logps, the reference model's log-probabilities")
    ratio, advantage = jnp.exp(logps - old_logps), advantages[:, None]
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
    if beta_kl and ref_logps is not None:
        apart = ref_logps - logps
        gain = gain - beta_kl * (jnp.expm1(apart) - apart)
    gain, tokens = jnp.where(mask, gain, 0.0), mask.sum(axis=1).astype(logps.dtype)
    if reduction == "grpo":
        return -(gain.sum(axis=1) / jnp.maximum(tokens, 1)).mean()
    return -gain.sum() / (jnp.maximum(tokens.sum(), 1) if reduction == "dapo" else mask.size)
