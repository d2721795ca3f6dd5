"""The ledger: one row for every numbered equation, theorem, algorithm, table, figure and headline number.

`book/claims.yml` holds the rows; nothing in it says how a run ended. A row with a `test` lists rules: each compares
one metric of a run's record with a number, with a number the paper printed (by its path in the row's `data`), or
with another metric of the same run. The schema is checked on reading, and every fault names its row.
"""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, ValidationError, model_validator

Kind = Literal["equation", "theorem", "algorithm", "claim", "table", "figure"]
Preset = Literal["smoke", "laptop", "gpu", "paper"]
KINDS: tuple[str, ...] = get_args(Kind)
PRESETS: tuple[str, ...] = get_args(Preset)

Finite = Annotated[float, AllowInfNan(False)]
Text = Annotated[str, Field(min_length=1)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Row):
    """Where a claim stands: the paper's key in the bibliography, and the place in it."""

    paper: Literal["coala", "coala_abstract", "dpoconvex"]
    where: Text


class Published(_Row):
    """A number the paper printed, by its dotted path into the row's `data` ("rows.0.3")."""

    published: Text


class OtherMetric(_Row):
    """Another metric of the same run; `field` picks its value or an end of its interval."""

    metric: Text
    field: Literal["value", "low", "high"] = "value"


class Rule(_Row):
    r"""One comparison: the measured number against a bar, with a relative tolerance.

    With bar $b$ and tolerance $\tau$, "<=" holds where $x\le b+\tau|b|$, ">=" where $x\ge b-\tau|b|$;
    "between" holds where $|x-b|\le\tau|b|$, or, for a pair $[l,h]$, where $l-\tau|l|\le x\le h+\tau|h|$.

    Attributes:
        metric: name of the measured metric in the run's record.
        says: one phrase for the reader ("the duality gap is at most 1e-3 of the optimum").
        op: the comparison.
        value: the bar: a number, a pair for "between", a published number, or another metric of the run.
        field: the metric's estimate, or the end of its interval the rule must hold for.
        tolerance: relative slack on the bar.
    """

    metric: Text
    says: Text
    op: Literal["<=", "<", ">=", ">", "between"]
    value: Finite | tuple[Finite, Finite] | Published | OtherMetric
    field: Literal["value", "low", "high"] = "value"
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _pairs_are_ordered_intervals(self) -> "Rule":
        if isinstance(self.value, tuple) and (self.op != "between" or self.value[0] > self.value[1]):
            raise ValueError(f'a pair such as {list(self.value)} is for "between", lower end first')
        return self


class Claim(_Row):
    """One row of the ledger; the comment at the top of `book/claims.yml` explains every field."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.\-]*$")]
    source: Source
    kind: Kind
    statement: Text
    checkable: Text
    check: Text
    finding: Text
    data: dict[str, Any] = Field(default_factory=dict)
    chapter: str | None = None
    min_preset: Preset = "laptop"
    test: Annotated[list[Rule], Field(min_length=1)] | None = None
    cannot: Text | None = None

    @model_validator(mode="after")
    def _rules_name_something(self) -> "Claim":
        if self.test and self.cannot:
            raise ValueError("a row has a `test` or says why it `cannot` be tested, not both")
        if self.test and not self.chapter:
            raise ValueError("a row with a `test` names the `chapter` that runs it")
        for rule in self.test or []:
            bar = rule.value
            if isinstance(bar, Published):
                published = look_up(self.data, bar.published)
                if isinstance(published, tuple) and rule.op != "between":
                    raise ValueError(f'the published {bar.published} is an interval, which is for "between"')
        return self


def look_up(data: Any, path: str) -> float | tuple[float, float]:
    """The number (or pair) at a dotted path into a row's `data`; keys may hold dots themselves.

    Args:
        data: nested dicts and lists, as YAML gives them.
        path: keys and list positions joined by dots.

    Returns:
        The number, or the pair for an interval.

    Raises:
        ValueError: where the path leads to neither.

    Example:
        >>> look_up({"gap": {"0.5": [1e-9, 2e-9]}}, "gap.0.5.1")
        2e-09
    """

    def walk(node: Any, parts: list[str]) -> Iterable[Any]:
        if not parts:
            yield node
        elif isinstance(node, list) and parts[0].isdigit() and int(parts[0]) < len(node):
            yield from walk(node[int(parts[0])], parts[1:])
        elif isinstance(node, Mapping):
            for cut in range(1, len(parts) + 1):
                key = ".".join(parts[:cut])
                if key in node:
                    yield from walk(node[key], parts[cut:])

    found = next(iter(walk(data, path.split("."))), None)
    values = found if isinstance(found, list) else [found]
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in values):
        raise ValueError(f"the row's data has no number at {path!r}")
    if isinstance(found, list):
        if len(found) != 2:
            raise ValueError(f"the row's data at {path!r} is neither a number nor a pair")
        return float(found[0]), float(found[1])
    return float(values[0])


def find_ledger() -> Path:
    """`book/claims.yml` of the repository, searched upwards from the working directory, then from this package.

    Raises:
        FileNotFoundError: where neither walk meets one.
    """
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "book" / "claims.yml").is_file():
                return folder / "book" / "claims.yml"
    raise FileNotFoundError("no book/claims.yml above here; pass the path of the ledger")


def load(path: str | os.PathLike[str] | None = None) -> dict[str, Claim]:
    """Read and validate the ledger.

    Args:
        path: the file; by default the repository's `book/claims.yml`.

    Returns:
        Claim id -> `Claim`, in the order of the file.

    Raises:
        ValueError: one line per fault, each naming the file and the row: unknown fields or kinds, duplicate ids,
            a rule whose published number does not exist.

    Example:
        >>> claims = load()
        >>> claims["coala.eq9"].kind
        'equation'
    """
    path = Path(path) if path is not None else find_ledger()
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError(f"{path}: the ledger is a list of rows")
    claims: dict[str, Claim] = {}
    faults: list[str] = []
    for number, row in enumerate(rows, start=1):
        name = row.get("id", f"number {number}") if isinstance(row, dict) else f"number {number}"
        try:
            claim = Claim.model_validate(row)
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in fault["loc"])
                faults.append(
                    f"{path}: row {name}: {place + ': ' if place else ''}{fault['msg'].removeprefix('Value error, ')}"
                )
            continue
        if claim.id in claims:
            faults.append(f"{path}: row {name}: duplicate id")
        claims[claim.id] = claim
    if faults:
        raise ValueError("\n".join(faults))
    return claims
