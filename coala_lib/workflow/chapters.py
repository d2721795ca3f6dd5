"""A chapter is one text file, `notebooks/NN_slug.md`; everything else about it is derived from that text.

Its number only orders; its slug names it everywhere. Its *parameters cell* (tag `parameters`) holds plain literals,
the laptop values. Its *code hash* says which code, with which resolved parameters, an output belongs to: prose and
the Python version do not enter, every character of a code cell does.
"""

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from coala_lib.workflow.errors import UsageError

_NAME = re.compile(r"\d\d_[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Chapter:
    """Where a chapter stands.

    Attributes:
        path: the text, `<root>/notebooks/NN_slug.md`.

    Example:
        >>> chapter = Chapter(Path("book/notebooks/07_phase_one.md"))
        >>> chapter.slug, chapter.stem, chapter.notebook.name, chapter.root.name
        ('phase_one', '07_phase_one', '07_phase_one.ipynb', 'book')
    """

    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def slug(self) -> str:
        return self.stem[3:]

    @property
    def notebook(self) -> Path:
        """The paired notebook, which holds the outputs of the laptop run."""
        return self.path.with_suffix(".ipynb")

    @property
    def record(self) -> Path:
        """The committed record of the laptop run."""
        return self.root / "book" / "records" / "laptop" / f"{self.slug}.json"

    @property
    def root(self) -> Path:
        return self.path.parents[1]


def find(root: Path) -> list[Chapter]:
    """All chapters under `root`, in the order of their numbers."""
    return [Chapter(path) for path in sorted((root / "notebooks").glob("*.md")) if _NAME.fullmatch(path.stem)]


def get(root: Path, name: str) -> Chapter:
    """The chapter called `name`.

    Args:
        root: the repository.
        name: slug, number or both ("phase_one", "07", "07_phase_one").

    Raises:
        UsageError: where no chapter is called so.
    """
    known = find(root)
    for chapter in known:
        if name in (chapter.slug, chapter.stem, chapter.stem[:2]):
            return chapter
    names = ", ".join(chapter.slug for chapter in known) or "none yet"
    raise UsageError(f"there is no chapter {name!r} in notebooks/; choose one of: {names}.")


def read(chapter: Chapter) -> NotebookNode:
    """The chapter's text as a notebook without outputs."""
    return jupytext.read(chapter.path, fmt="md:myst")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def parameters(chapter: Chapter, notebook: NotebookNode) -> dict[str, Any]:
    """The values of the parameters cell.

    Args:
        chapter: whose cell it is; named in the error.
        notebook: the chapter, as `read` returns it.

    Returns:
        Name -> literal, in the order of the cell.

    Raises:
        UsageError: where the cell is missing, doubled, lacks `preset` or `seed`, or holds more than plain literals.
    """
    cells = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise UsageError(f"{chapter.path} needs exactly one cell tagged `parameters`; it has {len(cells)}.")
    found: dict[str, Any] = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(f"`{ast.unparse(statement)}` is no assignment")
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"the parameters cell of {chapter.path} may hold only lines `name = literal`; {error}."
        ) from error
    for name in ("preset", "seed"):
        if name not in found:
            raise UsageError(f"the parameters cell of {chapter.path} lacks `{name}`; add it.")
    return found


def code_hash(notebook: NotebookNode, resolved: Mapping[str, Any]) -> str:
    """Hash of the code cells and the resolved parameters, the same under every Python version.

    Example:
        >>> import nbformat.v4 as v4
        >>> one = v4.new_notebook(cells=[v4.new_markdown_cell("a"), v4.new_code_cell("x = 1")])
        >>> two = v4.new_notebook(cells=[v4.new_code_cell("x = 1"), v4.new_markdown_cell("other prose")])
        >>> code_hash(one, {"seed": 0}) == code_hash(two, {"seed": 0})
        True
        >>> code_hash(one, {"seed": 0}) == code_hash(one, {"seed": 1})
        False
    """
    content = [[cell.source for cell in code_cells(notebook)], dict(resolved)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
