"""Verdicts: the vocabulary, and that each of them can flip.

The mutation tests run over every row of the ledger that has a test, so a row that no run could fail cannot be added.
"""

import copy
import re
from pathlib import Path

import pytest

from coala_lib.evidence.claims import ICONS, VERDICTS, box, judge, judge_all
from coala_lib.evidence.ledger import PRESETS, Claim, OtherMetric, Published, Rule, load, look_up
from coala_lib.evidence.records import Metric, Record, Seconds

LEDGER = load(Path(__file__).resolve().parents[3] / "book" / "claims.yml")
ENDS = ("value", "low", "high")


def claim(*rules: dict, **changes: object) -> Claim:
    row = {
        "id": "coala.toy",
        "source": {"paper": "coala", "where": "§9"},
        "kind": "claim",
        "statement": "The gap $p-d$ is small & <sharp>.",
        "checkable": "on a laptop",
        "check": "c",
        "finding": "f",
        "data": {"gap": 0.2, "range": [0.1, 0.3]},
        "chapter": "toy",
    }
    return Claim.model_validate({**row, **({"test": list(rules)} if rules else {}), **changes})


def rule(op: str = "<=", value: object = 0.5, metric: str = "solver/gap", **more: object) -> dict:
    return {"metric": metric, "says": f"{metric} {op} {value}", "op": op, "value": value, **more}


def record(preset: str = "laptop", device: str = "cpu (2 cores, x86_64)", **numbers: float | Metric) -> Record:
    metrics = {
        name.replace("__", "/"): number if isinstance(number, Metric) else Metric(value=number, unit="1")
        for name, number in numbers.items()
    }
    return Record(
        chapter="toy", preset=preset, parameters={"preset": preset, "seed": 0}, seeds=[0], library_version="0",
        library_commit="0", library_dirty=False, packages={}, python="3.11", device=device, dtype="float32",
        seconds={"all": Seconds(compile=0.0, run=1.0)}, peak_bytes=1, started="2026-01-01T00:00:00+00:00",
        metrics=metrics,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("op", "value", "measured", "holds"),
    [
        ("<=", 0.5, 0.5, True),
        ("<", 0.5, 0.5, False),
        (">=", 0.5, 0.5, True),
        (">", 0.5, 0.5, False),
        ("between", [0.1, 0.3], 0.3, True),
        ("between", [0.1, 0.3], 0.31, False),
        ("between", 0.5, 0.5, True),
        ("between", 0.5, 0.51, False),
        ("<=", {"published": "gap"}, 0.2, True),
        ("<=", {"published": "gap"}, 0.21, False),
        ("between", {"published": "range"}, 0.2, True),
        ("between", {"published": "range"}, 0.05, False),
        (">", {"metric": "other"}, 0.8, True),
        (">", {"metric": "other"}, 0.6, False),
        (">", {"metric": "other", "field": "high"}, 0.8, False),
    ],
)
def test_each_comparison(op: str, value: object, measured: float, holds: bool) -> None:
    run = record(solver__gap=measured, other=Metric(value=0.7, unit="1", low=0.6, high=0.9))
    verdict = judge(claim(rule(op, value)), run)
    assert verdict.reasons[0][2] is holds
    assert verdict.verdict == ("reproduced" if holds else "not reproduced")


@pytest.mark.parametrize(("op", "bar"), [("<=", 2.0), (">=", 2.0), ("<=", -2.0), (">=", -2.0), ("between", -2.0)])
def test_tolerance_is_relative_and_widens_on_either_side_of_zero(op: str, bar: float) -> None:
    outwards = -1 if op == ">=" else 1
    near, far = bar + outwards * 0.19, bar + outwards * 0.21
    assert judge(claim(rule(op, bar, tolerance=0.1)), record(solver__gap=near)).reasons[0][2]
    assert not judge(claim(rule(op, bar, tolerance=0.1)), record(solver__gap=far)).reasons[0][2]


def test_a_rule_can_ask_for_an_end_of_the_interval() -> None:
    run = record(accuracy=Metric(value=0.6, unit="fraction", low=0.55, high=0.65))
    assert judge(claim(rule(">", 0.58, "accuracy")), run).verdict == "reproduced"
    assert judge(claim(rule(">", 0.58, "accuracy", field="low")), run).verdict == "not reproduced"


def test_without_an_interval_nothing_is_claimed() -> None:
    verdict = judge(claim(rule(">", 0.5, "gap", field="low")), record(gap=0.6))
    assert verdict.verdict == "not reproduced"
    assert verdict.reasons[0][1:] == ("no interval", False)


@pytest.mark.parametrize(
    ("kind", "good", "verdict"),
    [
        ("claim", 2, "reproduced"),
        ("claim", 1, "partly"),
        ("claim", 0, "not reproduced"),
        ("theorem", 2, "verified numerically"),
        ("theorem", 1, "not verified numerically"),
        ("theorem", 0, "not verified numerically"),
    ],
)
def test_the_vocabulary(kind: str, good: int, verdict: str) -> None:
    rules = (rule(metric="first"), rule(metric="second"))
    run = record(first=0 if good > 0 else 1, second=0 if good > 1 else 1)
    assert judge(claim(*rules, kind=kind), run).verdict == verdict
    assert set(ICONS) == set(VERDICTS)


