"""Curves of a run: windows, falls and bands on curves whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from coala_lib.evaluate.curves import band, deepest_fall, smooth

VALUES = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=30)


@given(VALUES, st.floats(0.1, 10), st.floats(-5, 5))
def test_a_fall_is_free_of_unit_and_origin(values, scale, shift):
    curve = np.array(values)
    assert deepest_fall(curve) == pytest.approx(deepest_fall(scale * curve + shift), abs=1e-6)
    assert 0 <= deepest_fall(curve) <= 1
    assert deepest_fall(np.sort(curve)) == 0


def test_a_curve_that_only_falls_falls_by_its_whole_range():
    assert deepest_fall([5.0, 3.0, 3.0, 1.0]) == 1
    assert deepest_fall([2.0, 2.0]) == 0


def test_windows_keep_lines_and_shorten_them():
    line = np.arange(10.0)
    np.testing.assert_allclose(smooth(line, 3), np.arange(1, 9))
    np.testing.assert_array_equal(smooth(line, 1), line)
    for width in (0, 11):
        with pytest.raises(ValueError, match=f"a window holds 1 to 10 values; got {width}"):
            smooth(line, width)


def test_the_band_is_students_interval():
    runs = np.random.default_rng(0).normal(size=(5, 3))
    mean, (low, high) = band(range(3), runs, "step", "value")
    for k in range(3):
        known = ttest_1samp(runs[:, k], 0).confidence_interval(0.95)
        assert (low.y[k], high.y[k]) == pytest.approx((known.low, known.high))
    np.testing.assert_allclose(mean.y, runs.mean(axis=0))
    with pytest.raises(ValueError, match="a band needs two runs"):
        band([0], [[1.0]], "step", "value")
