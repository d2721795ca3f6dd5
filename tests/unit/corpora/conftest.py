"""Where the shared real data stand, and a well-formed triplet to break."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    root = Path(os.environ.get("COALA_SHARED", Path(__file__).parents[4] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"no shared data at {root}; set COALA_SHARED")
    return root / "data"
