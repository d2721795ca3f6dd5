"""The commands: `python -m coala_lib.workflow --help`. The Makefile names the ones a reader needs."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from coala_lib.workflow import chapters, plan
from coala_lib.workflow.errors import RunError, UsageError
from coala_lib.workflow.presets import parse_overrides

ROOT = Path()
app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Run the chapters, build the book."
)
Preset = Annotated[str, typer.Option("--preset", "-P", help="smoke, laptop, gpu or paper")]


@app.command()
def run(
    slug: Annotated[str, typer.Argument(help="the chapter: its slug or its number")],
    preset: Preset = "laptop",
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="name=value, repeatable")] = None,
    progress: bool = True,
) -> None:
    """Run one chapter, whether or not it ran before."""
    job = plan.job(chapters.get(ROOT, slug), preset, parse_overrides(parameter or []))
    from coala_lib.workflow.run import run as execute

    execute(job, progress)
    print(f"{job.notebook}\n{job.record}")


@app.command("all", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def every(context: typer.Context, preset: Preset = "laptop") -> None:
    """Run every chapter that is not up to date; further arguments go to Snakemake."""
    plan.jobs(ROOT, preset)  # refuses what does not fit, before Snakemake starts
    from coala_lib.workflow.engine import snakemake

    raise typer.Exit(snakemake(ROOT, preset, context.args or ["--cores", "all"]))


@app.command("plan")
def show(preset: Preset = "laptop") -> None:
    """List the runs of a preset: parameters, files they depend on, last known seconds."""
    for job in plan.jobs(ROOT, preset):
        values = ", ".join(f"{name}={value!r}" for name, value in job.parameters.items())
        print(f"{job.notebook}\n    {values}\n    {len(job.files)} library files, {plan.last_cost(job)}")


@app.command()
def promote() -> None:
    """Commit the finished laptop runs to notebooks/ and book/records/."""
    from coala_lib.workflow.promote import promote as commit

    for chapter in chapters.find(ROOT):
        print(f"{chapter.slug}: {'new results' if commit(plan.job(chapter, 'laptop')) else 'same results, kept'}")


@app.command()
def sync(check: Annotated[bool, typer.Option(help="only say what differs; exit 1 if anything does")] = False) -> None:
    """Carry each chapter's text to its notebook, without running it."""
    from coala_lib.workflow import pairs

    known = chapters.find(ROOT)
    changed = [c.slug for c in known if (pairs.differs(c) if check else pairs.sync(c))]
    stale = [c.slug for c in known if pairs.stale(c)]
    print(f"{'differ' if check else 'updated'}: {', '.join(changed) or 'none'}")
    print(f"outputs older than code (run `make notebooks`): {', '.join(stale) or 'none'}")
    if check and (changed or stale):
        raise typer.Exit(1)


@app.command()
def tidy() -> None:
    """Write each chapter's text in the form in which Jupyter would save it."""
    from coala_lib.workflow import pairs

    print(f"tidied: {', '.join(c.slug for c in chapters.find(ROOT) if pairs.tidy(c)) or 'none'}")


@app.command()
def html(
    from_runs: Annotated[bool, typer.Option(help="render fresh laptop runs, not the committed ones")] = False,
    began: Annotated[float | None, typer.Option(help="when the whole command began, in Unix seconds")] = None,
) -> None:
    """Render the book into _build/html."""
    from coala_lib.workflow import stage

    began = began or time.time()
    page = stage.build(ROOT, plan.jobs(ROOT, "laptop") if from_runs else ())
    environment, built = (stage.disk_bytes(folder) / 2**20 for folder in (Path(sys.prefix), ROOT / "_build"))
    print(f"open {page.as_uri()}")
    print(f"cost: {time.time() - began:.0f} s, environment {environment:.0f} MiB, _build {built:.0f} MiB")


@app.command()
def doctor() -> None:
    """Check this machine and say what to do; exit 1 if the book cannot be made on it."""
    from coala_lib.workflow import doctor as physician

    checks = physician.examine(ROOT)
    print(physician.table(checks))
    if any(check.state == "BAD" for check in checks):
        raise typer.Exit(1)


def main() -> None:
    """Run a command; a refusal ends with exit code 2, a failure with 1, each with one sentence."""
    try:
        app()
    except (UsageError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
