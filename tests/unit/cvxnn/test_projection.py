"""Corners of the projection that a random point does not reach."""

import numpy as np

from coala_lib.cvxnn.operators import features
from coala_lib.cvxnn.projection import project_cones


def test_blocks_inside_and_zero_blocks_stay_as_they_are():
    # scipy's nnls aborts the process when it is given no column
    A = features(np.eye(2), np.ones((2, 1)))
    inside = np.array([[[1.0, 2.0]], [[0.0, 0.0]]])
    np.testing.assert_array_equal(project_cones(A, inside), inside)


def test_rows_of_zeros_bind_nothing():
    A = features(np.array([[0.0, 0.0], [1.0, 0.0]]), np.ones((2, 1)))
    np.testing.assert_allclose(project_cones(A, np.array([[[-2.0, 3.0]]])), [[[0.0, 3.0]]], atol=1e-15)


def test_a_working_set_that_starts_small_ends_complete():
    # the cone is a needle around its axis: more rows bind (11) than join at a time (6)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 12))
    X[:, 0] = 0.05
    A = features(X, np.ones((400, 1)))
    c = rng.normal(size=(1, 1, 12))
    found = project_cones(A, c)
    assert np.linalg.norm(found) > 0.5
    assert (X @ found[0, 0]).min() >= -1e-11
    assert abs(((found - c) * found).sum()) <= 1e-10 * np.square(c).sum()
