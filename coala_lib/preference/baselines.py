"""The objectives that COALA is compared with (the paper's Table 8): losses of a pair from four log-probabilities.

A response enters by the *sum* l of its tokens' log-probabilities and by its number of tokens n, the prompt left out;
lbar = l / n is the mean, rho = l - l_ref the log-ratio to the reference. Each loss is a pure function of a `PairLogps`
that gives (N,) values and runs on numpy and on jax arrays alike; nothing is averaged over pairs.

Differs from the paper: a parenthesis in Table 8 puts RRHF's likelihood term inside the maximum; it belongs outside.
Where recipes disagree between sum and mean, `nll` says which is meant. ORPO's likelihood term covers the response only;
TRL's covers the prompt as well. Metrics count a tie as one half; TRL counts it as wrong.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from coala_lib.preference.objectives import softplus

AnyArray = Array | np.ndarray
Values = Float[AnyArray, " N"]
Nll = Literal["mean", "sum"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairLogps:
    """What a loss sees of N pairs.

    Attributes:
        chosen, rejected: (N,) sums of log-probabilities over the response's tokens, its end marker among them, in nats.
        chosen_tokens, rejected_tokens: (N,) how many tokens that is, as floats.
        ref_chosen, ref_rejected: (N,) the same sums under the reference model; None where no reference is used.
    """

    chosen: Values
    rejected: Values
    chosen_tokens: Values
    rejected_tokens: Values
    ref_chosen: Values | None = None
    ref_rejected: Values | None = None

    @property
    def means(self) -> tuple[Values, Values]:
        """Log-probability per token of both responses, in nats."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens

    @property
    def ratios(self) -> tuple[Values, Values]:
        """log pi/pi_ref of both responses, in nats.

        Raises:
            ValueError: without a reference.
        """
        if self.ref_chosen is None or self.ref_rejected is None:
            raise ValueError("this loss compares with a reference model; give ref_chosen and ref_rejected")
        return self.chosen - self.ref_chosen, self.rejected - self.ref_rejected


def log1mexp(a: AnyArray) -> AnyArray:
    """log(1 - e^a) for a < 0, with full relative precision at both ends."""
    xp, bar = a.__array_namespace__(), -math.log(2)
    # each branch sees only what it is good for, or the gradient of the other would be nan
    near, far = xp.maximum(a, xp.full_like(a, bar)), xp.minimum(a, xp.full_like(a, bar))
    return xp.where(a > bar, xp.log(-xp.expm1(near)), xp.log1p(-xp.exp(far)))


def log_odds(a: AnyArray) -> AnyArray:
    """log(p / (1 - p)) of p = e^a; certainty (a = 0) counts as the least number below it."""
    xp = a.__array_namespace__()
    a = xp.minimum(a, xp.full_like(a, -xp.finfo(a.dtype).tiny))
    return a - log1mexp(a)


def sft(pairs: PairLogps) -> Values:
    """Supervised fine-tuning: -lbar_w. The rejected response plays no part."""
    return -pairs.means[0]


def dpo(pairs: PairLogps, beta: float = 0.1) -> Values:
    """Direct preference optimisation (the paper's Eq. 5): -log sigma(beta (rho_w - rho_l)).

    Example:
        >>> logps = (np.array([x]) for x in (-1.7, -4.9, 3.0, 5.0, -2.0, -4.0))
        >>> round(float(dpo(PairLogps(*logps))[0]), 6)
        0.634946
    """
    chosen, rejected = pairs.ratios
    return softplus(beta * (rejected - chosen))


def r_dpo(pairs: PairLogps, beta: float = 0.1, alpha: float = 0.1) -> Values:
    """Length-regularised DPO: -log sigma(beta (rho_w - rho_l) + alpha (n_w - n_l)).

    DPO for the reward r - alpha n: a longer winner has part of its margin already, and is pushed less.
    """
    chosen, rejected = pairs.ratios
    return softplus(beta * (rejected - chosen) + alpha * (pairs.rejected_tokens - pairs.chosen_tokens))


def ipo(pairs: PairLogps, tau: float = 0.1) -> Values:
    """Identity preference optimisation: (rho_w - rho_l - 1/(2 tau))^2, on sums."""
    chosen, rejected = pairs.ratios
    return (chosen - rejected - 1 / (2 * tau)) ** 2


def sppo_hard(pairs: PairLogps, beta: float = 0.1) -> Values:
    """Self-play with hard labels: (rho_w - 1/(2 beta))^2 + (rho_l + 1/(2 beta))^2."""
    chosen, rejected = pairs.ratios
    return (chosen - 1 / (2 * beta)) ** 2 + (rejected + 1 / (2 * beta)) ** 2


def simpo(pairs: PairLogps, beta: float = 2.0, margin: float = 1.0) -> Values:
    """-log sigma(beta (lbar_w - lbar_l) - margin); TRL and the authors give the ratio margin / beta."""
    chosen, rejected = pairs.means
    return softplus(beta * (rejected - chosen) + margin)


def orpo(pairs: PairLogps, lam: float = 0.1) -> Values:
    """-lbar_w - lam log sigma(lo(lbar_w) - lo(lbar_l)) with the log-odds lo(a) = a - log(1 - e^a)."""
    chosen, rejected = pairs.means
    return -chosen + lam * softplus(log_odds(rejected) - log_odds(chosen))


