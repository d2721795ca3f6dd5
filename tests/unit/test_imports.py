"""Which library files a chapter stands on."""

import ast
import importlib
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from coala_lib.workflow.imports import content_hash, library_files

ROOT = Path(__file__).resolve().parents[2]


def _files(*sources: str) -> set[str]:
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    return {path.as_posix() for path in library_files(ROOT, notebook)}


def test_no_import_no_files() -> None:
    assert _files("import numpy as np") == set()


def test_a_module_brings_its_packages_and_imports() -> None:
    files = _files("from coala_lib.evidence.records import write")
    assert {
        "coala_lib/__init__.py",
        "coala_lib/evidence/__init__.py",
        "coala_lib/evidence/records.py",
        "coala_lib/_files.py",
    } <= files
    assert not any("cvxnn" in file or "claims" in file for file in files)


def test_an_eager_package_brings_all_it_imports() -> None:
    files = _files("import coala_lib.cvxnn.gates")
    assert {"coala_lib/cvxnn/gates.py", "coala_lib/cvxnn/cronos.py", "coala_lib/solution.py"} <= files


@pytest.mark.parametrize("source", ["from coala_lib import CoalaHead", "import coala_lib", "from coala_lib import *"])
def test_lazy_names_lead_to_their_home(source: str) -> None:
    assert {"coala_lib/preference/head.py", "coala_lib/cvxnn/program.py"} <= _files(source)


def test_only_the_home_of_a_lazy_name_is_followed() -> None:
    files = _files("from coala_lib.evidence import Metric")
    assert "coala_lib/evidence/records.py" in files
    assert "coala_lib/evidence/claims.py" not in files


LAZY = [path for path in sorted((ROOT / "coala_lib").rglob("__init__.py")) if "__getattr__" in path.read_text()]


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_lazy_packages_say_where_each_name_lives(path: Path) -> None:
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    declared = {
        alias.name: node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name in package.__all__:
        assert vars(importlib.import_module(declared[name]))[name] is getattr(package, name)


def test_magics_and_inner_imports_are_read() -> None:
    source = "%matplotlib inline\ndef f():\n    from coala_lib import solution"
    assert _files(source) == {"coala_lib/__init__.py", "coala_lib/solution.py"}


def test_hash_follows_content_and_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    first = content_hash(tmp_path, [Path("a")])
    assert first != content_hash(tmp_path, [Path("b")])
    (tmp_path / "a").write_text("2")
    assert first != content_hash(tmp_path, [Path("a")])
