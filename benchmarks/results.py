"""The JSON files the book reads its measurements from."""

import datetime
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coala_lib._device import describe_device
from coala_lib._files import replacing


def dated(script: str) -> dict[str, str]:
    """What made a file of aggregates, and on which day (UTC)."""
    return {"script": script, "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def timed() -> dict[str, Any]:
    """What a file of timings is measured on: its schema, the device, and versions of what computes."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    return {"schema": 1, "device": describe_device(), "versions": {name: version(name) for name in packages}}


def write(path: Path, found: dict[str, Any]) -> None:
    """Write a result, whole or not at all; NumPy's numbers become Python's."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(found, indent=1, default=lambda value: value.item()) + "\n", encoding="utf-8")
