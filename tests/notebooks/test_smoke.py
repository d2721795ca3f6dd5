"""Every real chapter runs at the smoke preset, through the engine that readers use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coala_lib.workflow import chapters, plan
from coala_lib.workflow.chapters import Chapter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def jobs() -> list[plan.Job]:
    """Run what is not up to date; a chapter that fails does not stop the others."""
    subprocess.run([sys.executable, "-m", "coala_lib.workflow", "all", "--preset", "smoke", "--cores", "all"], cwd=ROOT)
    return plan.jobs(ROOT, "smoke")


@pytest.mark.parametrize("chapter", chapters.find(ROOT), ids=lambda chapter: chapter.slug)
def test_smoke(chapter: Chapter, jobs: list[plan.Job]) -> None:
    mine = [job for job in jobs if job.chapter == chapter]
    assert mine
    for job in mine:
        assert (ROOT / job.done).exists(), f"see {job.notebook.with_suffix('.failed.ipynb')}"
        record = json.loads((ROOT / job.record).read_text())
        assert (record["preset"], record["code_hash"]) == ("smoke", job.code_hash)
