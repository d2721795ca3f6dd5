"""The audit on public preference data: writes the JSON that the chapter on preference data shows.

    python -m benchmarks.real_data_audit FOLDER

FOLDER holds the data sets of `DATA` as parquet files, which do not belong to this repository. Only counts, rates and
intervals leave this script, never a text. Rows without a conversation of their own are grouped by prompt, so that no
prompt stands on both sides of a split.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from benchmarks import results
from coala_lib.corpora.alternating import alternate_any
from coala_lib.corpora.audit import audit, both_sides
from coala_lib.corpora.conversation import Conversation
from coala_lib.corpora.probes import overlap, right, text, words, words_and_overlap
from coala_lib.corpora.rates import gain, rate
from coala_lib.corpora.triplets import Triplet, split
from coala_lib.corpora.validation import sift

TARGET = Path(__file__).parents[1] / "notebooks" / "fixtures" / "real_data_audit.json"
# name -> (file, column and value that select its rows, source, licence)
DATA: dict[str, tuple[str, tuple[str, str] | None, str, str]] = {
    "CIMA, alternating": ("tutoring/dialogues.parquet", ("dataset", "cima"), "github.com/kstats/CIMA", "CC BY 2.5"),
    "MathDial, alternating": (
        "tutoring/dialogues.parquet",
        ("dataset", "mathdial"),
        "github.com/eth-nlped/mathdial, test",
        "CC BY-SA 4.0",
    ),
    "HH-RLHF helpful": (
        "hh_rlhf/hh_rlhf_test.parquet",
        ("subset", "helpful-base"),
        "github.com/anthropics/hh-rlhf, helpful-base, test",
        "MIT",
    ),
    "HH-RLHF harmless": (
        "hh_rlhf/hh_rlhf_test.parquet",
        ("subset", "harmless-base"),
        "github.com/anthropics/hh-rlhf, harmless-base, test",
        "MIT",
    ),
    "UltraFeedback": (
        "ultrafeedback/ultrafeedback_binarized_sample.parquet",
        None,
        "trl-lib/ultrafeedback_binarized, a random sample",
        "MIT",
    ),
}


def read(folder: Path, name: str) -> tuple[list[Triplet], dict[str, Any]]:
    """The rows of one data set, and how they were counted."""
    file, selection, _, _ = DATA[name]
    table = pd.read_parquet(folder / file)
    if selection:
        table = table[table[selection[0]] == selection[1]]
    if "turns" in table:
        talks = [
            Conversation(f"{k}", tuple({"role": turn["role"], "content": turn["text"]} for turn in turns))
            for k, turns in enumerate(table["turns"])
        ]
        triplets, report = alternate_any(talks, source=name, student="student", tutor="tutor")
        return triplets, {"conversations": report.conversations, "replies": report.replies, "ties": report.ties}
    given = table[["prompt", "chosen", "rejected"]].to_dict("records")
    triplets, report = sift(given)
    for row in triplets:
        row["conversation_id"] = hashlib.sha256(text(row, "prompt").encode()).hexdigest()
    return triplets, {"rows": report.rows}


def audited(folder: Path, name: str) -> dict[str, Any]:
    """One data set's line."""
    triplets, counts = read(folder, name)
    report, (train, test) = audit(triplets), split(triplets, 0.5, 0)
    groups = [row["conversation_id"] for row in test]
    hits = {probe.__name__: right(probe(train, test)) for probe in (words, overlap, words_and_overlap)}
    rates = {name: rate(found, groups).summary() for name, found in hits.items()}
    rates["gain"] = gain(hits["words_and_overlap"], hits["words"], groups)
    _, _, source, licence = DATA[name]
    return {
        "source": source,
        "licence": licence,
        "counts": counts | {"triplets": len(triplets), "groups": len({row["conversation_id"] for row in triplets})},
        "both_sides": float(both_sides(triplets).mean()),
        "findings": {
            f.name: {"value": f.value, "low": f.low, "high": f.high, "p": f.p, "verdict": f.verdict}
            for f in report.findings
        },
        "rates": rates,
    }


def main(folder: Annotated[Path, typer.Argument(help="holds the data sets")], target: Path = TARGET) -> None:
    """Audit every data set and write the aggregates."""
    rows = {}
    for name in DATA:
        rows[name] = audited(folder, name)
        typer.echo(f"{name}: {rows[name]['counts']}")
    found = results.dated("benchmarks/real_data_audit.py") | {"data": rows}
    results.write(target, found)


if __name__ == "__main__":
    typer.run(main)
