"""How to write a reply: what is drawn, when candidates are compared, and how far that can move from plain sampling.

The controls stand beside the method: without a random scorer, best-of-n and colder sampling no result of guided
sampling says anything.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Policy:
    """How to write a reply. The paper's App. F.3: top_p 0.9, top_k 50, 5 candidates.

    Attributes:
        n_candidates: branches a prompt; 1 is plain sampling.
        chunk: tokens between two choices; 1 is the paper's token-by-token mode, a whole reply is best-of-n.
        max_new_tokens: tokens a reply at most; a multiple of `chunk`.
        temperature: of the draws; 0 is greedy.
        top_k, top_p: see `sampling.nucleus`.
        softness: temperature tau of the choice, in units of the score: the survivor is drawn with probability
            proportional to exp(score / tau) among the candidates; 0 keeps the best, large values choose at random.

    Raises:
        ValueError: for values out of range.

    Example:
        >>> Policy(chunk=8, max_new_tokens=32).n_choices
        4
    """

    n_candidates: int = 5
    chunk: int = 8
    max_new_tokens: int = 48
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9
    softness: float = 0.0

    def __post_init__(self) -> None:
        if min(self.n_candidates, self.chunk, self.max_new_tokens, self.top_k) < 1:
            raise ValueError("n_candidates, chunk, max_new_tokens and top_k must be at least 1")
        if self.max_new_tokens % self.chunk:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} is no multiple of chunk {self.chunk}")
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise ValueError(f"temperature must be 0 or more and top_p in (0, 1]; got {self.temperature}, {self.top_p}")
        if not 0 <= self.softness < math.inf:
            raise ValueError(f"softness must be 0 or more, and finite; got {self.softness}")
        if self.n_candidates > 1 and (self.temperature == 0 or self.top_k == 1):
            raise ValueError("greedy candidates are all the same; use one candidate, or a higher temperature and top_k")

    @property
    def n_choices(self) -> int:
        """Choices a reply at most."""
        return self.max_new_tokens // self.chunk if self.n_candidates > 1 else 0

    @property
    def kl_bound(self) -> float:
        """log n - (n - 1)/n, in nats: a bound on KL(chosen chunk || plain chunk), given the same prefix.

        Plain is plain sampling by this policy's temperature, top_k and top_p, not the model's full distribution.
        The bound holds for *any* rule that picks one of n independent draws, the random and the soft one too: a set
        of plain probability m is hit with probability at most 1 - (1 - m)^n, so no density ratio is more spread out
        than n u^(n-1) on (0, 1), whose KL divergence is this number; KL is convex in the ratio. Best-of-n by a score
        without ties attains it in the limit of many, equally rare outcomes.
        """
        n = self.n_candidates
        return math.log(n) - (n - 1) / n

    @property
    def kl_bound_reply(self) -> float:
        """`n_choices` times `kl_bound`, by the chain rule: a bound on KL(reply || plain reply) for one prompt.

        Replies that stop early take fewer choices: `Generation.kl_bound` has their mean, and is smaller.
        """
        return self.n_choices * self.kl_bound


def plain(policy: Policy) -> Policy:
    """The same draws without candidates."""
    return replace(policy, n_candidates=1)


def best_of_n(policy: Policy) -> Policy:
    """As many candidates, compared once, when they are whole."""
    return replace(policy, chunk=policy.max_new_tokens)


def temperature_sweep(policy: Policy, temperatures: Iterable[float] = (0.0, 0.3, 0.5, 0.7, 1.0)) -> dict[str, Policy]:
    """Plain sampling at several temperatures: the control that costs nothing, by name.

    Example:
        >>> list(temperature_sweep(Policy(), (0.0, 0.7)))
        ['sampling, T = 0', 'sampling, T = 0.7']
    """
    return {f"sampling, T = {t:g}": replace(plain(policy), temperature=t) for t in temperatures}
