# Each chapter x preset x grid point is a rule; a preset is a target (`snakemake laptop --cores all`, `snakemake gpu
# --executor slurm --jobs 8`). A run repeats when one of its inputs changes in content: its key (parameters, code and
# claims), the library files and the fixtures it depends on. Prose is in none of them, so a prose edit runs nothing.

import json
import re
import sys
from pathlib import Path

from coala_lib.workflow import plan, presets

PYTHON = sys.executable
JOBS = {preset: plan.jobs(Path.cwd(), preset) for preset in presets.PRESETS}


for preset in reversed(presets.PRESETS):

    rule:
        name: preset
        localrule: True
        input: [str(job.done) for job in JOBS[preset]]
        default_target: preset == "laptop"


for job in (job for jobs in JOBS.values() for job in jobs):

    rule:
        name: re.sub(r"\W", "_", f"{job.preset}_{job.notebook.stem}")
        input: str(plan.write_key(job)), [str(path) for path in job.files]
        # Snakemake deletes outputs before a job. Notebook and record are none, so the former ones outlive a failed run.
        output: str(job.done)
        params:
            slug=job.chapter.slug,
            preset=job.preset,
            overrides=[f"-p{name}={json.dumps(value)}" for name, value in job.overrides.items()],
        resources: gpu=0 if job.preset in presets.OFFLINE else 1
        shell: "{PYTHON:q} -m coala_lib.workflow run {params.slug} --preset {params.preset} {params.overrides:q}"