def test_rows_without_a_test() -> None:
    assert judge(claim(), record()).verdict == "not tested yet"
    assert judge(claim(cannot="it takes people"), record()).verdict == "cannot test"


def test_a_missing_metric_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"coala\.toy needs the metric 'solver/gap'.*laptop run of toy"):
        judge(claim(rule()), record())


@pytest.mark.parametrize("kind", ["claim", "theorem"])
@pytest.mark.parametrize("needs", PRESETS)
@pytest.mark.parametrize("runs", PRESETS)
@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_a_small_run_never_settles_a_large_claim(kind: str, needs: str, runs: str, gap: float) -> None:
    verdict = judge(claim(rule(), kind=kind, min_preset=needs), record(runs, solver__gap=gap)).verdict
    assert (verdict == "not tested at this scale") == (PRESETS.index(runs) < PRESETS.index(needs))


def test_smoke_settles_nothing_unless_a_row_says_so() -> None:
    assert judge(claim(rule()), record("smoke", solver__gap=0.0)).verdict == "not tested at this scale"


def test_the_best_run_of_the_chapter_decides() -> None:
    claims = {"coala.toy": claim(rule(), min_preset="gpu"), "coala.none": claim()}
    runs = [record("laptop", solver__gap=0.0), record("smoke", solver__gap=0.0)]
    assert judge_all(claims, [])["coala.toy"].verdict == "not tested yet"
    assert judge_all(claims, runs)["coala.toy"].verdict == "not tested at this scale"
    verdicts = judge_all(claims, [record("gpu", solver__gap=0.0), *runs])
    assert verdicts["coala.toy"].verdict == "reproduced"
    assert verdicts["coala.toy"].record.preset == "gpu"
    assert verdicts["coala.none"].verdict == "not tested yet"
    later = record("gpu", solver__gap=1.0).model_copy(update={"started": "2026-02-01T00:00:00+00:00"})
    assert judge_all(claims, [later, record("gpu", solver__gap=0.0)])["coala.toy"].verdict == "not reproduced"
    stranger = record("paper").model_copy(update={"chapter": "other"})
    assert judge_all(claims, [stranger])["coala.toy"].verdict == "not tested yet"


def test_the_whole_ledger_gets_a_verdict() -> None:
    verdicts = judge_all(LEDGER, [])
    assert list(verdicts) == list(LEDGER)
    assert {verdict.verdict for verdict in verdicts.values()} <= {"not tested yet", "cannot test"}


# --- mutations: every row with a test, and stand-ins that hold every form of a rule ------------------------------

STAND_INS = {
    "a number": claim(rule("<=", 0.5), rule(">=", -3)),
    "a pair": claim(rule("between", [0.2, 0.4])),
    "a tolerance": claim(rule("between", 0.5, tolerance=0.1), rule("<", 0.6, "b", tolerance=0.5)),
    "published": claim(rule("<=", {"published": "gap"}), rule("between", {"published": "range"}, "b")),
    "published entry": claim(rule(">", {"published": "range.1"}, field="low")),
    "another metric": claim(rule(">", {"metric": "b", "field": "high"}, field="low"), rule(">=", 7, "b")),
    "a theorem": claim(rule("<", 0), kind="theorem", min_preset="smoke"),
}
TESTED = {**{name: row for name, row in LEDGER.items() if row.test}, **STAND_INS}
every_tested_row = pytest.mark.parametrize("row", TESTED.values(), ids=TESTED.keys())


def run_of(row: Claim, numbers: dict[tuple[str, str], float]) -> Record:
    names = {name for name, _ in numbers}
    metrics = {n: Metric(unit="1", **{end: numbers.get((n, end), 0.0) for end in ENDS}) for n in names}
    return record("paper").model_copy(update={"chapter": row.chapter, "metrics": metrics})


def target(row: Claim, one: Rule, numbers: dict[tuple[str, str], float], outside: bool) -> float:
    """A number on the wanted side of a rule's bar."""
    bar = one.value
    if isinstance(bar, Published):
        bar = look_up(row.data, bar.published)
    elif isinstance(bar, OtherMetric):
        bar = numbers[bar.metric, bar.field]
    low, high = bar if isinstance(bar, tuple) else (bar, bar)
    step = 1e-6 * (1 + abs(low) + abs(high))
    if one.op == "between" and not outside:
        return (low + high) / 2
    below = (one.op in ("<", "<=")) != outside
    slack = one.tolerance * max(abs(low), abs(high)) if outside else 0.0
    return low - slack - step if below else high + slack + step


