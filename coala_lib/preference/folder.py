"""A folder is written whole or not at all.

The new folder is made beside the old one and takes its place in two renames. Whatever kills the process, one whole
folder stands under the name or beside it, and `standing` finds it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside `path`; put it in the place of `path` on success, drop it on failure.

    Args:
        path: where the finished folder shall stand. What stood there is gone afterwards.

    Yields:
        The folder to write to.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "head"
        >>> with replacing_folder(target) as folder:
        ...     _ = (folder / "a.txt").write_text("whole")
        >>> [file.name for file in target.iterdir()]
        ['a.txt']
    """
    target = Path(os.path.abspath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    old = _previous(target)
    try:
        yield new
        # mkdtemp makes folders private; a finished result follows the user's umask like any other
        umask = os.umask(0)
        os.umask(umask)
        new.chmod(0o777 & ~umask)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def standing(path: str | os.PathLike[str]) -> Path:
    """The folder at `path`, or what stood there where a kill between the two renames left it aside."""
    target = Path(os.path.abspath(path))
    old = _previous(target)
    return old if old.is_dir() and not target.exists() else target


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")
