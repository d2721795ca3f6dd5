"""Imports point down, and heavy packages stay where they belong."""

from pathlib import Path

import grimp
import pytest

from coala_lib.workflow import chapters, imports

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [  # from the top; a layer may import those below it
    {"workflow", "cli"},
    {"reward_model", "rows"},
    {"evaluate"},
    {"lm"},
    {"preference", "corpora", "evidence"},
    {"cvxnn"},
    {"solution", "_device", "_files"},
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "coala_lib", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def _part(module: str) -> str:
    return module.split(".")[1]


def _pairs(graph: grimp.ImportGraph) -> set[tuple[str, str]]:
    """Which part of the library imports which other, directly."""
    inner = [module for module in graph.modules if module.startswith("coala_lib.")]
    return {
        (_part(module), _part(target))
        for module in inner
        for target in graph.find_modules_directly_imported_by(module)
        if target.startswith("coala_lib.") and _part(target) != _part(module)
    }


def test_every_part_has_a_layer(graph: grimp.ImportGraph) -> None:
    assert {_part(child) for child in graph.find_children("coala_lib")} <= set().union(*LAYERS)


def test_imports_point_down(graph: grimp.ImportGraph) -> None:
    height = {part: -number for number, layer in enumerate(LAYERS) for part in layer}
    pairs = _pairs(graph)
    assert ("preference", "cvxnn") in pairs
    assert [pair for pair in sorted(pairs) if height[pair[0]] <= height[pair[1]]] == []


@pytest.mark.parametrize(
    ("package", "home"), [("transformers", "lm"), ("flax", "lm"), ("datasets", "corpora"), ("papermill", "workflow")]
)
def test_heavy_packages_have_one_importer(graph: grimp.ImportGraph, package: str, home: str) -> None:
    importers = graph.find_modules_that_directly_import(package) if package in graph.modules else set()
    assert {_part(module) for module in importers} <= {home}


def test_the_head_needs_no_language_model(graph: grimp.ImportGraph) -> None:
    upstream = graph.find_upstream_modules("coala_lib.preference", as_package=True)
    assert "jax" in upstream
    assert upstream.isdisjoint({"transformers", "flax", "datasets"})


@pytest.mark.parametrize("chapter", chapters.find(ROOT), ids=lambda chapter: chapter.slug)
def test_no_chapter_imports_the_workflow(chapter: chapters.Chapter) -> None:
    files = imports.library_files(ROOT, chapters.read(chapter))
    assert files
    assert [file for file in files if "workflow" in file.parts] == []
