"""The book is built from a copy, so that rendering a fresh run leaves the working tree as it was.

`_build/stage/` holds every file git knows or would add; fresh laptop runs replace the committed ones there when asked
for. The build is strict (every warning is an error) and starts from nothing, because Sphinx repeats no warning of a
page it did not rebuild. `_build/html` is replaced only by a build that succeeded.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from coala_lib.workflow import promote
from coala_lib.workflow.errors import RunError
from coala_lib.workflow.plan import Job

_NEVER_COPIED = shutil.ignore_patterns("_build", ".*", "*.egg-info", "__pycache__")


def build(root: Path, jobs: Iterable[Job] = ()) -> Path:
    """Render the book.

    Args:
        root: the repository.
        jobs: finished laptop runs to render in place of the committed ones.

    Returns:
        The page to open.

    Raises:
        RunError: where a run is missing, or the build gives a warning (MathJax not installed among them).
    """
    root = root.resolve()
    stage, html = root / "_build" / "stage", root / "_build" / "html"
    shutil.rmtree(stage, ignore_errors=True)
    copy_tree(root, stage)
    for job in jobs:
        notebook, record = promote.rendered(job)
        for path, content in ((job.chapter.notebook, notebook), (job.chapter.record, record)):
            target = stage / path.resolve().relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", stage, "-q", "-n", "-W", "--keep-going"]
    if subprocess.run(command).returncode:
        raise RunError(f"the book did not build (a warning counts as an error, see above); {html} is as it was.")
    _replace_folder(stage / "_build" / "html", html)
    return html / "index.html"


def copy_tree(root: Path, target: Path) -> None:
    """Copy the files git tracks or would add; outside a repository, all but hidden and built ones."""
    git = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if not (root / ".git").exists() or shutil.which("git") is None:
        shutil.copytree(root, target, ignore=_NEVER_COPIED)
        return
    listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():  # a tracked file may have been deleted
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def disk_bytes(*folders: Path) -> int:
    """Bytes that folders take on disk; hard links are counted once."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                stat = os.lstat(os.path.join(parent, name))
                seen[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(seen.values())


def _replace_folder(new: Path, old: Path) -> None:
    trash = old.with_name(f".{old.name}.old")
    shutil.rmtree(trash, ignore_errors=True)
    if old.exists():
        old.rename(trash)
    new.rename(old)
    shutil.rmtree(trash, ignore_errors=True)
