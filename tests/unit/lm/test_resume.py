"""Extraction under kill -9: at ten random points, and the file is the same to the bit."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

ROWS, KILLS = 800, 10

# One process imports everything, and forks a fresh one for every attempt: imports are what costs.
# The fork comes before JAX starts its threads, so every child is a process as good as any.
ZYGOTE = """
import os, sys
from flax import nnx
from coala_lib.lm.batches import Batching
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import abstract_decoder
from coala_lib.lm.features import write_features
from coala_lib.lm.tokenizer import Encoded
import jax
import numpy as np

def extract(folder):
    rng = np.random.default_rng(0)
    rows = [Encoded(tuple(rng.integers(1, 20, 8).tolist()), 3) for _ in range({rows})]
    graph, state = nnx.split(abstract_decoder(DecoderConfig(20, 8, 8, 1, 1, 1, 8)))
    # weights from numpy: to draw them would compile more than the extraction does
    drawn = jax.tree.map(lambda leaf: jax.numpy.asarray(rng.normal(size=leaf.shape), leaf.dtype), state)
    decoder = nnx.merge(graph, drawn)
    write_features(folder, decoder, rows, model="m", tokenizer="t", batching=Batching(tokens=16, narrowest=8))

for line in sys.stdin:
    child = os.fork()
    if not child:
        extract(line.strip())
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def attempt():
    """Start an extraction into a folder; returns its process number and a function that waits for its exit code."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "-c", ZYGOTE.replace("{rows}", str(ROWS))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as zygote:

        def start(folder):
            zygote.stdin.write(f"{folder}\n")
            zygote.stdin.flush()
            return int(zygote.stdout.readline()), lambda: int(zygote.stdout.readline())

        yield start
        zygote.stdin.close()


def done(folder):
    """Rows that the journal says are there; 0 before there is one."""
    try:
        return (folder / "features.safetensors.done").read_bytes().count(1)
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_ten_random_points_the_file_is_the_same_to_the_bit(attempt, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, code = attempt(whole)
    assert code() == 0
    rng, reached = random.Random(0), []
    for goal in sorted(rng.sample(range(int(0.85 * ROWS)), KILLS)):
        process, code = attempt(killed)
        while done(killed) < goal and not (killed / "features.safetensors").exists():
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.004))  # between two rows, within one, before the first or after the journal
        os.kill(process, signal.SIGKILL)
        assert code() == -signal.SIGKILL
        reached.append(done(killed))
        assert not (killed / "features.safetensors").exists()
    assert reached == sorted(reached)
    assert len(set(reached)) > KILLS // 2
    _, code = attempt(killed)
    assert code() == 0
    for name in ("features.safetensors", "manifest.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in killed.iterdir() if not path.name.endswith(".part")) == [
        "features.safetensors",
        "manifest.json",
    ]
