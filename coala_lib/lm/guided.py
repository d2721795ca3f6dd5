"""Guided sampling (paper, App. F.3): several nucleus candidates grow from one prefix, a scorer keeps the best.

Every `chunk` tokens each prompt's candidates are scored on the features of what they have written so far, and all of
them continue from the winner. One candidate is plain sampling; a chunk as long as the reply is best-of-n; a random
scorer is the control that shows what the branching alone does. Scores come from hidden states the decoder has anyway.

Differs from the paper: its "contrastive objective" is not specified; the score here is the head's reward.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from tqdm import tqdm

from coala_lib.lm.decoder import Cache, Decoder, empty_cache
from coala_lib.lm.sampling import draw
from coala_lib.lm.tokenizer import Encoded

Scorer = Callable[[Float[Array, "B d"], PRNGKeyArray], Float[Array, " B"]]


@dataclass(frozen=True)
class Policy:
    """How to write a reply. The paper's App. F.3: top_p 0.9, top_k 50, 5 candidates.

    Attributes:
        n_candidates: branches a prompt.
        chunk: tokens between two choices.
        max_new_tokens: tokens a reply at most; a multiple of `chunk`.
        temperature, top_k, top_p: see `sampling.nucleus`.

    Raises:
        ValueError: for values out of range.
    """

    n_candidates: int = 5
    chunk: int = 8
    max_new_tokens: int = 48
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9

    def __post_init__(self) -> None:
        if min(self.n_candidates, self.chunk, self.max_new_tokens, self.top_k) < 1:
            raise ValueError("n_candidates, chunk, max_new_tokens and top_k must be at least 1")
        if self.max_new_tokens % self.chunk:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} is no multiple of chunk {self.chunk}")
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"temperature must be positive and top_p in (0, 1]; got {self.temperature}, {self.top_p}")

    @property
    def kl_bound(self) -> float:
        """log n - (n - 1)/n, in nats: how far choosing the best of n whole replies can move from plain sampling."""
        n = self.n_candidates
        return math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class Generation:
    """What came out.

    Attributes:
        tokens: the reply of each prompt, stop token left out.
        n_tokens: tokens drawn over all candidates.
        n_forward: token positions the decoder computed, prompts included.
    """

    tokens: list[list[int]]
    n_tokens: int
    n_forward: int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Branches:
    cache: Cache
    logits: Float[Array, "R V"]
    total: Float[Array, "R d"]
    count: Int[Array, " R"]
    written: Int[Array, "R M"]
    done: Bool[Array, " R"]


def random_score(features: Float[Array, "B d"], key: PRNGKeyArray) -> Float[Array, " B"]:
    """The control: scores that know nothing."""
    return jax.random.normal(key, features.shape[:1])


@partial(nnx.jit, static_argnames=("n_candidates", "chunk", "max_new_tokens", "top_k", "top_p", "stop"))
def _generate(
    decoder: Decoder,
    prompts: Int[Array, "B T"],
    start: Int[Array, " B"],
    score: Scorer,
    key: PRNGKeyArray,
    temperature: Float[Array, ""],
    *,
    n_candidates: int,
    chunk: int,
    max_new_tokens: int,
    top_k: int,
    top_p: float,
    stop: int,
) -> tuple[Int[Array, "B M"], Int[Array, " B"], Int[Array, ""]]:
    batch, length = prompts.shape
    rows, K, d = batch * n_candidates, n_candidates, decoder.config.hidden_size
    dtype = decoder.norm.weight[...].dtype
    cache = empty_cache(decoder.config, start, length + max_new_tokens, dtype)
    hidden, cache = decoder(prompts, cache)
    logits = decoder.logits(hidden[0, :, -1:])[:, 0]

    def pick(branches: _Branches, winner: Int[Array, " R"]) -> _Branches:
        # everything has the row first, but for the counter that all rows share
        return jax.tree.map(lambda leaf: leaf[winner] if leaf.ndim else leaf, branches)

    def token(carry: tuple[_Branches, Int[Array, ""]], key: PRNGKeyArray) -> tuple[tuple[_Branches, Array], None]:
        b, at = carry
        drawn = jnp.where(b.done, stop, draw(key, b.logits, temperature, top_k, top_p))
        hidden, cache = decoder(drawn[:, None], b.cache)
        live = ~b.done
        # the stop token belongs to the reply, as it does in the features the head was trained on
        total = b.total + jnp.where(live[:, None], hidden[0, :, 0].astype(jnp.float32), 0)
        written = b.written.at[:, at].set(drawn)
        logits = decoder.logits(hidden[0])[:, 0]
        return (
            _Branches(cache, logits, total, b.count + live.astype(jnp.int32), written, b.done | (drawn == stop)),
            at + 1,
        ), None

    def choose(carry: tuple[_Branches, Array, Array, Array]) -> tuple[_Branches, Array, Array, Array]:
        branches, at, key, drawn = carry
        key, sampling, scoring = jax.random.split(key, 3)
        before = branches.count
        (branches, at), _ = jax.lax.scan(token, (branches, at), jax.random.split(sampling, chunk))
        drawn = drawn + (branches.count - before).reshape(batch, K).sum(axis=1)
        if K > 1:
            features = branches.total / jnp.maximum(branches.count, 1).astype(jnp.float32)[:, None]
            best = jnp.argmax(score(features, scoring).reshape(batch, K), axis=1)
            branches = pick(branches, jnp.repeat(jnp.arange(batch) * K + best, K, total_repeat_length=rows))
        return branches, at, key, drawn

    first = _Branches(
        cache,
        logits,
        jnp.zeros((batch, d), jnp.float32),
        jnp.zeros((batch,), jnp.int32),
        jnp.full((batch, max_new_tokens), stop, jnp.int32),
        jnp.zeros((batch,), bool),
    )
    first = pick(first, jnp.repeat(jnp.arange(batch), K, total_repeat_length=rows))
    zero, none = jnp.zeros((), jnp.int32), jnp.zeros((batch,), jnp.int32)
    branches, at, _, drawn = jax.lax.while_loop(
        lambda carry: (carry[1] < max_new_tokens) & ~carry[0].done.all(), choose, (first, zero, key, none)
    )
    return branches.written[::K], drawn, batch * length + rows * at


def generate(
    decoder: Decoder,
    prompts: Sequence[Encoded],
    policy: Policy,
    stop: int,
    score: Scorer | None = None,
    seed: int = 0,
    batch: int = 64,
) -> Generation:
    """Write one reply a prompt.

    Args:
        decoder: frozen model.
        prompts: encoded prompts.
        policy: how to sample and to choose.
        stop: token that ends a reply.
        score: features and key to scores, jit-compatible; wrap arrays in `jax.tree_util.Partial` so that heads of
            one shape share the compiled program. Not needed for one candidate.
        seed: equal seeds give equal replies.
        batch: prompts at a time.

    Returns:
        A `Generation`.

    Raises:
        ValueError: where candidates have no scorer, a prompt is empty, or it leaves no room for the reply.
    """
    if policy.n_candidates > 1 and score is None:
        raise ValueError(f"{policy.n_candidates} candidates need a scorer")
    if not prompts or not all(p.ids for p in prompts):
        raise ValueError("give at least one prompt, and no prompt without tokens")
    limit = decoder.config.max_position_embeddings
    widest = max(len(p.ids) for p in prompts)
    if widest + policy.max_new_tokens > limit:
        raise ValueError(
            f"prompt of {widest} and reply of {policy.max_new_tokens} tokens exceed the context of {limit}"
        )
    score = score if score is not None else random_score
    if not isinstance(score, jax.tree_util.Partial):
        score = jax.tree_util.Partial(score)
    replies, drawn, forward = [], 0, 0
    for start in tqdm(range(0, len(prompts), batch), desc="generate", unit="batch", leave=False):
        ids = [p.ids for p in prompts[start : start + batch]]
        # rows are padded on the left to one width, and the last batch filled up, so that one program serves all
        filled = ids + [ids[-1]] * (batch - len(ids))
        tokens = np.zeros((batch, widest), np.int32)
        for row, prompt in enumerate(filled):
            tokens[row, widest - len(prompt) :] = prompt
        pads = np.array([widest - len(prompt) for prompt in filled], np.int32)
        out, n_drawn, n_forward = _generate(
            decoder,
            tokens,
            pads,
            score,
            jax.random.fold_in(jax.random.key(seed), start),
            jnp.float32(policy.temperature),
            n_candidates=policy.n_candidates,
            chunk=policy.chunk,
            max_new_tokens=policy.max_new_tokens,
            top_k=policy.top_k,
            top_p=policy.top_p,
            stop=stop,
        )
        # rows that only fill the batch up are computed, but their tokens are nobody's reply
        drawn, forward = drawn + int(n_drawn[: len(ids)].sum()), forward + int(n_forward)
        for row in np.asarray(out)[: len(ids)].tolist():
            replies.append(row[: row.index(stop)] if stop in row else row)
    return Generation(replies, drawn, forward)
