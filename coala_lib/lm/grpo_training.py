"""Group-relative policy optimisation of a decoder: draw groups of replies, judge them, move the policy, again.

The reward is any function of what was written: an oracle that reads the text, or a head that scores the features.
With the head as reward this is the on-policy rival of guided sampling, and shows what over-optimising a head does.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from tqdm import tqdm

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import data_hash, fingerprint_of
from coala_lib.lm.guided import Generation, generate
from coala_lib.lm.policy import Policy
from coala_lib.lm.rows import padded, shuffled
from coala_lib.lm.step import Measures, make_step
from coala_lib.lm.tokenizer import Encoded
from coala_lib.lm.train import TrainConfig, make_optimiser, token_losses
from coala_lib.lm.train_state import History, TrainingState, load_state, save_state
from coala_lib.preference.grpo import Reduction, group_advantages, grpo_loss

# (prompts, one a reply; what was written) -> (n,) rewards
Reward = Callable[[Sequence[Encoded], Generation], Float[np.ndarray, " n"]]


@dataclass(frozen=True)
class GrpoConfig:
    """How a group is drawn and used.

    Attributes:
        group: replies a prompt; `TrainConfig.batch` counts replies, so it is a multiple of it.
        max_new_tokens: tokens a reply at most.
        inner: updates a batch of replies is used for; the importance ratio differs from 1 after the first.
        clip, beta_kl, reduction: see `preference.grpo.grpo_loss`.

    Raises:
        ValueError: for groups of one, or no update.
    """

    group: int = 8
    max_new_tokens: int = 32
    inner: int = 1
    clip: float = 0.2
    beta_kl: float = 0.0
    reduction: Reduction = "dapo"

    def __post_init__(self) -> None:
        if self.group < 2 or self.inner < 1:
            raise ValueError(f"group must be at least 2 and inner at least 1; got {self.group} and {self.inner}")


def train_grpo(
    decoder: Decoder,
    prompts: Sequence[Encoded],
    reward: Reward,
    config: TrainConfig,
    grpo: GrpoConfig = GrpoConfig(),
    *,
    stop: int,
    trainable: type[nnx.Param] = nnx.Param,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 10,
    identity: str = "",
) -> tuple[Decoder, History]:
    """Train on rewards of the model's own replies.

    Args:
        decoder: initial model, which is the reference of the KL term too; not changed.
        prompts: encoded prompts, taken in a seeded order, again and again.
        reward: judges replies; see `Reward`.
        config: `steps` batches of `batch` replies; `context` holds prompt and reply.
        grpo: how a group is drawn and used.
        stop: token that ends a reply, and belongs to it.
        trainable: which parameters move.
        checkpoint: file of the training state; where it exists, training goes on from it, to the same end.
        every: batches between two states.
        identity: what the checkpoint belongs to beside model, prompts and settings, such as the name of the reward.

    Returns:
        (trained decoder, "loss", "reward", "reward_std" within groups and "completion_length" by batch).

    Raises:
        ValueError: where the batch is no whole number of groups, a prompt leaves no room for the reply, or the file is
            of another run.
    """
    if config.batch % grpo.group:
        raise ValueError(f"a batch of {config.batch} replies is no whole number of groups of {grpo.group}")
    policy = Policy(1, grpo.max_new_tokens, grpo.max_new_tokens, top_k=decoder.config.vocab_size, top_p=1.0)
    graph, params, frozen = nnx.split(decoder, trainable, ...)
    optimiser, start = make_optimiser(config), params
    now, order = TrainingState(params, optimiser.init(params), {}), shuffled(len(prompts), config.seed)
    groups = config.batch // grpo.group
    if checkpoint is not None:
        data = f"{fingerprint_of(decoder)} {data_hash(prompts)}"
        identity = f"grpo {identity} {config} {grpo} {trainable.__name__} {data}"
        now = load_state(checkpoint, now, order, groups, identity)

    def logps(decoder: Decoder, tokens: Array) -> Array:
        return -token_losses(decoder, tokens)

    def loss(decoder: Decoder, batch: tuple[Array, ...]) -> tuple[Array, tuple[Array, Measures]]:
        tokens, mask, advantages, old, ref = batch
        options = {"clip": grpo.clip, "beta_kl": grpo.beta_kl, "reduction": grpo.reduction}
        value = grpo_loss(logps(decoder, tokens), old, mask, advantages, ref, **options)
        return value, (jnp.float32(1), {})

    read = jax.jit(lambda params, tokens: logps(nnx.merge(graph, params, frozen), tokens))
    step = jax.jit(make_step(graph, optimiser, loss))
    for index in tqdm(range(now.steps, config.steps), initial=now.steps, total=config.steps, unit="step", desc="grpo"):
        drawn = [prompts[next(order)] for _ in range(groups)]
        asked = [prompt for prompt in drawn for _ in range(grpo.group)]
        seed = int(np.random.default_rng([config.seed, index, 1]).integers(2**31))
        written = generate(nnx.merge(graph, now.params, frozen), asked, policy, stop, seed=seed, batch=len(asked))
        rewards = np.asarray(reward(asked, written), np.float32)
        whole = [ids + [stop] * (len(ids) < grpo.max_new_tokens) for ids in written.tokens]
        sequences = [Encoded((*p.ids, *ids), len(p.ids)) for p, ids in zip(asked, whole, strict=True)]
        tokens, mask = (np.stack(part) for part in zip(*padded(sequences, config.context), strict=True))
        judged = jnp.asarray(rewards.reshape(-1, grpo.group))
        advantages = group_advantages(judged, scale=grpo.reduction != "dr_grpo").reshape(-1)
        old = read(now.params, tokens)
        batch = tokens, mask, advantages, old, read(start, tokens) if grpo.beta_kl else old
        params, state = now.params, now.optimiser
        for _ in range(grpo.inner):
            params, state, value, _ = step(params, frozen, state, batch)
        seen = {
            "loss": float(value),
            "reward": float(rewards.mean()),
            "reward_std": float(judged.std(axis=1, ddof=1).mean()),
            "completion_length": float(mask.sum(axis=1).mean()),
        }
        now = TrainingState(params, state, {name: [*now.history.get(name, []), x] for name, x in seen.items()})
        if checkpoint is not None and (now.steps % every == 0 or now.steps == config.steps):
            save_state(checkpoint, now, identity)
    return nnx.merge(graph, now.params, frozen), now.history


def head_reward(score: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, " n"]]) -> Reward:
    """The reward of a head: `score` of the replies' features, such as `CoalaHead.decision_function`."""
    return lambda asked, written: score(written.features)
