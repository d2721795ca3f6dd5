"""What came out, with its uncertainty: intervals and preference metrics by TRL's names."""

from coala_lib.evaluate.intervals import mean_interval
from coala_lib.evaluate.margins import preference_metrics

__all__ = ["mean_interval", "preference_metrics"]
