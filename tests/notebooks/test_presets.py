"""Presets fit their chapters, say where each value comes from, and what does not fit is refused in one sentence."""

import re
from pathlib import Path

import pytest

from coala_lib.workflow import chapters, plan, presets
from coala_lib.workflow.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks" / "presets"
RULES = {"type", "enum", "pattern", "items", "minItems", "maxItems"}
RULES |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_key_is_known_and_every_value_in_range(preset: str) -> None:
    assert len(plan.jobs(ROOT, preset)) >= len(chapters.find(ROOT))


def test_laptop_values_stand_in_the_chapters_alone() -> None:
    assert presets.load(ROOT, "laptop") == {}


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_value_says_where_it_comes_from(preset: str) -> None:
    lines = (FOLDER / f"{preset}.yml").read_text().splitlines()
    values = [line for line in lines if re.match(r"\s+[\w-]+:\s*[^#\s]", line)]
    assert [line for line in values if not re.search(r"\s# \w", line)] == []


def test_rules_are_closed_and_have_no_misspelt_word() -> None:
    for slug, schema in presets.load(ROOT, "schema").items():
        assert schema.keys() == {"type", "additionalProperties", "properties"}, slug
        assert (schema["type"], schema["additionalProperties"]) == ("object", False), slug
        for name, rule in schema["properties"].items():
            assert rule, (slug, name)
            assert rule.keys() <= RULES, (slug, name)


def _refusal(toy, preset: str = "smoke", **overrides: object) -> str:
    with pytest.raises(UsageError) as refused:
        presets.resolve(chapters.get(toy.root, "alpha"), preset, overrides)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


def test_resolution_order(toy) -> None:
    alpha = chapters.get(toy.root, "alpha")
    assert presets.resolve(alpha, "laptop") == {"preset": "laptop", "seed": 0, "reg": 0.5}
    assert presets.resolve(alpha, "smoke") == {"preset": "smoke", "seed": 0, "reg": 0.25}
    assert presets.resolve(alpha, "smoke", {"reg": 1, "seed": 7}) == {"preset": "smoke", "seed": 7, "reg": 1}


def test_grid_points(toy) -> None:
    listed = toy.command("plan", "--preset", "smoke").stdout
    names = re.findall(r"runs/smoke/(.+)\.ipynb", listed)
    assert names == ["01_alpha", "02_beta@seed=1", "02_beta@seed=2"]


def _resolve_all(toy) -> None:
    for chapter in chapters.find(toy.root):
        for point in presets.points(toy.root, chapter, "smoke"):
            presets.resolve(chapter, "smoke", point)


def test_refusals(toy) -> None:
    assert "'tiny'" in _refusal(toy, "tiny")
    assert "did you mean `seed`?" in _refusal(toy, sed=1)
    assert "greater than the maximum of 1" in _refusal(toy, reg=2.0)
    assert "not of type 'integer'" in _refusal(toy, seed=1.0)
    assert "not of type 'integer'" in _refusal(toy, seed=True)
    assert "not of type 'number'" in _refusal(toy, reg="high")
    assert "not of type 'number'" in _refusal(toy, reg=float("nan"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("01_alpha.md", "seed = 0\n", "", "lacks `seed`"),
        ("01_alpha.md", "reg = 0.5\n", "", "parameter `reg`.*is missing in the parameters cell"),
        ("01_alpha.md", "reg = 0.5\n", "reg = 0.5\nextra = 1\n", "`extra` of alpha has no rule"),
        ("01_alpha.md", "reg = 0.5", "reg = seed / 2", "only lines `name = literal`"),
        ("02_beta.md", "reg = 0.5", "reg = -0.5", "less than the minimum of 0.*parameters cell"),
        ("01_alpha.md", ":tags: [parameters]", ":tags: [parameter]", "exactly one cell tagged"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alhpa: {reg: 0.25}", "'alhpa', which does not exist.*`alpha`"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: {rge: 0.25}", "`rge`.*did you mean `reg`"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: {reg: 0.25, reg: 0.5}", "line 1: key 'reg' is given twice"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: {reg: 0.25", "line 2"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: 3", "must map each chapter"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: {preset: gpu}", "by --preset"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: {grid: {seed: 3}}", "grid of alpha"),
        ("presets/smoke.yml", "alpha: {reg: 0.25}", "alpha: {grid: {seed: [0, -1]}}", "minimum of 0"),
    ],
)
def test_what_does_not_fit_is_refused(toy, name: str, old: str, new: str, message: str) -> None:
    _resolve_all(toy)
    toy.edit(f"notebooks/{name}", old, new)
    with pytest.raises(UsageError, match=message) as refused:
        _resolve_all(toy)
    assert "\n" not in str(refused.value)


def test_small_numbers_are_numbers(toy) -> None:
    toy.edit("notebooks/presets/smoke.yml", "0.25", "1e-3")
    assert presets.resolve(chapters.get(toy.root, "alpha"), "smoke")["reg"] == 1e-3


@pytest.mark.parametrize("arguments", [["seed"], ["=1"], ["seed="], ["seed=1", "seed=2"], ["seed=["]])
def test_malformed_requests(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="-p"):
        presets.parse_overrides(arguments)