def _likelihood(pairs: PairLogps, nll: Nll) -> Values:
    if nll not in ("mean", "sum"):
        raise ValueError(f"nll is 'mean' (per token) or 'sum' (per response); got {nll!r}")
    return -(pairs.means[0] if nll == "mean" else pairs.chosen)


def cpo(pairs: PairLogps, beta: float = 0.1, lam: float = 1.0, nll: Nll = "mean") -> Values:
    """Contrastive preference optimisation: -log sigma(beta (l_w - l_l)) - lam times the likelihood of the winner."""
    return softplus(beta * (pairs.rejected - pairs.chosen)) + lam * _likelihood(pairs, nll)


def rrhf(pairs: PairLogps, lam: float = 1.0, nll: Nll = "mean") -> Values:
    """max(0, lbar_l - lbar_w) - lam times the likelihood of the winner."""
    chosen, rejected = pairs.means
    gap = rejected - chosen
    return gap.__array_namespace__().maximum(gap, 0 * gap) + lam * _likelihood(pairs, nll)


@dataclass(frozen=True)
class Baseline:
    """A loss, and how TRL turns its log-probabilities into the rewards it logs.

    Attributes:
        loss: of (N,) pairs, with its hyper-parameters as keywords.
        reward: "ratio" to the reference, or the "sum" or "mean" of the log-probabilities.
        scale: the hyper-parameter that multiplies the reward; 1 where there is none.
    """

    loss: Callable[..., Values]
    reward: Literal["ratio", "sum", "mean"]
    scale: str = ""

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of a reference model are needed."""
        return self.reward == "ratio"


BASELINES = {
    "sft": Baseline(sft, "mean"),
    "dpo": Baseline(dpo, "ratio", "beta"),
    "r_dpo": Baseline(r_dpo, "ratio", "beta"),
    "ipo": Baseline(ipo, "ratio", "tau"),
    "sppo_hard": Baseline(sppo_hard, "ratio", "beta"),
    "simpo": Baseline(simpo, "mean", "beta"),
    "orpo": Baseline(orpo, "mean", "lam"),
    "cpo": Baseline(cpo, "sum", "beta"),
    "rrhf": Baseline(rrhf, "mean"),
}


def hyper_parameters(name: str, **given: float | str) -> dict[str, float | str]:
    """All hyper-parameters of a baseline: those given, and the defaults of the others.

    Raises:
        ValueError: naming an unknown baseline or hyper-parameter, or one that is not a finite number >= 0.

    Example:
        >>> hyper_parameters("simpo", beta=2.5)
        {'beta': 2.5, 'margin': 1.0}
    """
    if name not in BASELINES:
        raise ValueError(f"{name!r} is no baseline; there are {', '.join(BASELINES)}")
    known = {p.name: p.default for p in list(inspect.signature(BASELINES[name].loss).parameters.values())[1:]}
    if strange := sorted(set(given) - set(known)):
        raise ValueError(f"{name} has no hyper-parameter {strange[0]!r}; it has {', '.join(known) or 'none'}")
    for key, value in given.items():
        if key != "nll" and not 0 <= float(value) < math.inf:
            raise ValueError(f"{key} of {name} must be a finite number of at least 0; got {value}")
    return known | given


def objective(name: str, **given: float | str) -> Callable[[PairLogps], Values]:
    """The loss of a baseline with its hyper-parameters filled in."""
    values = hyper_parameters(name, **given)
    return partial(BASELINES[name].loss, **values)


def rewards(name: str, pairs: PairLogps, **given: float | str) -> tuple[Values, Values]:
    """Implicit rewards of chosen and rejected, as TRL logs them: scale times log-ratio, sum or mean.

    Rewards of different baselines have different units: nats a response, nats a token, and multiples of both.
    """
    values, baseline = hyper_parameters(name, **given), BASELINES[name]
    raw = {"ratio": lambda: pairs.ratios, "sum": lambda: (pairs.chosen, pairs.rejected), "mean": lambda: pairs.means}
    chosen, rejected = raw[baseline.reward]()
    scale = values[baseline.scale] if baseline.scale else 1.0
    return scale * chosen, scale * rejected


def pair_metrics(name: str, pairs: PairLogps, **given: float | str) -> dict[str, Values]:
    """What TRL logs at every step, pair by pair: `rewards/...`, `logps/...`, and ORPO's `log_odds_chosen`; each (N,).

    Example:
        >>> logps = (np.array([x]) for x in (-1.7, -4.9, 3.0, 5.0, -2.0, -4.0))
        >>> metrics = pair_metrics("dpo", PairLogps(*logps))
        >>> round(float(metrics["rewards/margins"][0]), 2), float(metrics["rewards/accuracies"][0])
        (0.12, 1.0)
    """
    chosen, rejected = rewards(name, pairs, **given)
    margin = chosen - rejected
    found = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": margin,
        "rewards/accuracies": 0.5 + 0.5 * margin.__array_namespace__().sign(margin),
        "logps/chosen": pairs.chosen,
        "logps/rejected": pairs.rejected,
    }
    if name == "orpo":  # the argument of its log sigma, which its rewards are not
        found["log_odds_chosen"] = log_odds(pairs.means[0]) - log_odds(pairs.means[1])
    return found
