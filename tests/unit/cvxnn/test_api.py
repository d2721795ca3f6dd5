"""The public names: each documented with an example that runs; importing them brings no deep-learning library."""

import doctest
import inspect
import subprocess
import sys

import pytest

from coala_lib import cvxnn


def test_all_is_sorted_and_there():
    assert sorted(cvxnn.__all__) == cvxnn.__all__
    assert all(hasattr(cvxnn, name) for name in cvxnn.__all__)


@pytest.mark.parametrize("name", cvxnn.__all__)
def test_public_names_have_a_docstring_and_an_example(name):
    thing = getattr(cvxnn, name)
    text = inspect.getdoc(thing)
    assert text
    assert text.splitlines()[0].endswith((".", ":")) or ":" in text.splitlines()[0]
    examples = doctest.DocTestParser().get_examples(text)
    assert any(example.want for example in examples), "no example with a result"
    # pytest collects it: --doctest-modules looks at names where they are defined
    assert thing.__module__.startswith("coala_lib.cvxnn.")
    if inspect.isfunction(inspect.unwrap(thing)) and inspect.signature(thing).parameters:
        assert "Args:" in text
        assert "Returns:" in text


def test_import_is_light():
    script = (
        "import sys, coala_lib.cvxnn; "
        "heavy = {'flax', 'transformers', 'torch', 'optax', 'datasets', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
