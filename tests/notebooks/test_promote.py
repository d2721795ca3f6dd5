"""Two forced runs give the same bytes; a real change replaces everything; a failed run costs nothing."""

import json

import nbformat
import pytest

PAIR = ("notebooks/01_alpha.ipynb", "book/records/laptop/alpha.json")


@pytest.fixture
def single(toy):
    """The throw-away book with one chapter."""
    (toy.root / "notebooks" / "02_beta.md").unlink()
    toy.edit("notebooks/presets/smoke.yml", "beta: {grid: {seed: [1, 2]}}", "")
    toy.edit("notebooks/presets/schema.yml", "beta: *rules", "")
    return toy


def _promote(toy, *, after_run: bool) -> list[bytes]:
    for command in [["run", "alpha", "--no-progress"]] * after_run + [["promote"]]:
        done = toy.command(*command)
        assert done.returncode == 0, done.stderr
    return toy.bytes_of(*PAIR)


def test_promotion(single) -> None:
    toy = single
    first = _promote(toy, after_run=True)
    assert _promote(toy, after_run=True) == first

    notebook = nbformat.reads(first[0].decode(), as_version=4)
    nbformat.validate(notebook)
    assert "papermill" not in first[0].decode()
    assert "<object at 0x0>" in first[0].decode()
    assert "noise" not in str([cell.get("outputs") for cell in notebook.cells])
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3]
    assert set(notebook.metadata.coala) == {"code_hash", "library_hash", "preset", "device"}
    assert notebook.metadata.language_info.pygments_lexer == "ipython3"
    assert toy.command("sync", "--check").returncode == 0

    toy.edit("notebooks/01_alpha.md", "Prose.", "Better prose.")
    after_prose = _promote(toy, after_run=False)
    assert after_prose[0] == first[0].replace(b"Prose.", b"Better prose.").replace(
        *[_prose_id(content).encode() for content in (first[0], after_prose[0])]
    )
    assert after_prose[1] == first[1]

    toy.edit("coala_lib/alpha.py", "seed + reg", "seed + reg + 1")
    changed = _promote(toy, after_run=True)
    assert b"answer 1.5" in changed[0]
    old, new = (json.loads(content) for content in (first[1], changed[1]))
    assert old["started"] != new["started"]
    assert changed[0].count(_volatile_output(first[0])) == 0


def _prose_id(content: bytes) -> str:
    cells = nbformat.reads(content.decode(), as_version=4).cells
    return next(cell.id for cell in cells if cell.source.lower().endswith("prose."))


def _volatile_output(content: bytes) -> bytes:
    """The clock that the cell tagged `volatile` printed."""
    return nbformat.reads(content.decode(), as_version=4).cells[-1].outputs[0].text.strip().encode()


def test_a_failed_run_keeps_the_former_one_and_says_where_it_failed(toy) -> None:
    results = ("_build/runs/laptop/01_alpha.ipynb", "_build/records/laptop/alpha.json")
    assert toy.command("run", "alpha").returncode == 0
    before = toy.bytes_of(*results)
    toy.edit("notebooks/01_alpha.md", 'print("answer", ', 'print("answer", 1 / 0, ')
    done = toy.command("run", "alpha", "--no-progress")
    failed = toy.root / "_build/runs/laptop/01_alpha.failed.ipynb"
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert str(failed) in done.stderr
    assert "ZeroDivisionError" in failed.read_text()
    assert toy.bytes_of(*results) == before
    assert toy.command("promote").returncode == 1  # the former run is of other code

    toy.edit("notebooks/01_alpha.md", "1 / 0, ", "")
    assert toy.command("run", "alpha").returncode == 0
    assert not failed.exists()


def test_a_chapter_must_leave_a_record_of_its_run(toy) -> None:
    toy.edit("notebooks/01_alpha.md", "write_record(", "len(")
    toy.edit("notebooks/01_alpha.md", 'len("alpha", {', "len({")
    done = toy.command("run", "alpha", "--no-progress")
    assert (done.returncode, "wrote no record" in done.stderr) == (1, True)

    toy.edit("notebooks/02_beta.md", '"reg": reg', '"reg": 0.75')
    done = toy.command("run", "beta", "--no-progress")
    assert (done.returncode, "its record says parameters" in done.stderr) == (1, True)
