"""Costs add up, and a device's roofline bends where it should."""

import pytest

from coala_lib.evidence.cost import DEVICES, Cost


def test_stages_add_operations_and_bytes_but_not_peaks():
    both = Cost(2.0, 4.0, 10.0).times(3) + Cost(1.0, 1.0, 12.0)
    assert (both.flops, both.moved, both.peak) == (7.0, 13.0, 12.0)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_time_is_set_by_arithmetic_above_the_ridge_and_by_memory_below(device):
    above, below = (Cost(device.ridge * factor, 1.0, 0.0) for factor in (2, 0.5))
    assert above.seconds(device) == pytest.approx(above.flops / device.peak)
    assert below.seconds(device) == pytest.approx(1 / device.bandwidth)
    assert Cost(1, 1, device.memory).fits(device)
    assert not Cost(1, 1, device.memory + 1).fits(device)
