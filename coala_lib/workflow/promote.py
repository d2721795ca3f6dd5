"""A laptop run becomes the committed pair of notebook and record, and the same run twice gives the same bytes.

The rule: where the new run's results equal the committed ones (all outputs but those of `volatile` cells, the whole
stamp but the device, the record but its volatile fields; see `normalise`), the committed outputs and record stay,
seconds and device included. Where anything at all differs, everything is taken from the new run. So a committed
pair always describes one run, never a mixture of two.
"""

import json

import nbformat

from coala_lib._files import replacing
from coala_lib.workflow import chapters, normalise, pairs
from coala_lib.workflow.errors import RunError
from coala_lib.workflow.normalise import Outputs
from coala_lib.workflow.plan import Job


def finished(job: Job) -> tuple[list[Outputs], dict[str, str], str]:
    """Outputs, stamp and record (as text) of a finished run.

    Raises:
        RunError: where the run is missing, or was made from other code than the text has now.
    """
    notebook, record = job.chapter.root / job.notebook, job.chapter.root / job.record
    if not (notebook.exists() and record.exists()):
        raise RunError(f"chapter {job.chapter.slug} has no finished {job.preset} run; make one by `make book`.")
    executed = nbformat.read(notebook, as_version=4)
    if executed.metadata.coala.code_hash != job.code_hash:
        raise RunError(f"the {job.preset} run of {job.chapter.slug} is older than its text; run `make book` again.")
    return normalise.run_outputs(executed), dict(executed.metadata.coala), record.read_text(encoding="utf-8")


def rendered(job: Job) -> tuple[str, str]:
    """Notebook and record, as text, of a finished run and nothing else."""
    outputs, stamp, record = finished(job)
    return normalise.serialise(normalise.paired(chapters.read(job.chapter), outputs, stamp)), record


def promote(job: Job) -> bool:
    """Commit a finished run to `notebooks/` and `book/records/`, by the rule above.

    Returns:
        Whether the results changed; where they did not, only prose may have moved.

    Raises:
        RunError: as `finished`.
    """
    if _same(job):
        pairs.sync(job.chapter)
        return False
    notebook, record = rendered(job)
    for path, content in ((job.chapter.record, record), (job.chapter.notebook, notebook)):
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return True


def _same(job: Job) -> bool:
    """Whether the finished run's results equal the committed ones."""
    outputs, stamp, record = finished(job)
    if not (job.chapter.record.exists() and job.chapter.notebook.exists()):
        return False
    text, old = chapters.read(job.chapter), pairs.committed(job.chapter)
    new_results = normalise.results(text, outputs, stamp)
    old_results = normalise.results(text, pairs.carried(text, old), old.metadata.get("coala", {}))
    old_record = json.loads(job.chapter.record.read_text(encoding="utf-8"))
    return new_results == old_results and (
        normalise.record_results(json.loads(record)) == normalise.record_results(old_record)
    )
