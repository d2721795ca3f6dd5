"""Which library files a chapter stands on: those its cells import, and what these import in turn.

Importing `coala_lib.x.y` executes the `__init__` of every package on the way, so these count and are followed too.
A *lazy* package (its `__init__` has a `__getattr__`) imports a module only when one of its names is asked for. Where
each name lives stands under `if TYPE_CHECKING:`; the module of the name is followed, or all where no name is given.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import grimp
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from coala_lib.workflow.chapters import code_cells

PACKAGE = "coala_lib"


def library_files(root: Path, notebook: NotebookNode) -> list[Path]:
    """The files of `coala_lib` that a notebook imports, directly or not.

    Args:
        root: the repository, which holds `coala_lib/`.
        notebook: the chapter, as `chapters.read` returns it.

    Returns:
        Sorted paths relative to `root`.
    """
    graph = _graph()
    seen: set[str] = set()
    waiting = {module for name in _imported(notebook) for module in _resolve(root, name, graph.modules)}
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting.update(_ancestors(module))
        for imported in graph.find_modules_directly_imported_by(module):
            waiting.update([imported, *_homes(root, imported, graph.modules)])
    return sorted(_file(root, module) for module in seen)


def content_hash(root: Path, files: Iterable[Path]) -> str:
    """Hash of the names and contents of files under `root`."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = (root / file).read_bytes()
        digest.update(f"{file.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)


def _imported(notebook: NotebookNode) -> set[str]:
    """Dotted names under the package that the cells import: `from a.b import c` gives `a.b.c`."""
    names: set[str] = set()
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] == PACKAGE}


def _resolve(root: Path, dotted: str, modules: set[str]) -> list[str]:
    """The modules that a dotted name loads: itself, or the module it is a name of and that name's home."""
    name = None
    while dotted not in modules:
        dotted, _, name = dotted.rpartition(".")
    return [dotted, *_homes(root, dotted, modules, name)]


def _ancestors(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _homes(root: Path, package: str, modules: set[str], name: str | None = None) -> set[str]:
    """Where a lazy package's names live, or only the given one; empty for any other module."""
    tree = ast.parse((root / _file(root, package)).read_text(encoding="utf-8"))
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        return set()
    table = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in modules
        for alias in node.names
    }
    return {table[name]} if name in table else set(table.values())


def _file(root: Path, module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if (root / path).is_dir() else path.with_suffix(".py")
