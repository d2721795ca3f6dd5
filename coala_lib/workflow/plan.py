"""A job is one run to make: a chapter with resolved parameters, and where its two results go.

Chapter x preset x grid point is one job. Values given beside the preset are part of the file names, so no run can
pass for another: `_build/runs/gpu/07_phase_one@seed=2.ipynb`, `_build/records/gpu/phase_one@seed=2.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from coala_lib._files import replacing
from coala_lib.workflow import chapters, imports, presets
from coala_lib.workflow.chapters import Chapter


@dataclass(frozen=True)
class Job:
    """One run to make.

    Attributes:
        chapter: the chapter.
        preset: the preset's name.
        overrides: values given beside the preset (a grid point, or -p), by name.
        parameters: all resolved parameters.
        code_hash: hash of code cells and resolved parameters.
        files: library files and fixtures the run depends on, relative to the root.
    """

    chapter: Chapter
    preset: str
    overrides: Mapping[str, Any]
    parameters: Mapping[str, Any]
    code_hash: str
    files: tuple[Path, ...]

    @property
    def point(self) -> str:
        """The overrides as a suffix of file names, "" where there are none."""
        pairs = (f"{name}={quote(str(value), safe='')}" for name, value in sorted(self.overrides.items()))
        return f"@{','.join(pairs)}" if self.overrides else ""

    @property
    def notebook(self) -> Path:
        """Where the executed notebook goes, relative to the root."""
        return Path("_build") / "runs" / self.preset / f"{self.chapter.stem}{self.point}.ipynb"

    @property
    def record(self) -> Path:
        """Where the record goes, relative to the root."""
        return Path("_build") / "records" / self.preset / f"{self.chapter.slug}{self.point}.json"

    @property
    def key(self) -> Path:
        """What the run depends on beside files, as a file; see `write_key`."""
        return Path("_build") / "keys" / self.preset / f"{self.notebook.stem}.json"

    @property
    def done(self) -> Path:
        """Marks that notebook and record are whole and belong to the key; written last."""
        return self.key.with_suffix(".done")

    @property
    def library_hash(self) -> str:
        """Hash of the files the run depends on, as they are now."""
        return imports.content_hash(self.chapter.root, self.files)


def job(chapter: Chapter, preset: str, overrides: Mapping[str, Any] | None = None) -> Job:
    """The job that runs `chapter` with a preset and further values.

    Raises:
        UsageError: as `presets.resolve`.
    """
    notebook = chapters.read(chapter)
    resolved = presets.resolve(chapter, preset, overrides)
    files = [*imports.library_files(chapter.root, notebook), *_fixtures(chapter)]
    return Job(chapter, preset, dict(overrides or {}), resolved, chapters.code_hash(notebook, resolved), tuple(files))


def jobs(root: Path, preset: str) -> list[Job]:
    """Every job of a preset: all chapters, all grid points.

    Raises:
        UsageError: as `presets.resolve`, for the first chapter that does not fit.
    """
    return [
        job(chapter, preset, point)
        for chapter in chapters.find(root)
        for point in presets.points(root, chapter, preset)
    ]


def write_key(job: Job) -> Path:
    """Write what a run depends on beside files: parameters, code, and the rows of `book/claims.yml` it tests.

    A file, rewritten only when it changes, lets Snakemake notice all three however the last run was started.
    A done mark without its results is dropped.

    Returns:
        The key's path, relative to the root.
    """
    root = job.chapter.root
    ledger = root / "book" / "claims.yml"
    rows = (yaml.safe_load(ledger.read_text(encoding="utf-8")) or []) if ledger.exists() else []
    claims = [row for row in rows if row.get("chapter") == job.chapter.slug]
    key = {"parameters": dict(job.parameters), "code_hash": job.code_hash, "claims": claims}
    content = json.dumps(key, sort_keys=True, indent=1, default=str)
    if not (root / job.key).exists() or (root / job.key).read_text(encoding="utf-8") != content:
        with replacing(root / job.key) as temporary:
            temporary.write_text(content, encoding="utf-8")
    if not ((root / job.notebook).exists() and (root / job.record).exists()):
        (root / job.done).unlink(missing_ok=True)
    return job.key


def _fixtures(chapter: Chapter) -> list[Path]:
    """The files of `notebooks/fixtures/<name>` for each name that the chapter's text mentions."""
    text, folder = chapter.path.read_text(encoding="utf-8"), chapter.root / "notebooks" / "fixtures"
    named = [entry for entry in sorted(folder.glob("*")) if f"fixtures/{entry.name}" in text]
    files = [file for entry in named for file in (sorted(entry.rglob("*")) if entry.is_dir() else [entry])]
    return [file.relative_to(chapter.root) for file in files if file.is_file()]


def last_cost(job: Job) -> str:
    """What the last run of this chapter at this preset cost, in words."""
    root = job.chapter.root
    candidates = [root / job.record, root / "book" / "records" / job.preset / job.record.name]
    record = next((path for path in candidates if path.exists()), None)
    if record is None:
        return "cost not known yet"
    content = json.loads(record.read_text(encoding="utf-8"))
    seconds = sum(stage["compile"] + stage["run"] for stage in content["seconds"].values())
    return f"{seconds:.0f} s and {content['peak_bytes'] / 2**20:.0f} MiB on {content['device']}"
