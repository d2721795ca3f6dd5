"""Test kernels see what every run sees; nothing reaches for the network."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Start nbval's kernels in the surroundings of a laptop run; their records go to `_build/nbval/`."""
    with pytest.MonkeyPatch.context() as patch:
        if item.path.suffix == ".ipynb":
            from coala_lib.workflow import kernel  # here, so that shapes in the library's annotations are checked

            record = ROOT / "_build" / "nbval" / f"{item.path.stem}.json"
            for name, value in kernel.environment(ROOT, "laptop", record).items():
                patch.setenv(name, value)
        return (yield)
