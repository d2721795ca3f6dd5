"""Snakemake decides what runs; here it is started so that a killed run needs no unlocking by hand.

Snakemake's own lock survives `kill -9`. Ours is the operating system's lock on `_build/.lock`: it ends with this
process, however it ends. Unfinished jobs are then run again.
"""

import fcntl
import os
from pathlib import Path

from coala_lib.workflow.errors import RunError


def snakemake(root: Path, target: str, arguments: list[str]) -> int:
    """Run Snakemake in `root`, in this process.

    Args:
        root: the repository, which holds the Snakefile.
        target: a preset's name.
        arguments: passed on to Snakemake ("--cores", "2").

    Returns:
        The exit code.

    Raises:
        RunError: where another run holds the lock.
    """
    from snakemake.cli import main

    os.chdir(root)
    Path("_build").mkdir(exist_ok=True)
    with open(Path("_build") / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError("another run is under way in this folder; wait for it to end.") from None
        # One accelerator serves one chapter at a time; on a cluster each job asks for its own.
        options = "--nolock --rerun-incomplete --keep-going --quiet host reason --resources gpu=1".split()
        try:
            main([target, *options, *arguments])
        except SystemExit as end:
            return int(end.code or 0)
    return 0
