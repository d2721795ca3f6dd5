"""Every chapter follows the template, and every figure can be seen and heard."""

import re
from pathlib import Path

import pytest

from coala_lib.workflow import chapters, pairs
from coala_lib.workflow.chapters import Chapter

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = ["Setup", "The idea", "The algorithm", "Does it hold?", "Cost of this run", "Exercises", "What we saw"]
BOXES = ["goals", "paper-map", "run-note"]
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
IMAGES = {"image/png", "image/svg+xml", "image/jpeg"}

every_chapter = pytest.mark.parametrize("chapter", chapters.find(ROOT), ids=lambda chapter: chapter.slug)


def template_errors(text: str, slug: str) -> list[str]:
    """What a chapter's text lacks of the template, in words."""
    body = text.split("---\n", 2)[2]
    headings = re.findall(r"^## (.+?)\s*$", body, re.MULTILINE)
    label = re.escape(slug).replace("_", "[-_]")
    errors = []
    if not re.match(rf"\s*\(ch-{label}\)=\n# \S", body):
        errors.append("does not open with its label and title")
    if [heading for heading in headings if heading in HEADINGS] != HEADINGS:
        errors.append(f"headings must hold, in this order: {HEADINGS}; they are {headings}")
    errors += [f"has no box `{box}`" for box in BOXES if not re.search(rf"^:class:.*\b{box}\b", body, re.MULTILINE)]
    if not re.search(r"^\| *Before you start *\|", body, re.MULTILINE):
        errors.append("has no table `Before you start`")
    if "we differ" not in body.lower():
        errors.append("does not say where we differ from the paper")
    if "{exercise}" not in body and "{exercise-start}" not in body:
        errors.append("has no exercise")
    if body.count("{solution-start}") + body.count("{solution}") < body.count("{exercise}"):
        errors.append("has an exercise without a solution")
    if text.count("\n") > 700:
        errors.append("is longer than 700 lines")
    return errors


@every_chapter
def test_template(chapter: Chapter) -> None:
    assert template_errors(chapter.path.read_text(encoding="utf-8"), chapter.slug) == []


def test_the_template_is_not_met_by_anything() -> None:
    assert len(template_errors("---\n---\n# Title\n", "toy")) >= 6


@every_chapter
def test_parameters_say_where_they_come_from(chapter: Chapter) -> None:
    notebook = chapters.read(chapter)
    assert {"preset", "seed"} <= chapters.parameters(chapter, notebook).keys()
    (cell,) = [cell for cell in notebook.cells if "parameters" in chapters.tags(cell)]
    values = [line for line in cell.source.splitlines() if not line.startswith(("preset", "seed", "#")) and line]
    assert [line for line in values if "  # " not in line] == []


@every_chapter
def test_visible_cells_are_short(chapter: Chapter) -> None:
    cells = chapters.code_cells(chapters.read(chapter))
    visible = [cell.source for cell in cells if HIDDEN.isdisjoint(chapters.tags(cell))]
    assert [source for source in visible if source.count("\n") >= 25] == []


@every_chapter
def test_few_cells_are_left_out_of_the_regression_test(chapter: Chapter) -> None:
    tags = [chapters.tags(cell) for cell in chapters.code_cells(chapters.read(chapter))]
    assert sum("nbval-skip" in of_cell for of_cell in tags) <= 2
    assert any("nbval-check-output" in of_cell for of_cell in tags)


@every_chapter
def test_figures_have_words(chapter: Chapter) -> None:
    for cell in chapters.code_cells(chapters.read(chapter)):
        if options := cell.metadata.get("mystnb", {}).get("figure"):
            assert options["name"].startswith("fig-")
            assert 1 <= len(re.sub(r"\{\w+\}`[^`]*`", "ref", options["caption"]).split()) <= 6, options["caption"]
            assert len(cell.metadata["mystnb"]["image"]["alt"].split()) >= 4


@every_chapter
def test_every_figure_cell_shows_one_image_and_no_other_cell_any(chapter: Chapter) -> None:
    for cell in chapters.code_cells(pairs.committed(chapter)):
        images = [mime for output in cell.outputs for mime in output.get("data", {}) if mime in IMAGES]
        assert len(images) == ("figure" in cell.metadata.get("mystnb", {})), cell.source
