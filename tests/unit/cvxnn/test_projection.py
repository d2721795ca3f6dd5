"""Corners of the projection that a random point does not reach."""

import numpy as np

from coala_lib.cvxnn.projection import _least_squares_block


def test_no_binding_row_is_no_crash():
    # scipy's nnls aborts the process when it is given no column
    X, c = np.eye(2), np.array([1.0, 2.0])
    found = _least_squares_block(X, flips=np.ones(2), c=c, active=np.zeros(2, bool), slack=np.zeros(2))
    np.testing.assert_array_equal(found, c)
