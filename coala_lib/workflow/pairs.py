"""A chapter's text is the authority; its paired notebook follows, in one direction only and without execution.

Prose and code of the text reach the notebook; an output stays only under the very code that made it. (`jupytext
--sync` lets the newer file win, and `--update` keeps old outputs under new code.) The stamp `metadata.coala` stays that
of the run, so a notebook whose outputs belong to other code is told apart by its `code_hash`.
"""

from collections import defaultdict, deque
from itertools import repeat

import jupytext
import nbformat
from jupytext.config import load_jupytext_config
from nbformat import NotebookNode

from coala_lib._files import replacing
from coala_lib.workflow import chapters, normalise, presets
from coala_lib.workflow.chapters import Chapter
from coala_lib.workflow.normalise import Outputs


def committed(chapter: Chapter) -> NotebookNode:
    """The paired notebook as it stands; an empty one where there is none."""
    if not chapter.notebook.exists():
        return nbformat.v4.new_notebook()
    return nbformat.read(chapter.notebook, as_version=4)


def carried(text: NotebookNode, old: NotebookNode) -> list[Outputs]:
    """For each code cell of `text`, the outputs that the same code has in `old`, or None."""
    by_source: dict[str, deque[Outputs]] = defaultdict(deque)
    for cell, outputs in zip(chapters.code_cells(old), normalise.run_outputs(old), strict=True):
        by_source[cell.source].append(outputs)
    return [by_source[cell.source].popleft() if by_source[cell.source] else None for cell in chapters.code_cells(text)]


def synced(chapter: Chapter) -> str:
    """What the paired notebook must contain, byte for byte, given the text and the outputs it holds."""
    text, old = chapters.read(chapter), committed(chapter)
    return normalise.serialise(normalise.paired(text, carried(text, old), old.metadata.get("coala", {})))


def sync(chapter: Chapter) -> bool:
    """Carry the text to the paired notebook.

    Returns:
        Whether the notebook changed.
    """
    if not differs(chapter):
        return False
    content = synced(chapter)
    with replacing(chapter.notebook) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return True


def tidied(chapter: Chapter) -> str:
    """The text as Jupyter would write it back from the notebook: the same content, cell options in one fixed form."""
    notebook = normalise.paired(chapters.read(chapter), repeat(None), {})
    config = load_jupytext_config(str(chapter.path.parent))
    return jupytext.writes(nbformat.reads(normalise.serialise(notebook), as_version=4), fmt="md:myst", config=config)


def tidy(chapter: Chapter) -> bool:
    """Rewrite the text in that form, so that a save in Jupyter changes nothing.

    Returns:
        Whether the text changed.
    """
    content = tidied(chapter)
    if content == chapter.path.read_text(encoding="utf-8"):
        return False
    with replacing(chapter.path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return True


def differs(chapter: Chapter) -> bool:
    """Whether the paired notebook is not what `sync` would write."""
    return not chapter.notebook.exists() or chapter.notebook.read_text(encoding="utf-8") != synced(chapter)


def stale(chapter: Chapter) -> bool:
    """Whether the paired notebook's outputs belong to other code or other laptop parameters than the text has."""
    resolved = presets.resolve(chapter, "laptop")
    expected = chapters.code_hash(chapters.read(chapter), resolved)
    return committed(chapter).metadata.get("coala", {}).get("code_hash") != expected
