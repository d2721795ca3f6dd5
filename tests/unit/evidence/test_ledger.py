"""The ledger's schema, and the ledger itself."""

import re
from pathlib import Path

import pytest
import yaml

from coala_lib.evidence.ledger import KINDS, find_ledger, load, look_up

ROOT = Path(__file__).resolve().parents[3]
RULE = {"metric": "solver/gap", "says": "the gap is small", "op": "<=", "value": 0.1}
ROW = {
    "id": "coala.eq1",
    "source": {"paper": "coala", "where": "§3.1"},
    "kind": "equation",
    "statement": "s",
    "checkable": "on a laptop",
    "check": "c",
    "finding": "f",
    "data": {"gap": 0.2, "range": [0.1, 0.3], "word": "high", "by_beta": {"0.5": 1.25}},
}


def ledger(folder: Path, *rows: dict) -> Path:
    path = folder / "claims.yml"
    path.write_text(yaml.safe_dump(list(rows)), encoding="utf-8")
    return path


def row_with(**changes: object) -> dict:
    return {**ROW, "chapter": "toy", "test": [{**RULE, **changes}]}


def test_the_ledger_has_every_numbered_item_of_the_papers() -> None:
    claims = load(ROOT / "book" / "claims.yml")
    expected = {f"coala.eq{i}" for i in range(1, 10)} | {f"coala.table{i}" for i in range(1, 12)}
    expected |= {
        "coala.tableG1",
        "coala.tableG2",
        "coala.prop1",
        "coala.thm1",
        "coala.thm2",
        "coala.alg1",
        "coala.alg2",
    }
    expected |= {"coala.fig1", "coala.fig2", "coala.fig3", "dpoconvex.table1", "dpoconvex.figs", "dpoconvex.eq5"}
    assert expected <= set(claims)
    assert len(claims) >= 83, "a row was dropped"
    assert {claim.kind for claim in claims.values()} == set(KINDS)


def test_every_paper_of_the_ledger_is_in_the_bibliography() -> None:
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M)
    assert {claim.source.paper for claim in load(ROOT / "book" / "claims.yml").values()} <= set(keys)
    assert len(keys) == len(set(keys))


def test_every_chapter_named_by_the_ledger_exists() -> None:
    chapters = {re.sub(r"^\d+_", "", path.stem) for path in (ROOT / "notebooks").glob("*_*.md")}
    assert {claim.chapter for claim in load(ROOT / "book" / "claims.yml").values() if claim.chapter} <= chapters


def test_formulas_of_the_ledger_are_closed() -> None:
    for claim in load(ROOT / "book" / "claims.yml").values():
        for text in (claim.statement, claim.check, claim.finding):
            assert text.count("$") % 2 == 0, claim.id
            for formula in re.findall(r"\$([^$]*)\$", text):
                assert formula.count("{") == formula.count("}"), (claim.id, formula)


def test_the_ledger_is_found_from_here_and_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_ledger() == ROOT / "book" / "claims.yml"
    (tmp_path / "book").mkdir()
    assert find_ledger() == ROOT / "book" / "claims.yml"
    ledger(tmp_path / "book", ROW)
    assert find_ledger() == tmp_path / "book" / "claims.yml"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({**ROW, "verdict": "reproduced"}, "row coala.eq1: verdict: Extra inputs"),
        ({**ROW, "kind": "lemma"}, "row coala.eq1: kind"),
        ({**ROW, "source": {"paper": "nobody", "where": "§1"}}, "row coala.eq1: source.paper"),
        ({**ROW, "min_preset": "cluster"}, "row coala.eq1: min_preset"),
        ({key: value for key, value in ROW.items() if key != "finding"}, "row coala.eq1: finding: Field required"),
        ({**ROW, "test": []}, "row coala.eq1: test"),
        ({**ROW, "test": [RULE]}, "names the `chapter`"),
        ({**row_with(), "cannot": "no people"}, "not both"),
        (row_with(metric=""), "test.0.metric"),
        (row_with(says=""), "test.0.says"),
        (row_with(op="=="), "test.0.op"),
        (row_with(field="median"), "test.0.field"),
        (row_with(tolerance=-0.1), "test.0.tolerance"),
        (row_with(bound=1), "test.0.bound: Extra inputs"),
        (row_with(value=float("nan")), "test.0.value"),
        (row_with(value={"published": "no.such.path"}), "has no number at 'no.such.path'"),
        (row_with(value={"published": "word"}), "has no number at 'word'"),
        (row_with(value={"published": "range"}), 'an interval, which is for "between"'),
        (row_with(value=[0.1, 0.3]), 'is for "between"'),
        (row_with(op="between", value=[0.3, 0.1]), "lower end first"),
        ("text", "row number 1"),
    ],
)
def test_a_wrong_row_is_refused_by_name(tmp_path: Path, row: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load(ledger(tmp_path, row))


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="duplicate id") as caught:
        load(ledger(tmp_path, ROW, {**ROW, "id": "coala.eq2", "kind": "lemma"}, ROW))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all("claims.yml: row coala.eq" in line for line in lines)


def test_a_ledger_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "claims.yml"
    path.write_text("rows: 3\n")
    with pytest.raises(ValueError, match="a list of rows"):
        load(path)


def test_dotted_paths_reach_numbers_pairs_and_keys_with_dots() -> None:
    assert look_up(ROW["data"], "gap") == 0.2
    assert look_up(ROW["data"], "range") == (0.1, 0.3)
    assert look_up(ROW["data"], "range.1") == 0.3
    assert look_up(ROW["data"], "by_beta.0.5") == 1.25
