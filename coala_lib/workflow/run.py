"""One run of one chapter: text to notebook in memory, papermill, two results moved into place when both are whole.

Nothing is written where results stand until the run has succeeded, so a failed or killed run cannot harm a former
good one. The done mark comes last. A failed run keeps its notebook beside the results, as `….failed.ipynb`.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from coala_lib.workflow import chapters, kernel, plan
from coala_lib.workflow.errors import RunError
from coala_lib.workflow.plan import Job

KERNEL_START_SECONDS = 180  # a busy machine may need more than papermill's minute


def run(job: Job, progress: bool = True) -> None:
    """Execute a job and put its notebook and its record in place.

    Args:
        job: what to run.
        progress: whether papermill's progress bar is shown.

    Raises:
        RunError: where a cell fails, or the chapter leaves no record or a record of another run.
    """
    root = job.chapter.root.resolve()
    notebook, record = root / job.notebook, root / job.record
    failed = notebook.with_suffix(".failed.ipynb")
    notebook.parent.mkdir(parents=True, exist_ok=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    plan.write_key(job)
    library_hash = job.library_hash
    with tempfile.TemporaryDirectory(dir=notebook.parent, prefix=".running-") as folder:
        draft, draft_record = Path(folder) / notebook.name, Path(folder) / record.name
        try:
            with _environment(kernel.environment(root, job.preset, draft_record, job.code_hash)):
                executed = papermill.execute_notebook(
                    chapters.read(job.chapter),
                    draft,
                    parameters=dict(job.parameters),
                    cwd=root / "notebooks",
                    progress_bar=progress,
                    start_timeout=KERNEL_START_SECONDS,
                )
            device = _check_record(job, draft_record)
        except (PapermillExecutionError, DeadKernelError, RunError) as error:
            os.replace(draft, failed)  # papermill saves after each cell
            reason = error if isinstance(error, RunError) else _reason(error)
            raise RunError(f"chapter {job.chapter.slug} ({job.preset}) failed: {reason}; see {failed}.") from error
        executed.metadata["papermill"].pop("input_path")  # the whole text, since it came from memory
        executed.metadata["coala"] = {
            "code_hash": job.code_hash,
            "device": device,
            "library_hash": library_hash,
            "preset": job.preset,
        }
        nbformat.write(executed, draft)
        os.replace(draft_record, record)
        os.replace(draft, notebook)
        failed.unlink(missing_ok=True)
        (root / job.done).touch()  # newer than the key and the library: Snakemake takes the run for its own


def _check_record(job: Job, path: Path) -> str:
    """Return the device a record names, after checking that the record is that of this job."""
    if not path.exists():
        raise RunError("it wrote no record (call coala_lib.evidence.records.write)")
    record = json.loads(path.read_text(encoding="utf-8"))
    expected = {"chapter": job.chapter.slug, "preset": job.preset, "parameters": dict(job.parameters)}
    for field, value in expected.items():
        if record[field] != value:
            raise RunError(f"its record says {field} = {record[field]!r}, but the run had {value!r}")
    return record["device"]


def _reason(error: Exception) -> str:
    name = getattr(error, "ename", type(error).__name__)
    lines = str(getattr(error, "evalue", error)).strip().splitlines() or [""]
    return f"{name}: {lines[0]}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the kernels started inside, and put the old ones back."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
