"""Evidence: records of runs, the ledger of claims, and the verdicts computed from both.

The names below are imported on first use, so that reading the ledger does not start JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # also how tools that read imports see what a chapter depends on
    from coala_lib.evidence.claims import VERDICTS, Box, Verdict, box, judge, judge_all
    from coala_lib.evidence.ledger import Claim, Rule, load
    from coala_lib.evidence.records import (
        Curve,
        Metric,
        Record,
        Seconds,
        Stopwatch,
        describe_device,
        make_record,
        peak_bytes,
        read,
        read_all,
        thin,
        write,
    )

__all__ = [
    "VERDICTS", "Box", "Claim", "Curve", "Metric", "Record", "Rule", "Seconds", "Stopwatch", "Verdict", "box",
    "describe_device", "judge", "judge_all", "load", "make_record", "peak_bytes", "read", "read_all", "thin", "write",
]  # fmt: skip
_LEDGER = {"Claim", "Rule", "load"}
_CLAIMS = {"VERDICTS", "Box", "Verdict", "box", "judge", "judge_all"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'coala_lib.evidence' has no attribute {name!r}")
    module = "ledger" if name in _LEDGER else "claims" if name in _CLAIMS else "records"
    return getattr(import_module(f"coala_lib.evidence.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
