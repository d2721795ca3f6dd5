"""Records: the schema refuses what does not fit, and a crash loses nothing."""

import json
import math
from pathlib import Path

import jax
import pytest

from coala_lib.evidence import records
from coala_lib.evidence.records import MAX_CURVE_POINTS, Metric, Record, Stopwatch, make_record, read, read_all, thin


def a_record(**changes: object) -> Record:
    clock = Stopwatch()
    with clock("solve"):
        jax.jit(lambda x: x + 1.0)(1.0).block_until_ready()
    made = make_record(
        "toy",
        {"preset": "laptop", "seed": 3, "reg": 0.5},
        {"solver/gap": Metric(value=1e-4, unit="1", low=0.0, high=2e-4, n=5)},
        clock,
        dtype="float32",
        curves={"gap": thin([1.0, 2.0, 3.0], [0.3, 0.2, 0.1], "iteration", "gap")},
    )
    return made.model_copy(update=changes)


def test_a_record_survives_the_round_trip(tmp_path: Path) -> None:
    made = a_record()
    assert read(records.write(made, tmp_path / "laptop" / "toy.json")) == made
    assert made.seeds == [3]
    assert made.seconds["solve"].compile > 0


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    made = a_record()
    paths = [records.write(made, tmp_path / name) for name in ("a.json", "b.json")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"preset": "cluster"},
        {"surprise": 1},
        {"metrics": {"gap": {"value": 1.0}}},
        {"metrics": {"gap": {"value": "high", "unit": "1"}}},
        {"curves": {"gap": {"x": [1], "y": [1]}}},
        {"seconds": {"solve": {"run": 1.0}}},
        {"parameters": {"reg": [1, 2]}},
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({**a_record().model_dump(), **change}))
    with pytest.raises(ValueError, match=r"toy\.json is not a record of schema 1"):
        read(path)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Metric(value=number, unit="1")
    with pytest.raises(ValueError, match="finite"):
        Metric(value=0.0, unit="1", high=number)
    with pytest.raises(ValueError, match="finite"):
        thin([1.0], [number], "x", "y")


def test_a_half_written_file_is_refused(tmp_path: Path) -> None:
    path = records.write(a_record(), tmp_path / "toy.json")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"toy\.json is not a record"):
        read(path)


def test_a_crash_in_the_middle_of_writing_keeps_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = records.write(a_record(), tmp_path / "toy.json")
    before = path.read_bytes()
    whole = Path.write_text

    def half(self: Path, text: str, **options: str) -> int:
        whole(self, text[: len(text) // 2], **options)
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="disk is full"):
        records.write(a_record(chapter="other"), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy.json"]


def test_records_come_by_preset_then_chapter(tmp_path: Path) -> None:
    for preset, chapter in (("gpu", "a"), ("laptop", "b"), ("smoke", "c"), ("laptop", "a")):
        records.write(a_record(preset=preset, chapter=chapter), tmp_path / preset / f"{chapter}.json")
    found = [(record.preset, record.chapter) for record in read_all(tmp_path)]
    assert found == [("smoke", "c"), ("laptop", "a"), ("laptop", "b"), ("gpu", "a")]


def test_where_a_record_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COALA_RECORD", raising=False)
    assert records.write(a_record()) == Path("_build/records/laptop/toy.json")
    monkeypatch.setenv("COALA_RECORD", str(tmp_path / "elsewhere.json"))
    assert records.write(a_record()) == tmp_path / "elsewhere.json"


def test_thinning_keeps_the_ends_and_the_limit() -> None:
    many = [float(i) for i in range(10_000)]
    curve = thin(many, many, "x", "y")
    assert len(curve.x) == MAX_CURVE_POINTS
    assert (curve.x[0], curve.x[-1]) == (0, 9_999)
    assert thin([], [], "x", "y").x == []
    with pytest.raises(ValueError, match="as many x as y"):
        thin([1.0, 2.0], [1.0], "x", "y")


def test_the_committed_records_are_valid() -> None:
    root = Path(__file__).resolve().parents[3]
    for record in read_all(root / "book" / "records"):
        assert record.metrics
