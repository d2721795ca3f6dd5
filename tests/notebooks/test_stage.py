"""The staged copy holds what git knows and fresh runs; a failed build leaves the former pages."""

import subprocess

import pytest

from coala_lib.workflow import stage
from coala_lib.workflow.errors import RunError

CONFIG = "title: T\nauthor: A\nonly_build_toc_files: true\nsphinx: {config: {project: T, language: en}}\n"


@pytest.fixture
def book(tmp_path):
    """A book of one page, in a repository."""
    (tmp_path / "_config.yml").write_text(CONFIG)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (tmp_path / "page.md").write_text("# Page\n\nFirst edition.\n")
    (tmp_path / ".gitignore").write_text("/_build/\nsecret\n")
    (tmp_path / "secret").write_text("not for the stage")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def test_a_warning_fails_and_keeps_the_former_pages(book) -> None:
    page = stage.build(book)
    assert page.exists()
    html = page.with_name("page.html")
    assert "First edition." in html.read_text()
    assert sorted(path.name for path in (book / "_build" / "stage").iterdir() if path.is_file()) == [
        ".gitignore",
        "_config.yml",
        "_toc.yml",
        "page.md",
    ]
    (book / "page.md").write_text("# Page\n\nSecond edition, {ref}`nowhere`.\n")
    with pytest.raises(RunError, match="did not build"):
        stage.build(book)
    assert "First edition." in html.read_text()


def test_without_git_all_but_hidden_files_are_copied(book) -> None:
    (book / ".git").rename(book / "elsewhere")
    (book / "_build").mkdir()
    stage.copy_tree(book, book / "_build" / "copy")
    assert (book / "_build" / "copy" / "page.md").exists()
    assert not (book / "_build" / "copy" / "_build").exists()
    assert not (book / "_build" / "copy" / ".gitignore").exists()
