"""What became of the rows of a source: how many are good, which are bad and why, what a rule left out."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coala_lib.corpora.splitting import find_duplicates, prompt_keys
from coala_lib.corpora.triplets import FIELDS, BadRow, Triplet


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row.

    Attributes:
        row: its number, from 0.
        field: the column at fault; "" where the row as a whole is.
        what: what is wrong, and what to do.
    """

    row: int
    field: str
    what: str

    def __str__(self) -> str:
        return f"row {self.row}: {BadRow(self.field, self.what)}"


@dataclass(frozen=True)
class Report:
    """What became of the rows of one source.

    Attributes:
        source: the file's path, or "rows".
        dialect: the dialect they were read as.
        rows: rows read.
        triplets: good triplets.
        problems: the bad rows, in order.
        left_out: rule -> rows (HelpSteer: prompts) that state no preference under it.
        prompts: different prompts among the good triplets.
        duplicates: good triplets that repeat an earlier one, case and white space aside.
        contradictions: good triplets that state the opposite of an earlier one.
        ties: good triplets whose two sides have equal scores.
        echoes: good triplets whose two sides both begin with the last message of the prompt: a trainer repeats it.
        templated: good triplets with the marks of a chat template in their text: a trainer writes them again.
    """

    source: str
    dialect: str
    rows: int
    triplets: int
    problems: tuple[Problem, ...]
    left_out: dict[str, int]
    prompts: int
    duplicates: int
    contradictions: int
    ties: int
    echoes: int
    templated: int

    @property
    def ok(self) -> bool:
        """Whether no row is bad."""
        return not self.problems

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """(field, what is wrong) -> how many rows, the most frequent first."""
        return dict(Counter((problem.field, problem.what) for problem in self.problems).most_common())

    def lines(self) -> list[str]:
        """The report in sentences, one a line."""
        return [
            f"{self.source}: {self.rows} rows read as {self.dialect!r}, {self.triplets} good triplets, "
            f"{len(self.problems)} bad rows",
            *(
                f"{n} x {BadRow(*key)} (first: row {next(p.row for p in self.problems if (p.field, p.what) == key)})"
                for key, n in self.counts.items()
            ),
            *(f"{n} left out: {reason}" for reason, n in self.left_out.items()),
            f"{self.prompts} different prompts, {self.duplicates} repeated triplets, {self.contradictions} "
            f"contradictions, {self.ties} ties, {self.echoes} with the prompt in both replies, {self.templated} with "
            "marks of a chat template",
        ]


_TEMPLATE = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|user|assistant|system|eot_id)\|>|\[/?INST\]|<start_of_turn>"
)


def _echoes(triplet: Triplet) -> bool:
    asked = triplet["prompt"][-1]["content"].strip()
    return all(triplet[side][0]["content"].lstrip().startswith(asked) for side in ("chosen", "rejected"))


def _templated(triplet: Triplet) -> bool:
    return any(_TEMPLATE.search(message["content"]) for field in FIELDS for message in triplet[field])


def make_report(
    source: str,
    dialect: str,
    rows: int,
    triplets: Sequence[Triplet],
    problems: Sequence[Problem],
    left_out: Counter[str],
) -> Report:
    """A report with what can be counted on the good triplets themselves.

    Args:
        source, dialect, rows, problems, left_out: see `Report`.
        triplets: the good triplets.

    Returns:
        The `Report`.
    """
    repeated = find_duplicates(triplets, normalised=True)
    return Report(
        source=source,
        dialect=dialect,
        rows=rows,
        triplets=len(triplets),
        problems=tuple(problems),
        left_out=dict(left_out),
        prompts=len(set(prompt_keys(triplets))),
        duplicates=sum(not duplicate.reversed for duplicate in repeated),
        contradictions=sum(duplicate.reversed for duplicate in repeated),
        ties=sum(t.get("score_chosen") is not None and t["score_chosen"] == t.get("score_rejected") for t in triplets),
        echoes=sum(map(_echoes, triplets)),
        templated=sum(map(_templated, triplets)),
    )
