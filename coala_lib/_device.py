"""Where a computation runs, in words: records and model cards quote it."""

import os
import platform

import jax


def describe_device() -> str:
    """The device in words: kind, and for a CPU its cores and machine type.

    Example:
        >>> describe_device().split(" ")[0] in {"cpu", "gpu", "tpu"}
        True
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu ({os.cpu_count()} cores, {platform.machine()})"
    return f"{device.platform} ({device.device_kind}, {jax.device_count()} of them)"
