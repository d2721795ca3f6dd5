"""Bad requests end before anything starts: exit code 2, one sentence on stderr, nothing written."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "alpha", "--preset", "tiny"], "there is no preset 'tiny'; choose one of: smoke, laptop, gpu, paper."),
        (["run", "gamma"], "there is no chapter 'gamma' in notebooks/; choose one of: alpha, beta."),
        (["run", "alpha", "-p", "rge=1"], "which chapter alpha does not have (did you mean `reg`?)"),
        (["run", "alpha", "-p", "reg=1.5"], "1.5 is greater than the maximum of 1"),
        (["run", "alpha", "-p", "seed=one"], "'one' is not of type 'integer'"),
        (["run", "alpha", "-p", "seed"], "is not of the form name=value"),
        (["all", "--preset", "tiny"], "there is no preset 'tiny'"),
        (["plan", "--preset", "tiny"], "there is no preset 'tiny'"),
    ],
)
def test_refusal(toy, arguments: list[str], message: str) -> None:
    done = toy.command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (toy.root / "_build").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("presets/smoke.yml", "alpha: {reg", "alpha: {rge", "did you mean `reg`?"),
        ("01_alpha.md", "seed = 0\n", "", "lacks `seed`"),
    ],
)
def test_bad_files_stop_the_whole_workflow(toy, name: str, old: str, new: str, message: str) -> None:
    toy.edit(f"notebooks/{name}", old, new)
    done = toy.command("all", "--preset", "smoke", "--cores", "1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    assert not (toy.root / "_build").exists()
