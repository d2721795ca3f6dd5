"""A verdict is computed from a run, never typed.

`judge` holds the rules of one row of the ledger against one run's record. Moving the metric, the threshold or the
published number across the line flips the verdict. `box` shows the result inside a chapter; `judge_all` feeds the
scorecard.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from coala_lib.evidence.ledger import PRESETS, Claim, OtherMetric, Published, Rule, find_ledger, load, look_up

if TYPE_CHECKING:  # records import jax; judging needs none of it
    from coala_lib.evidence.records import Record

__all__ = ["VERDICTS", "Box", "Claim", "Rule", "Verdict", "box", "find_ledger", "judge", "judge_all", "load"]

VERDICTS = (
    "reproduced",
    "verified numerically",
    "partly",
    "not reproduced",
    "not verified numerically",
    "not tested at this scale",
    "cannot test",
    "not tested yet",
)


@dataclass(frozen=True)
class Verdict:
    """A computed verdict, with its reasons: (what the rule says, what was measured, whether it holds)."""

    verdict: str
    reasons: tuple[tuple[str, str, bool], ...] = ()
    record: "Record | None" = field(default=None, compare=False, repr=False)


def _measure(claim: Claim, record: "Record", name: str, end: str) -> float | None:
    """One number of a record; None for the end of an interval that could not be had."""
    run = f"the {record.preset} run of {record.chapter}"
    if name not in record.metrics:
        raise ValueError(f"claim {claim.id} needs the metric {name!r}, which {run} does not record")
    return getattr(record.metrics[name], end)


def _apply(claim: Claim, rule: Rule, record: "Record") -> tuple[str, str, bool]:
    """One reason: phrase, measured text, whether the rule holds."""
    measured = _measure(claim, record, rule.metric, rule.field)
    against = rule.value
    if isinstance(against, OtherMetric):
        against = _measure(claim, record, against.metric, against.field)
    if measured is None or against is None:
        # no spread between the units, no interval; and where there is no interval, nothing is claimed
        return rule.says, "no interval", False
    unit = record.metrics[rule.metric].unit
    text = f"{measured:.4g}" + ("" if unit == "1" else f" {unit}")
    text += "" if rule.field == "value" else f" at the {rule.field} end of its interval"
    bar = rule.value
    if isinstance(bar, Published):
        bar = look_up(claim.data, bar.published)
        text += f" (published: {' to '.join(f'{end:.4g}' for end in (bar if isinstance(bar, tuple) else (bar,)))})"
    elif isinstance(bar, OtherMetric):
        bar = against
        text += f" (against {bar:.4g})"
    low, high = bar if isinstance(bar, tuple) else (bar, bar)
    low, high = low - rule.tolerance * abs(low), high + rule.tolerance * abs(high)
    holds = {
        "<=": measured <= high,
        "<": measured < high,
        ">=": measured >= low,
        ">": measured > low,
        "between": low <= measured <= high,
    }[rule.op]
    return rule.says, text, holds


def judge(claim: Claim, record: "Record") -> Verdict:
    """The verdict of one run on one claim.

    All rules hold: reproduced; some: partly; none: not reproduced. A theorem is *verified numerically* where all
    hold and *not verified numerically* otherwise: no run reproduces a proof. A run below the row's `min_preset`
    is *not tested at this scale*, whatever it measured.

    Args:
        claim: the row.
        record: the run's record; only `preset`, `chapter` and `metrics` are read.

    Returns:
        The `Verdict`, with one reason per rule.

    Raises:
        ValueError: where the record lacks a metric that a rule names.

    Example:
        >>> from coala_lib.evidence.records import Metric, Record
        >>> rule = Rule(metric="gap", says="the gap is small", op="<=", value=1e-3)
        >>> row = load()["coala.eq9"].model_copy(update={"chapter": "toy", "test": [rule]})
        >>> run = Record.model_construct(preset="laptop", chapter="toy", metrics={"gap": Metric(value=2e-4, unit="1")})
        >>> judge(row, run)
        Verdict(verdict='reproduced', reasons=(('the gap is small', '0.0002', True),))
    """
    if not claim.test:
        return Verdict("cannot test" if claim.cannot else "not tested yet", record=record)
    reasons = tuple(_apply(claim, rule, record) for rule in claim.test)
    held = [holds for _, _, holds in reasons]
    if PRESETS.index(record.preset) < PRESETS.index(claim.min_preset):
        verdict = "not tested at this scale"
    elif claim.kind == "theorem":
        verdict = "verified numerically" if all(held) else "not verified numerically"
    else:
        verdict = "reproduced" if all(held) else "partly" if any(held) else "not reproduced"
    return Verdict(verdict, reasons, record)


def judge_all(claims: Mapping[str, Claim], records: Iterable["Record"]) -> dict[str, Verdict]:
    """The verdict on every claim, from the best run of its chapter: the highest preset, then the latest start.

    Args:
        claims: the ledger, as `load` returns it.
        records: any runs; each claim looks only at those of its own chapter.

    Returns:
        Claim id -> `Verdict`, none dropped: rows without a test or without a run are *not tested yet*.
    """
    runs = sorted(records, key=lambda record: (PRESETS.index(record.preset), record.started))
    verdicts = {}
    for name, claim in claims.items():
        own = [run for run in runs if claim.test and run.chapter == claim.chapter]
        untested = Verdict("cannot test" if claim.cannot else "not tested yet")
        verdicts[name] = judge(claim, own[-1]) if own else untested
    return verdicts


ICONS = {
    "reproduced": "✓",
    "verified numerically": "✓",
    "partly": "◐",
    "not reproduced": "✗",
    "not verified numerically": "✗",
    "not tested at this scale": "△",
    "cannot test": "⊘",
    "not tested yet": "○",
}
PAPERS = {"coala": "COALA", "coala_abstract": "COALA, arXiv abstract", "dpoconvex": "DPO-Convex"}


@dataclass(frozen=True)
class Box:
    """A claim beside the run that tests it; made by `box`.

    The text and Markdown forms are categorical: no device, no measured digits, so they are equal on every machine.
    The HTML form adds both, in spans of class `coala-device` and `coala-measured`.
    """

    claim: Claim
    verdict: Verdict
    record: "Record"

    def _verdict(self) -> str:
        word = self.verdict.verdict
        if word == "not tested at this scale":
            return f"{ICONS[word]} {word} (needs the {self.claim.min_preset} preset)"
        return f"{ICONS[word]} {word}" + (f": {self.claim.cannot}" if word == "cannot test" else "")

    def _lines(self) -> list[tuple[str, str]]:
        rules = [f"{says}: {'holds' if holds else 'does not hold'}" for says, _, holds in self.verdict.reasons]
        seeds = ", ".join(map(str, self.record.seeds))
        return [
            ("Paper says", f"{self.claim.statement} ({PAPERS[self.claim.source.paper]}, {self.claim.source.where})"),
            ("This run", f"preset {self.record.preset} · seeds {seeds}"),
            ("What was measured", "; ".join(rules) or "nothing yet"),
            ("Verdict", self._verdict()),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{label}: {text}" for label, text in self._lines())

    def _repr_markdown_(self) -> str:
        return "\n\n".join(f"**{label}.** {text}" for label, text in self._lines())

    def _repr_html_(self) -> str:
        lines = dict(self._lines())
        texts = {label: re.sub(r"\$([^$]+)\$", r"\\(\1\\)", escape(text)) for label, text in lines.items()}
        texts["This run"] += f' · <span class="coala-device">{escape(self.record.device)}</span>'
        if self.verdict.reasons:
            items = (
                f"<li>{'✓' if holds else '✗'} {escape(says)}: {'holds' if holds else 'does not hold'}"
                f' · <span class="coala-measured">measured {escape(text)}</span></li>'
                for says, text, holds in self.verdict.reasons
            )
            texts["What was measured"] = f'<ul style="margin:0;padding-left:1em;list-style:none">{"".join(items)}</ul>'
        texts["Verdict"] = f"<strong>{texts['Verdict']}</strong>"
        rows = "".join(
            f'<dt style="font-weight:600;margin:.25em 0 0">{label}</dt><dd style="margin:0 0 0 1em">{text}</dd>'
            for label, text in texts.items()
        )
        box_style = (
            "border:1px solid currentColor;border-left-width:.35em;border-radius:.25em;padding:.4em .8em;"
            "overflow-wrap:anywhere"
        )
        name = escape(self.claim.id)
        return (
            f'<div class="coala-claim mathjax_process" role="group" aria-label="Claim {name}" style="{box_style}">'
            f'<span style="font-family:monospace">{name}</span><dl style="margin:0">{rows}</dl></div>'
        )


def box(claim_id: str, record: "Record", claims: Mapping[str, Claim] | str | os.PathLike[str] | None = None) -> Box:
    """A claim box for a chapter: what the paper says, this run, what was measured, the verdict.

    Args:
        claim_id: the row's id.
        record: the run's record.
        claims: the ledger, or its path; by default the repository's.

    Returns:
        An object that shows itself as HTML, Markdown and plain text.

    Raises:
        KeyError: where the ledger has no such row.
        ValueError: where the record lacks a metric that the row's test names.
    """
    rows = claims if isinstance(claims, Mapping) else load(claims)
    if claim_id not in rows:
        raise KeyError(f"no claim {claim_id!r} in the ledger")
    return Box(rows[claim_id], judge(rows[claim_id], record), record)
