"""Author-year labels for the bibliography, and the one MathJax file the pages need, so that they work offline."""

import shutil
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

MATHJAX = Path("mathjax") / "tex-svg-full.js"


def _label(entry: Entry) -> str:
    """`Wilson, 1927`, `Albert and Anderson, 1984`, `Boyd et al., 2011`."""
    names = [" ".join(part.strip("{}") for part in person.last_names) for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    return f"{who}, {entry.fields['year']}"


class AuthorYearLabels(BaseLabelStyle):
    """Author-year labels; equal ones get a, b, c."""

    def format_labels(self, sorted_entries: list[Entry]) -> Iterator[str]:
        labels = [_label(entry) for entry in sorted_entries]
        total, seen = Counter(labels), Counter()
        for label in labels:
            yield label + (chr(ord("a") + seen[label]) if total[label] > 1 else "")
            seen[label] += 1


class BookStyle(PlainStyle):
    """The plain style with author-year labels."""

    default_label_style = AuthorYearLabels


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put MathJax beside the pages, out of an installed package; nothing third-party is committed."""
    target = Path(app.outdir) / "_static" / MATHJAX
    if exception or app.builder.format != "html" or target.exists():
        return
    package = find_spec("sphinx-mathjax-offline")
    source = Path(package.origin).parent / "static" / MATHJAX if package and package.origin else None
    if source is None or not source.is_file():
        raise ExtensionError("MathJax is missing: install the book extra (pip install -e '.[book]')")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def setup(app: Sphinx) -> dict[str, Any]:
    register_plugin("pybtex.style.formatting", "book_author_year", BookStyle)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
