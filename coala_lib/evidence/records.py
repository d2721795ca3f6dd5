"""A run leaves a record: one small JSON file that every number and figure in the book is drawn from.

A record says what ran (chapter, preset, resolved parameters, seeds, code hash), where it ran (versions, device,
dtype), what it cost (seconds with compilation apart, peak memory) and what came out (metrics with units and
intervals, thinned curves, verdicts on claims). The schema is versioned and validated on writing *and* on reading.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field

from coala_lib._device import describe_device
from coala_lib._files import replacing

SCHEMA_VERSION = 1
PRESETS = ("smoke", "laptop", "gpu", "paper")
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "transformers")
MAX_CURVE_POINTS = 500

Finite = Annotated[float, AllowInfNan(False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(_Frozen):
    """One number with its unit, and its interval and sample size where it has them.

    Attributes:
        value: the point estimate.
        unit: what is counted ("fraction", "nats", "reward", "s", "1" for pure numbers).
        low, high: ends of a two-sided 95 % interval, or None.
        n: independent units behind the estimate, or None.

    Example:
        >>> Metric(value=0.7, unit="fraction", low=0.6, high=0.8).above(0.5)
        True
        >>> Metric(value=0.7, unit="fraction").above(0.5)
        False
    """

    value: Finite
    unit: str
    low: Finite | None = None
    high: Finite | None = None
    n: int | None = None

    def above(self, bar: float) -> bool:
        """Whether the whole interval lies above the bar; no interval, no claim."""
        return self.low is not None and self.low > bar

    def below(self, bar: float) -> bool:
        """Whether the whole interval lies below the bar."""
        return self.high is not None and self.high < bar


class Curve(_Frozen):
    """A thinned curve: x and y with the names of their axes (unit in brackets)."""

    x: list[Finite]
    y: list[Finite]
    x_label: str
    y_label: str


class Seconds(_Frozen):
    """Wall-clock seconds of one stage, compilation counted apart from running."""

    compile: float
    run: float


class Record(_Frozen):
    """Everything a run leaves behind; see the module header."""

    schema_version: Literal[1] = SCHEMA_VERSION
    chapter: str
    preset: Literal["smoke", "laptop", "gpu", "paper"]
    parameters: dict[str, bool | int | float | str | None]
    seeds: list[int]
    code_hash: str = ""
    library_version: str
    library_commit: str
    library_dirty: bool
    packages: dict[str, str]
    python: str
    device: str
    dtype: str
    seconds: dict[str, Seconds]
    peak_bytes: int
    started: str
    metrics: dict[str, Metric]
    curves: dict[str, Curve] = Field(default_factory=dict)
    verdicts: dict[str, str] = Field(default_factory=dict)


class Stopwatch:
    """Time named stages with compilation kept apart, as JAX itself reports it.

    A stage must end in values that are ready: call `jax.block_until_ready` (or convert to numpy) inside it.

    Example:
        >>> clock = Stopwatch()
        >>> with clock("square"):
        ...     _ = jax.jit(lambda x: x * x)(2.0).block_until_ready()
        >>> sorted(clock.seconds)
        ['square']
        >>> clock.seconds["square"].run >= 0
        True
    """

    def __init__(self) -> None:
        self.started = time.time()
        self.seconds: dict[str, Seconds] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        compiled = 0.0

        def listen(event: str, duration: float, **_: Any) -> None:
            nonlocal compiled
            if event.startswith("/jax/core/compile/"):
                compiled += duration

        jax.monitoring.register_event_duration_secs_listener(listen)
        start = time.perf_counter()
        try:
            yield
        finally:
            total = time.perf_counter() - start
            jax.monitoring.unregister_event_duration_listener(listen)
            before = self.seconds.get(stage, Seconds(compile=0.0, run=0.0))
            self.seconds[stage] = Seconds(
                compile=before.compile + min(compiled, total), run=before.run + max(total - compiled, 0.0)
            )


def thin(x: ArrayLike, y: ArrayLike, x_label: str, y_label: str) -> Curve:
    """A curve of at most `MAX_CURVE_POINTS` points; first and last are kept.

    Args:
        x: (k,) abscissae.
        y: (k,) ordinates.
        x_label: name of the x axis, unit in brackets.
        y_label: name of the y axis, unit in brackets.

    Returns:
        The thinned `Curve`.

    Raises:
        ValueError: where x and y differ in length.

    Example:
        >>> curve = thin(range(2000), range(2000), "iteration", "gap")
        >>> len(curve.x), curve.x[0], curve.x[-1]
        (500, 0.0, 1999.0)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) != len(y):
        raise ValueError(f"a curve needs as many x as y values; got {len(x)} and {len(y)}")
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_CURVE_POINTS)).round().astype(int)) if len(x) else []
    return Curve(x=[float(x[i]) for i in keep], y=[float(y[i]) for i in keep], x_label=x_label, y_label=y_label)


