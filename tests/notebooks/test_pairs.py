"""The text is the authority; the paired notebook follows, and never shows an output under code that did not make it."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.config import load_jupytext_config

from coala_lib.workflow import chapters, pairs
from coala_lib.workflow.chapters import Chapter

ROOT = Path(__file__).resolve().parents[2]
every_chapter = pytest.mark.parametrize("chapter", chapters.find(ROOT), ids=lambda chapter: chapter.slug)


def back_to_text(notebook: Path) -> str:
    """What Jupyter would write as the text of a paired notebook."""
    config = load_jupytext_config(str(ROOT / "notebooks"))
    return jupytext.writes(nbformat.read(notebook, as_version=4), fmt="md:myst", config=config)


@every_chapter
def test_pair_is_in_step(chapter: Chapter) -> None:
    assert not pairs.differs(chapter), "run `make sync`"


@every_chapter
def test_outputs_belong_to_the_code(chapter: Chapter) -> None:
    assert not pairs.stale(chapter), "run `make notebooks`"


@every_chapter
def test_round_trip(chapter: Chapter) -> None:
    assert back_to_text(chapter.notebook) == chapter.path.read_text(encoding="utf-8"), "run `make fmt sync`"


@every_chapter
def test_notebook_names_no_place_on_the_machine_that_ran_it(chapter: Chapter) -> None:
    content = chapter.notebook.read_text(encoding="utf-8")
    assert [place for place in (str(ROOT), "/.running-", "/tmp/", "site-packages") if place in content] == []


@pytest.fixture
def promoted(toy) -> Chapter:
    """A toy chapter whose notebook holds outputs, and the right stamp."""
    chapter = chapters.get(toy.root, "alpha")
    pairs.sync(chapter)
    notebook = pairs.committed(chapter)
    for cell in chapters.code_cells(notebook):
        cell.execution_count = 1
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"of {cell.source[:6]}")]
    resolved = chapters.parameters(chapter, notebook)
    notebook.metadata["coala"] = {"code_hash": chapters.code_hash(notebook, resolved)}
    nbformat.write(notebook, chapter.notebook)
    pairs.sync(chapter)
    assert not pairs.stale(chapter)
    return chapter


def _outputs(chapter: Chapter) -> list[int]:
    return [len(cell.outputs) for cell in chapters.code_cells(pairs.committed(chapter))]


def test_toy_round_trip(promoted: Chapter) -> None:
    assert back_to_text(promoted.notebook) == promoted.path.read_text()


def test_tidying_gives_the_form_that_round_trips(promoted: Chapter, toy) -> None:
    toy.edit(
        "notebooks/01_alpha.md",
        ":tags: [volatile]",
        "---\nmystnb: {image: {width: 3, alt: words}}\ntags: [volatile]\n---",
    )
    untidy = chapters.read(promoted)
    pairs.sync(promoted)
    assert back_to_text(promoted.notebook) != promoted.path.read_text()
    assert pairs.tidy(promoted)
    assert back_to_text(promoted.notebook) == promoted.path.read_text()
    assert not pairs.tidy(promoted)
    tidied = chapters.read(promoted)
    assert [(c.source, c.metadata) for c in tidied.cells] == [(c.source, c.metadata) for c in untidy.cells]


def test_prose_reaches_the_notebook_and_outputs_stay(promoted: Chapter, toy) -> None:
    toy.edit("notebooks/01_alpha.md", "Prose.", "Better prose.\n\n+++\n\nAnd more.")
    assert pairs.differs(promoted)
    assert pairs.sync(promoted)
    assert "Better prose." in promoted.notebook.read_text()
    assert _outputs(promoted) == [1, 1, 1]
    assert not pairs.stale(promoted)
    assert not pairs.sync(promoted)


def test_changed_code_loses_its_output_and_the_notebook_is_stale(promoted: Chapter, toy) -> None:
    toy.edit("notebooks/01_alpha.md", 'print("answer", ', 'print("reply", ')
    pairs.sync(promoted)
    assert _outputs(promoted) == [1, 0, 1]
    assert pairs.stale(promoted)
    assert toy.command("sync", "--check").returncode == 1


def test_an_edited_notebook_is_told(promoted: Chapter, toy) -> None:
    toy.edit("notebooks/01_alpha.ipynb", "Prose.", "Edited in the wrong place.")
    assert pairs.differs(promoted)


def test_a_never_executed_notebook_is_stale(toy) -> None:
    chapter = chapters.get(toy.root, "beta")
    pairs.sync(chapter)
    assert pairs.stale(chapter)
