"""The audit: every probe and every leak in one table, with one error rate for the whole table.

A prompt-blind probe away from chance, or copies across a split, is an *artefact*: pair accuracy on such data does not
say what it seems to. Below chance counts too: under the Alternating Strategy a split by rows teaches every scorer of
replies the opposite of what it is then asked.
Looking at many probes finds something in clean data as well, so the p-values are corrected by Holm: the chance that a
clean data set is called faulty anywhere in its table is at most `alpha`.

Differs from the paper: it validates its data by win rates and reward margins (App. E.3), which rise on any labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from coala_lib.corpora.probes import BLIND, TOKENS, Triplets, overlap, prompt_swap, right, text
from coala_lib.corpora.rates import Rate, rate
from coala_lib.corpora.triplets import split, validate

Verdict = Literal["artefact", "clean", "cannot tell: too few rows"]
CHANCE = 0.5
NEAR = 0.95  # cosine of tf-idf vectors from which two prompts count as near-duplicates (our choice)
BLOCK = 512


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        name: the probe ("words") or the leak ("prompts across the split").
        value: pair accuracy of a probe, share of rows of a leak.
        low, high: ends of its 95 % interval, over conversations.
        bar: what clean data may show: one half, or the tolerated share.
        p: Holm-corrected p-value of "one half" (two-sided), or of "at most the tolerated share".
        verdict: artefact where p < alpha; clean where it is not and the interval keeps within `slack` of the bar;
            else there are too few rows to tell.
        n: conversations behind it.
    """

    name: str
    value: float
    low: float
    high: float
    bar: float
    p: float
    verdict: Verdict
    n: int


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        findings: one a probe, in a fixed order.
        alpha: bound on the chance that clean data are called faulty anywhere in the table.
        n_train, n_test: rows the probes learned from and were judged on.
    """

    findings: tuple[Finding, ...]
    alpha: float
    n_train: int
    n_test: int

    @property
    def artefacts(self) -> tuple[str, ...]:
        """Names of what was found."""
        return tuple(finding.name for finding in self.findings if finding.verdict == "artefact")

    def __getitem__(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)


def holm(p: Sequence[float]) -> Float[np.ndarray, " k"]:
    """Holm's step-down p-values: the j-th smallest of k, times k - j + 1, made monotone and cut at 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out


def near_copies(left: Sequence[str], right: Sequence[str], cosine: float = NEAR) -> Bool[np.ndarray, " n"]:
    """Which of `left` have a near-duplicate among `right`: tf-idf cosine of words and word pairs.

    Args:
        left: n texts.
        right: the texts to look in.
        cosine: from where on two texts count as the same, in (0, 1].

    Returns:
        (n,) booleans.

    Example:
        >>> near_copies(["one two three", "four"], ["three, two, ONE", "One two three!"]).tolist()
        [True, False]
    """
    vectorizer = TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), dtype=np.float32)
    vectorizer.fit([*left, *right])
    rows, others = vectorizer.transform(left), vectorizer.transform(right).T.tocsc()
    best = [(rows[k : k + BLOCK] @ others).max(axis=1).toarray().ravel() for k in range(0, rows.shape[0], BLOCK)]
    return np.concatenate(best) >= cosine - 1e-6


def both_sides(triplets: Triplets) -> Bool[np.ndarray, " N"]:
    """Which rows' rejected reply is the chosen reply of another row of the same conversation.

    Under the Alternating Strategy these are all rows but the last of each conversation: what a reply gains as chosen
    it loses as rejected, and a scorer of replies alone can learn nothing from it.
    """
    chosen = {(row["conversation_id"], text(row, "chosen")) for row in triplets}
    return np.array([(row["conversation_id"], text(row, "rejected")) in chosen for row in triplets])


def _leaks(train: Triplets, test: Triplets, across: bool) -> dict[str, np.ndarray]:
    """Per held-out row: is its conversation, its prompt, or nearly its prompt known from training?"""
    known = {row["conversation_id"] for row in train}
    prompts, held_out = ([text(row, "prompt") for row in rows] for rows in (train, test))
    where = "across the split" if across else "between conversations"
    exact = Counter(prompts)
    leaks = {f"conversations {where}": np.array([row["conversation_id"] in known for row in test])} if across else {}
    return leaks | {
        f"prompts {where}": np.array([exact[prompt] > 0 for prompt in held_out]),
        f"near-duplicate prompts {where}": near_copies(held_out, prompts),
    }


def audit(
    triplets: Triplets,
    held_out: Triplets | None = None,
    *,
    alpha: float = 0.01,
    tolerance: float = 0.05,
    slack: float = 0.05,
    seed: int = 0,
) -> AuditReport:
    """Look for shortcuts and leaks in preference data.

    Every prompt-blind probe learns on `triplets` and is judged on `held_out`, as a head would be; so is a probe that
    compares reply and prompt, judged under swapped prompts. Copies of training prompts among the held-out rows are
    counted, exact and near.

    Args:
        triplets: training rows.
        held_out: held-out rows. None: one half of the conversations, drawn by `seed`; copies are then counted between
            the halves, and speak of the data rather than of a split.
        alpha: the family's error rate.
        tolerance: share of held-out rows whose prompt may be known from training: people ask the same things.
        slack: how much more than the bar must be excluded to call a line clean.
        seed: of the halves and of the swapped prompts.

    Returns:
        An `AuditReport`.

    Raises:
        TripletError: where a row breaks the schema.
        ValueError: where alpha, tolerance or slack is outside (0, 1), or a side holds one conversation only.

    Example:
        >>> from coala_lib.corpora import alternate, conversations, make_world
        >>> from coala_lib.corpora.edu import Style
        >>> talks = conversations(make_world(0), n=200, seed=1, style=Style(greeting=1.0, farewell=1.0))
        >>> audit(alternate(talks, source="edu")).artefacts
        ('words', 'greetings', 'turn')
    """
    for name, value in {"alpha": alpha, "tolerance": tolerance, "slack": slack}.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is a share in (0, 1); got {value}")
    validate(triplets)
    across = held_out is not None
    if across:
        validate(held_out)
        train, test = triplets, held_out
    else:
        train, test = split(triplets, 0.5, seed)
    talks = [row["conversation_id"] for row in test]
    # turns can be learned only where they are given and the rejected reply is the next one
    alternating = any(row["turn_index"] for row in train) and both_sides(train).any()
    probes = {name: probe for name, probe in BLIND.items() if name != "turn" or alternating}
    with threadpool_limits(1):  # products this small only wait for other threads
        seen = [(name, right(probe(train, test)), CHANCE) for name, probe in probes.items()]
        seen.append(("swapped prompts", right(overlap(train, prompt_swap(test, seed))), CHANCE))
    seen += [(name, found.astype(float), tolerance) for name, found in _leaks(train, test, across).items()]
    rates = [(name, rate(values, talks), bar) for name, values, bar in seen]
    corrected = holm([found.p_away(bar) if bar == CHANCE else found.p_above(bar) for _, found, bar in rates])
    findings = tuple(
        Finding(name, found.value, *found.interval, bar, float(p), _verdict(found, bar, p, alpha, slack), found.n)
        for (name, found, bar), p in zip(rates, corrected, strict=True)
    )
    return AuditReport(findings, alpha, len(train), len(test))


def _verdict(found: Rate, bar: float, p: float, alpha: float, slack: float) -> Verdict:
    if p < alpha:
        return "artefact"
    low, high = found.interval
    narrow = high < bar + slack and (low > bar - slack or bar != CHANCE)
    return "clean" if narrow else "cannot tell: too few rows"
