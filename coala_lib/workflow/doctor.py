"""What this machine has, what the book needs, and what to do about the difference."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from coala_lib.workflow import chapters, pairs, stage

_GIB = 2**30
NEEDED_DISK, NEEDED_MEMORY = 4 * _GIB, 4 * _GIB
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked at.
        found: what is there.
        advice: what to do; empty where all is well.
        needed: whether the book cannot be made without it.
    """

    name: str
    found: str
    advice: str = ""
    needed: bool = True

    @property
    def state(self) -> str:
        return "ok" if not self.advice else "BAD" if self.needed else "note"


def examine(root: Path) -> list[Check]:
    """All checks, in the order to mend them."""
    return [_python(), _disk(root), _memory(), _device(), _versions(root), _git(), _browser(), _mathjax(), _pairs(root)]


def table(checks: list[Check]) -> str:
    """The checks as text, advice under each line that needs some.

    Example:
        >>> print(table([Check("disk", "9 GiB free"), Check("git", "none", "install git", needed=False)]))
        ok    disk  9 GiB free
        note  git   none
              -> install git
    """
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:4}  {check.name:{width}}  {check.found}")
        lines += [f"      -> {check.advice}"] if check.advice else []
    return "\n".join(lines)


def _python() -> Check:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if good else "make the environment anew: rm -r .venv && make env PYTHON=python3.12"
    return Check("Python", platform.python_version(), advice)


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free
    used = stage.disk_bytes(root / ".venv", root / "_build")
    advice = "" if free + used >= NEEDED_DISK else f"free some: the book needs about {NEEDED_DISK // _GIB} GiB"
    return Check("disk", f"{free / _GIB:.1f} GiB free, {used / _GIB:.1f} GiB used here", advice)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    advice = "" if total >= NEEDED_MEMORY else "run fewer chapters at once: make book CORES=1"
    return Check("memory, cores", f"{total / _GIB:.0f} GiB, {os.cpu_count()} cores", advice, needed=False)


def _device() -> Check:
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        return Check("JAX device", "none", f"JAX does not start ({error}); run `make env`")
    return Check("JAX device", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})")


def _versions(root: Path) -> Check:
    wanted, wrong = 0, []
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pin, _, marker = line.partition(";")
        name, _, version = pin.strip().partition("==")
        if not re.fullmatch(r"[\w.-]+", name) or (marker and not Marker(marker).evaluate()):
            continue
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a pin of an extra that is not installed
        wanted += 1
        wrong += [f"{name} {found} (not {version})"] if found != version else []
    advice = f"results may differ in their last digits; run `make env`: {', '.join(wrong)}" if wrong else ""
    return Check("versions", f"{wanted - len(wrong)} of {wanted} as in constraints.txt", advice, needed=False)


def _git() -> Check:
    path = shutil.which("git")
    return Check("git", path or "none", "" if path else "install git: records will not know their commit", needed=False)


def _browser() -> Check:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    advice = "" if path else "install chromium and chromium-driver for the browser tests; they are skipped without"
    return Check("browser", path or "none", advice, needed=False)


def _mathjax() -> Check:
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    return Check("MathJax", "installed" if found else "none", "" if found else "formulas need it; run `make env`")


def _pairs(root: Path) -> Check:
    known = chapters.find(root)
    behind = [c.slug for c in known if pairs.differs(c)]
    stale = [c.slug for c in known if pairs.stale(c)]
    advice = f"run `make sync`: {', '.join(behind)}" if behind else ""
    advice = f"run `make notebooks`: {', '.join(stale)}" if stale else advice
    return Check("notebook pairs", f"{len(known)} chapters", advice, needed=False)
