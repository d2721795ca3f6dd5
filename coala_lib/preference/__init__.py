"""The preference objective, its solver, and the head that joins them to the convex network."""

from coala_lib.preference.head import CoalaHead
from coala_lib.preference.objectives import coala_loss
from coala_lib.preference.phase_two import PhaseTwo, fit_phase_two

__all__ = ["CoalaHead", "PhaseTwo", "coala_loss", "fit_phase_two"]