def peak_bytes() -> int:
    """Peak memory of this process: the accelerator's where it reports one, else resident host memory. In bytes."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _commit() -> tuple[str, bool]:
    """Commit and dirty flag of the checkout this library runs from; unknown outside one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "coala_lib", "notebooks/*.md"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def make_record(
    chapter: str,
    parameters: Mapping[str, bool | int | float | str | None],
    metrics: Mapping[str, Metric],
    clock: Stopwatch,
    *,
    dtype: str,
    curves: Mapping[str, Curve] | None = None,
    verdicts: Mapping[str, str] | None = None,
) -> Record:
    """Join what a chapter measured with where and how it ran.

    Args:
        chapter: the chapter's slug, without its number ("coala_end_to_end").
        parameters: the values of the parameters cell; must hold "preset" and "seed".
        metrics: what came out, by TRL's names where they exist.
        clock: the stopwatch that timed the stages.
        dtype: the floating type of the main computation ("float32").
        curves: thinned curves by name.
        verdicts: claim id -> verdict, as `claims.judge` computes them.

    Returns:
        A validated `Record`. The code hash is the one the runner passes in `COALA_CODE_HASH`, empty by hand.

    Raises:
        ValueError: where a field does not fit the schema (NaN or infinite metrics among them).
    """
    commit, dirty = _commit()
    return Record(
        chapter=chapter,
        preset=parameters["preset"],
        parameters=dict(parameters),
        seeds=[int(parameters["seed"])],
        code_hash=os.environ.get("COALA_CODE_HASH", ""),
        library_version=importlib.metadata.version("coala-lib"),
        library_commit=commit,
        library_dirty=dirty,
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        python=platform.python_version(),
        device=describe_device(),
        dtype=dtype,
        seconds=dict(clock.seconds),
        peak_bytes=peak_bytes(),
        started=datetime.datetime.fromtimestamp(clock.started, datetime.UTC).isoformat(timespec="seconds"),
        metrics=dict(metrics),
        curves=dict(curves or {}),
        verdicts=dict(verdicts or {}),
    )


def write(record: Record, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a record, whole or not at all.

    Args:
        record: what to write.
        path: the file; by default `COALA_RECORD` (set by the runner), else `_build/records/<preset>/<chapter>.json`.

    Returns:
        The path written.
    """
    default = Path("_build") / "records" / record.preset / f"{record.chapter}.json"
    target = Path(path or os.environ.get("COALA_RECORD") or default)
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(record.model_dump(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return target


def read(path: str | os.PathLike[str]) -> Record:
    """Read and validate a record.

    Raises:
        ValueError: naming the file, where it is not a record of this schema.
    """
    try:
        return Record.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a record of schema {SCHEMA_VERSION}: {error}") from error


def read_all(folder: str | os.PathLike[str]) -> list[Record]:
    """All records under a folder `<preset>/<chapter>.json`, by preset then chapter."""
    records = [read(path) for path in sorted(Path(folder).glob("*/*.json"))]
    return sorted(records, key=lambda r: (PRESETS.index(r.preset), r.chapter))