def satisfied(row: Claim) -> dict[tuple[str, str], float]:
    """Numbers for which every rule of a row holds, found by repairing one rule after another."""
    numbers: dict[tuple[str, str], float] = {}
    for one in row.test:
        numbers.setdefault((one.metric, one.field), 0.0)
        if isinstance(one.value, OtherMetric):
            numbers.setdefault((one.value.metric, one.value.field), 0.0)
    for _ in range(100):
        reasons = judge(row, run_of(row, numbers)).reasons
        if all(holds for *_, holds in reasons):
            return numbers
        for one, (*_, holds) in zip(row.test, reasons, strict=True):
            if not holds:
                numbers[one.metric, one.field] = target(row, one, numbers, outside=False)
    raise AssertionError(f"no run could satisfy every rule of {row.id}")


@every_tested_row
def test_moving_a_metric_across_its_bar_flips_the_verdict(row: Claim) -> None:
    numbers = satisfied(row)
    full = judge(row, run_of(row, numbers)).verdict
    assert full == ("verified numerically" if row.kind == "theorem" else "reproduced")
    for index, one in enumerate(row.test):
        moved = {**numbers, (one.metric, one.field): target(row, one, numbers, outside=True)}
        verdict = judge(row, run_of(row, moved))
        assert not verdict.reasons[index][2], one.says
        assert verdict.verdict != full, one.says


@every_tested_row
def test_moving_a_published_number_flips_the_verdict(row: Claim) -> None:
    numbers = satisfied(row)
    full = judge(row, run_of(row, numbers)).verdict
    for index, one in enumerate(row.test):
        if not isinstance(one.value, Published):
            continue
        measured = numbers[one.metric, one.field]
        verdicts = []
        for shift in (-1e3, 1e3):  # one of the two directions crosses the measured number
            data = copy.deepcopy(row.data)
            move(data, one.value.published, shift * (1 + abs(measured)))
            verdicts.append(judge(row.model_copy(update={"data": data}), run_of(row, numbers)))
        flipped = [verdict for verdict in verdicts if not verdict.reasons[index][2]]
        assert flipped, one.says
        assert all(verdict.verdict != full for verdict in flipped)


def move(data: object, path: str, shift: float) -> None:
    """Add to the published number at a path, or to both ends of a published interval."""
    head, _, tail = path.partition(".")
    key = int(head) if isinstance(data, list) else next(k for k in data if path == k or path.startswith(f"{k}."))
    tail = tail if isinstance(data, list) else path[len(key) + 1 :]
    if tail:
        move(data[key], tail, shift)
    elif isinstance(data[key], list):
        data[key] = [number + shift for number in data[key]]
    else:
        data[key] += shift


@every_tested_row
def test_a_run_below_the_needed_preset_settles_no_row(row: Claim) -> None:
    run = run_of(row, satisfied(row))
    for preset in PRESETS[: PRESETS.index(row.min_preset)]:
        small = run.model_copy(update={"preset": preset})
        assert judge(row, small).verdict == "not tested at this scale"


# --- the box ------------------------------------------------------------------------------------------------------


def test_the_box_in_three_forms() -> None:
    claims = {"coala.toy": claim(rule(">", 1 / 3, "a/b"), rule("<", 0.1, "a/b"))}
    shown = box("coala.toy", record(device="cpu (64 cores, x86_64)", a__b=0.123456789), claims)
    text, page, markdown = repr(shown), shown._repr_html_(), shown._repr_markdown_()
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "Paper says", "This run", "What was measured", "Verdict",
    ]  # fmt: skip
    assert "laptop" in text
    assert "seeds 0" in text
    assert text.count("does not hold") == 2
    assert "✗ not reproduced" in text
    assert "coala-device" in page
    assert "64 cores" in page
    assert "0.1235" in page
    assert "&lt;sharp&gt;" in page
    assert r"\(p-d\)" in page
    assert "<sharp>" not in page
    assert "**Verdict.** ✗ not reproduced" in markdown


def test_the_text_form_is_the_same_on_every_machine() -> None:
    claims = {"coala.toy": claim(rule("<", 0.5))}
    first = box("coala.toy", record(device="cpu (2 cores, x86_64)", solver__gap=0.1234), claims)
    second = box("coala.toy", record(device="gpu (H200, 1 of them)", solver__gap=0.1236), claims)
    assert repr(first) == repr(second)
    assert first._repr_markdown_() == second._repr_markdown_()
    strip = re.compile(r'<span class="coala-(device|measured)">.*?</span>')
    assert strip.sub("", first._repr_html_()) == strip.sub("", second._repr_html_())


def test_the_box_says_what_is_missing() -> None:
    claims = {"coala.gpu": claim(rule(), min_preset="gpu"), "coala.people": claim(cannot="it takes people")}
    assert "not tested at this scale (needs the gpu preset)" in repr(box("coala.gpu", record(solver__gap=0.0), claims))
    assert "cannot test: it takes people" in repr(box("coala.people", record(), claims))
    assert "not tested yet" in repr(box("coala.new", record(), {"coala.new": claim()}))
    with pytest.raises(KeyError, match=r"coala\.nothing"):
        box("coala.nothing", record(), claims)
