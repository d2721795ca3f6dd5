"""What Phase II refuses."""

import numpy as np
import pytest

from coala_lib.preference import PhaseTwoStatus, fit_phase_two, from_rows, minimise, pairwise, pointwise, separability

A, ANCHOR = np.random.default_rng(0).normal(size=(20, 3)), np.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": -1.0}, "beta must be positive, ridge not negative"),
        ({"ridge": float("nan")}, "beta must be positive, ridge not negative"),
        ({"beta": -1.0}, "beta must be positive, ridge not negative"),
        ({"beta": float("inf")}, "beta must be positive, ridge not negative"),
        ({"smoothing": 0.5}, r"smoothing in \[0, 1/2\)"),
        ({"anchor": np.zeros(2)}, r"with A of shape \(20, 3\), anchor must be \(3,\)"),
        ({"weights": np.ones(3)}, r"weights \(20,\)"),
        ({"weights": np.zeros(20)}, "weights must not be negative, nor all zero"),
        ({"margin": np.zeros(3)}, r"margin one number or \(20,\)"),
        ({"A": A[:0]}, r"A must be \(N, m\), not empty"),
        ({"A": np.where(A > 1, np.nan, A)}, "must be finite"),
        ({"anchor": np.full(3, np.inf)}, "must be finite"),
        ({"margin": float("nan")}, "must be finite"),
        ({"method": "sgd"}, "method must be one of newton, agd, lbfgs, adamw"),
        ({"tol": 0.0}, "tol must be positive"),
    ],
)
def test_refusals(change, message, without_annotations):
    with pytest.raises(ValueError, match=message):
        fit_phase_two(**({"A": A, "anchor": ANCHOR} | change))


def test_other_refusals(without_annotations):
    with pytest.raises(ValueError, match=r"start must be \(3,\) finite numbers"):
        minimise(from_rows(A), np.zeros(2))
    with pytest.raises(ValueError, match="must pair up"):
        pairwise(A, A[:3])
    with pytest.raises(ValueError, match="labels"):
        pointwise(A, np.arange(20))
    with pytest.raises(ValueError, match="leaves nothing to fit"):
        from_rows(A).without(range(20))
    with pytest.raises(ValueError, match="finite"):
        separability(np.full((2, 2), np.nan))


SQUARE = np.array([[1.0, 1.0], [1.0, -1.0]])


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (SQUARE, "complete"),
        (np.concatenate([SQUARE, -SQUARE]), "none"),
        (np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), "quasi"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), "quasi"),
        (np.zeros((3, 2)), "none"),
        (1e-6 * SQUARE, "complete"),
        # as many features as pairs: always separable
        (np.random.default_rng(0).normal(size=(8, 8)), "complete"),
    ],
)
def test_separability_and_what_phase_two_says_of_it(rows, kind):
    found = separability(rows)
    assert found.kind == kind
    assert (found.margin > 0) == (kind == "complete")
    if kind != "none":
        ahead = rows @ found.direction
        assert ahead.min() >= -1e-9
        assert ahead.max() > 0
        assert np.linalg.norm(found.direction) == pytest.approx(1)
    fitted = fit_phase_two(rows, np.zeros(rows.shape[1]), ridge=1e-3)
    assert fitted.status is PhaseTwoStatus.SOLVED
    assert ("without the ridge no minimum exists" in fitted.message) == (kind != "none")
    bare = fit_phase_two(rows, np.zeros(rows.shape[1]), ridge=0.0, max_iter=20)
    assert (bare.status is PhaseTwoStatus.NO_MINIMUM) == (kind != "none")
    assert bare.bound == np.inf
    # label smoothing makes the loss grow both ways: then there is a minimum
    assert fit_phase_two(rows, np.zeros(rows.shape[1]), ridge=0.0, smoothing=0.1).status is PhaseTwoStatus.STATIONARY
