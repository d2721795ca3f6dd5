"""The preference objective, its solver, and the head that joins them to the convex network."""

from coala_lib.preference.head import CoalaHead
from coala_lib.preference.objectives import Objective, from_rows, pairwise, pointwise
from coala_lib.preference.phase_two import PhaseTwo, PhaseTwoStatus, fit_phase_two, minimise
from coala_lib.preference.printed import Eq8
from coala_lib.preference.separability import Separability, separability

__all__ = [
    "CoalaHead",
    "Eq8",
    "Objective",
    "PhaseTwo",
    "PhaseTwoStatus",
    "Separability",
    "fit_phase_two",
    "from_rows",
    "minimise",
    "pairwise",
    "pointwise",
    "separability",
]
