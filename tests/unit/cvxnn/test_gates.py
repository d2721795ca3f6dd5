"""Gates: seeded, distinct, not empty; all of them where they can be listed."""

import numpy as np
import pytest

from coala_lib.cvxnn import count_patterns, enumerate_gates, sample_gates

X = np.random.default_rng(0).normal(size=(30, 4))


def patterns_of(X, gates):
    return {(X @ gates[:, i] >= 0).tobytes() for i in range(gates.shape[1])}


@pytest.mark.parametrize(
    ("features", "n", "message"),
    [
        (X, 0, "n_gates must be at least 1; got 0"),
        (X[:0], 4, "X must be a finite matrix with rows and columns"),
        (np.where(X[3, 2] == X, np.nan, X), 4, "X must be a finite matrix"),
        (np.zeros((5, 3)), 4, "are all rows of X zero"),
    ],
)
def test_sampling_refuses(features, n, message):
    with pytest.raises(ValueError, match=message):
        sample_gates(features, n)


def test_shapes_and_distributions_are_checked(without_annotations):
    with pytest.raises(ValueError, match=r"X must be a finite matrix with rows and columns; got shape \(30,\)"):
        sample_gates(X[:, 0], 4)
    with pytest.raises(ValueError, match="distribution must be 'gaussian' or 'rows'; got 'uniform'"):
        sample_gates(X, 4, distribution="uniform")


@pytest.mark.parametrize("distribution", ["gaussian", "rows"])
def test_gates_are_seeded_distinct_and_not_empty(distribution):
    gates = sample_gates(X, 12, 3, distribution)
    assert gates.dtype == np.float32
    np.testing.assert_array_equal(gates, sample_gates(X, 12, 3, distribution))
    assert not np.array_equal(gates, sample_gates(X, 12, 4, distribution))
    patterns = (X @ gates >= 0).T
    assert len({p.tobytes() for p in patterns}) == 12
    assert (X @ gates > 0).any(axis=0).all()


def test_rows_draws_differences_of_rows():
    gates = sample_gates(X, 5, distribution="rows")
    single = X.astype(np.float32)
    differences = {tuple(a - b) for a in single for b in single}
    assert {tuple(gate) for gate in gates.T} <= differences


def test_no_search_finds_a_pattern_that_is_not_there():
    # four rows on a line have two patterns, one of them empty
    assert sample_gates(np.arange(1.0, 5.0)[:, None], 20).shape == (1, 1)
    assert sample_gates(np.array([[1.0], [-2.0]]), 20).shape == (1, 2)


@pytest.mark.parametrize(("n", "d"), [(6, 2), (8, 2), (10, 2), (6, 3), (7, 3), (5, 4), (4, 6), (8, 1)])
@pytest.mark.parametrize("seed", range(2))
def test_enumeration_finds_covers_number(n, d, seed):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    gates = enumerate_gates(rows)
    patterns = patterns_of(rows, gates)
    assert len(patterns) == gates.shape[1]
    # the empty pattern is there where the full one is: -h has the complement of h
    empty = np.ones(n, bool).tobytes() in patterns
    assert np.zeros(n, bool).tobytes() not in patterns
    assert len(patterns) + empty == count_patterns(n, min(n, d))
    # and it misses none that sampling finds
    assert patterns_of(rows, sample_gates(rows, 2000, seed).astype(float)) <= patterns


def test_enumeration_takes_what_lies_in_no_general_position():
    grid = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]])
    gates = enumerate_gates(grid)
    # two lines divide the plane in four; the row of zeros is on every side
    assert gates.shape == (2, 4)
    assert (np.abs(grid[[0, 2]] @ gates) > 0.5).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3, 2)), "are all rows of X zero"),
        (np.full((3, 2), np.inf), "X must be a finite matrix"),
        (np.random.default_rng(0).normal(size=(60, 5)), "enumerate_gates lists .*5000.*sample_gates"),
    ],
)
def test_enumeration_refuses(rows, message):
    with pytest.raises(ValueError, match=message):
        enumerate_gates(rows)


def test_counts_of_the_audit():
    assert [count_patterns(*a) for a in ((6, 2), (8, 2), (6, 3), (7, 3), (5, 5), (5, 9))] == [12, 16, 32, 44, 32, 32]
    # far more than any list can hold: about 10^7914 at the paper's scale
    assert count_patterns(131_212, 4096).bit_length() * np.log10(2) == pytest.approx(7914, abs=1.5)
