"""What came out, with its uncertainty: intervals and preference metrics by TRL's names."""

from coala_lib.evaluate.curves import band, deepest_fall, smooth
from coala_lib.evaluate.intervals import mean_interval
from coala_lib.evaluate.margins import preference_metrics
from coala_lib.evaluate.reliability import prefix_reliability

__all__ = ["band", "deepest_fall", "mean_interval", "preference_metrics", "prefix_reliability", "smooth"]
