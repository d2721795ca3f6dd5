"""What Phase II refuses."""

import numpy as np
import pytest

from coala_lib.preference import fit_phase_two

A, ANCHOR = np.random.default_rng(0).normal(size=(20, 3)), np.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 0.0}, "ridge and beta must be positive"),
        ({"ridge": float("nan")}, "ridge and beta must be positive"),
        ({"beta": -1.0}, "ridge and beta must be positive"),
        ({"beta": float("inf")}, "ridge and beta must be positive"),
        ({"anchor": np.zeros(2)}, r"A must be \(N, m\) with anchor \(m,\)"),
        ({"A": A[:0]}, "neither empty"),
        ({"A": np.where(A > 1, np.nan, A)}, "must be finite"),
        ({"anchor": np.full(3, np.inf)}, "must be finite"),
        ({"margin": float("nan")}, "must be finite"),
    ],
)
def test_refusals(change, message, without_annotations):
    with pytest.raises(ValueError, match=message):
        fit_phase_two(**({"A": A, "anchor": ANCHOR} | change))
