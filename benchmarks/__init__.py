"""Measured comparisons with other packages; nothing here is asserted on time in tests."""
