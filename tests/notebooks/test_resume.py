"""Snakemake runs what is missing or out of date, nothing else, and goes on after a kill."""

import os
import re
import signal
import subprocess
import time

DRY = ("--dry-run",)
TWO = ("--cores", "2")
WAIT = """
    import pathlib, time

    pathlib.Path("{}").touch()
    while pathlib.Path("{}").exists():
        time.sleep(0.1)

"""


def _rules(output: str) -> set[str]:
    """The chapters that a Snakemake output says (it would) run."""
    return set(re.findall(r"rule laptop_\d\d_(\w+):", output))


def _all(toy, *arguments: str) -> set[str]:
    done = toy.command("all", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return _rules(done.stdout + done.stderr)


def test_only_what_changed_runs_again(toy) -> None:
    assert _all(toy, *TWO) == {"alpha", "beta"}

    toy.edit("notebooks/01_alpha.md", "Prose.", "Better prose.")
    os.utime(toy.root / "coala_lib" / "alpha.py")  # touched, not changed: as after a checkout
    assert _all(toy, *DRY) == set()

    toy.edit("coala_lib/alpha.py", "A toy.", "An edited toy.")
    assert _all(toy, *DRY) == {"alpha"}
    toy.edit("coala_lib/shared.py", "What both toys use.", "What two toys use.")
    assert _all(toy, *DRY) == {"alpha", "beta"}

    toy.edit("coala_lib/shared.py", "What two toys use.", "What both toys use.")
    toy.edit("coala_lib/alpha.py", "An edited toy.", "A toy.")
    toy.edit("notebooks/02_beta.md", 'print("answer", ', 'print("the answer", ')
    assert _all(toy, *DRY) == {"beta"}

    assert toy.command("run", "beta").returncode == 0  # by hand counts too
    (toy.root / "book").mkdir()
    (toy.root / "book" / "claims.yml").write_text("- {id: c.1, chapter: alpha, value: 3}\n- {id: c.2}\n")
    assert _all(toy, *DRY) == {"alpha"}


def test_a_failed_chapter_is_tried_again_and_the_others_run(toy) -> None:
    toy.edit("coala_lib/alpha.py", "return", "raise ArithmeticError  #")
    for _ in range(2):
        done = toy.command("all", *TWO)
        assert done.returncode == 1
        assert "chapter alpha (laptop) failed: ArithmeticError" in done.stderr + done.stdout
    assert _rules(done.stdout + done.stderr) == {"alpha"}
    assert (toy.root / "_build/records/laptop/beta.json").exists()


def test_a_killed_run_resumes(toy) -> None:
    hold, reached = toy.root / "hold", toy.root / "reached"
    hold.touch()
    path = toy.root / "coala_lib" / "beta.py"
    path.write_text(path.read_text().replace("    return", f"{WAIT.format(reached, hold)}    return"))

    started = subprocess.Popen(
        toy.argv("all", *TWO),
        **toy.surroundings(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    done = toy.root / "_build/keys/laptop/01_alpha.done"
    _wait_for(lambda: done.exists() and reached.exists(), started)
    assert "another run is under way" in toy.command("all", *TWO).stderr
    time.sleep(2)  # Snakemake notes alpha's end
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    hold.unlink()
    alpha = toy.bytes_of("_build/runs/laptop/01_alpha.ipynb")

    assert _all(toy, *TWO) == {"beta"}
    assert toy.bytes_of("_build/runs/laptop/01_alpha.ipynb") == alpha
    assert _all(toy, *DRY) == set()


def _wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "it did not get so far in time"
        time.sleep(0.1)
