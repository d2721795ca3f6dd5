"""Guided sampling (paper, App. F.3): several nucleus candidates grow from one prefix, a scorer keeps the best.

Every `chunk` tokens each prompt's candidates are scored on the features of what they have written so far, and all of
them continue from the winner. One candidate is plain sampling; a chunk as long as the reply is best-of-n; a random
scorer is the control that shows what the branching alone does. Scores come from hidden states the decoder has anyway.

Differs from the paper: its "contrastive objective" is not specified; the score here is the head's reward. The survivor
may be drawn softly (`Policy.softness`); the paper takes the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from coala_lib.lm.branching import Scorer, write
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.policy import Policy, best_of_n, plain, temperature_sweep
from coala_lib.lm.pooling import Reading
from coala_lib.lm.sampling import Settings
from coala_lib.lm.tokenizer import Encoded

__all__ = ["Generation", "Policy", "Scorer", "best_of_n", "generate", "plain", "random_score", "temperature_sweep"]
WIDTH = 16  # prompts are padded to a multiple of it, so that other prompts meet the same compiled program


@dataclass(frozen=True)
class Generation:
    """What came out, and what it took.

    Attributes:
        tokens: the reply of each prompt, stop token left out.
        n_tokens: tokens drawn, over all candidates of all prompts.
        n_kept: those that stand in the replies, stop tokens included.
        n_forward: token positions the decoder computed, prompts and padding included.
        n_passes: calls of the decoder.
        n_choices: choices that were made, over all prompts.
        n_overruled: choices whose winner wrote something else than the first candidate, which is what plain
            sampling would have taken.
        kl_bound: bound on KL(reply || plain reply) in nats, mean over the prompts: choices times `Policy.kl_bound`.
        features: (n, d) features of each reply as written, stop token included; any head can score them.
        scores: (n,) the scorer's score of each reply; NaN without a scorer.
    """

    tokens: list[list[int]]
    n_tokens: int
    n_kept: int
    n_forward: int
    n_passes: int
    n_choices: int
    n_overruled: int
    kl_bound: float
    features: Float[np.ndarray, "n d"] = field(compare=False, repr=False)
    scores: Float[np.ndarray, " n"] = field(compare=False, repr=False)

    @property
    def acceptance(self) -> float:
        """Share of the drawn tokens that stand in a reply: 1 for plain sampling, about 1/n for n candidates."""
        return self.n_kept / self.n_tokens

    @property
    def overruled(self) -> float:
        """Share of the choices in which the scorer changed what plain sampling would have written; NaN without any."""
        return self.n_overruled / self.n_choices if self.n_choices else float("nan")


def random_score(features: Float[Array, "B d"], key: PRNGKeyArray) -> Float[Array, " B"]:
    """The control: scores that know nothing."""
    return jax.random.normal(key, features.shape[:1])


def _unscored(features: Float[Array, "B d"], key: PRNGKeyArray) -> Float[Array, " B"]:
    return jnp.full(features.shape[:1], jnp.nan)


def _check(decoder: Decoder, prompts: Sequence[Encoded], policy: Policy, reading: Reading, scored: bool) -> None:
    reading.check(decoder.config.num_hidden_layers)
    if policy.n_candidates > 1 and not scored:
        raise ValueError(f"{policy.n_candidates} candidates need a scorer")
    if not prompts:
        raise ValueError("there is nothing to answer; give at least one prompt")
    limit, room, V = decoder.config.max_position_embeddings, policy.max_new_tokens, decoder.config.vocab_size
    for row, prompt in enumerate(prompts):
        if not prompt.ids:
            raise ValueError(f"prompt {row} has no tokens; remove it")
        if len(prompt.ids) + room > limit:
            size = f"{len(prompt.ids)} tokens and a reply of {room}"
            raise ValueError(f"prompt {row}: {size} exceed the context of {limit}; shorten one of them")
        if not 0 <= min(prompt.ids) <= max(prompt.ids) < V:
            raise ValueError(f"prompt {row}: a token is none of the model's {V}; use its own tokenizer")


def generate(
    decoder: Decoder,
    prompts: Sequence[Encoded],
    policy: Policy,
    stop: int | Sequence[int],
    score: Scorer | None = None,
    seed: int = 0,
    batch: int = 64,
    reading: Reading | None = None,
) -> Generation:
    """Write one reply a prompt.

    Args:
        decoder: frozen model.
        prompts: encoded prompts.
        policy: how to sample and to choose.
        stop: token that ends a reply, or several.
        score: features and key to scores, jit-compatible; wrap arrays in `jax.tree_util.Partial` so that heads of
            one shape share the compiled program. Not needed for one candidate; given there too, it scores the replies.
        seed: equal seeds give equal replies, whatever the batch (but for scorers that draw: they draw a batch at once).
        batch: prompts at a time.
        reading: the features the scorer was trained on, `Manifest.reading` of its feature file; by default the mean
            of the last layer.

    Returns:
        A `Generation`.

    Raises:
        ValueError: where candidates have no scorer, or naming the prompt that is empty, foreign, or leaves no room.

    Example:
        >>> from flax import nnx
        >>> from coala_lib.lm.decoder import DecoderConfig
        >>> decoder = Decoder(DecoderConfig(32, 16, 32, 2, 2, 1, 64), nnx.Rngs(0))
        >>> policy = Policy(n_candidates=3, chunk=2, max_new_tokens=4)
        >>> out = generate(decoder, [Encoded((1, 2, 3), 3)], policy, stop=32, score=random_score)
        >>> len(out.tokens[0]), out.n_tokens, out.n_passes, out.n_choices
        (4, 12, 5, 2)
    """
    reading = reading or Reading()
    _check(decoder, prompts, policy, reading, score is not None)
    score = score if score is not None else _unscored
    if not isinstance(score, jax.tree_util.Partial):
        score = jax.tree_util.Partial(score)
    stops = jnp.atleast_1d(jnp.asarray(stop, jnp.int32))
    settings = Settings(policy.top_k, policy.top_p, reading)
    batch, room, K = min(batch, len(prompts)), policy.max_new_tokens, policy.n_candidates
    width = -(-max(len(prompt.ids) for prompt in prompts) // WIDTH) * WIDTH
    found = []
    with tqdm(total=len(prompts), desc="generate", unit="reply", leave=False) as bar:
        for begin in range(0, len(prompts), batch):
            # rows are padded on the left to one width, and the last batch filled up, so that one program serves all
            lines = prompts[begin : begin + batch]
            tokens, start = np.zeros((batch, width), np.int32), np.full(batch, width - 1, np.int32)
            for at, prompt in enumerate(lines):
                start[at] = width - len(prompt.ids)
                tokens[at, start[at] :] = prompt.ids
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), begin + jnp.arange(batch))
            written = write(
                decoder,
                tokens,
                start,
                keys,
                np.int32(len(lines)),
                score,
                jnp.float32(policy.softness),
                jnp.float32(policy.temperature),
                stops,
                settings,
                n_candidates=K,
                chunk=policy.chunk if K > 1 else room,
                room=room,
            )
            found.append({name: np.asarray(leaf)[: len(lines)] for name, leaf in written.items() if leaf.ndim})
            found[-1]["steps"] = np.asarray(written["steps"])[None]
            bar.update(len(lines))
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    kept, steps = whole["count"] - whole["done"], int(whole["steps"].sum())
    return Generation(
        tokens=[row[:n].tolist() for row, n in zip(whole["tokens"], kept, strict=True)],
        n_tokens=int(whole["drawn"].sum()),
        n_kept=int(whole["count"].sum()),
        n_forward=batch * (len(found) * width + K * steps),
        n_passes=len(found) + steps,
        n_choices=int(whole["choices"].sum()),
        n_overruled=int(whole["overruled"].sum()),
        kl_bound=float(whole["choices"].mean()) * policy.kl_bound,
        features=whole["features"],
        scores=whole["scores"],
    )
