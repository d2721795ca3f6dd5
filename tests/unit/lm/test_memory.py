"""The memory audit: counted by hand, by the compiler, and seen by the operating system while a model is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.checkpoint import tensor_shapes
from coala_lib.lm.config import DecoderConfig, RopeScaling
from coala_lib.lm.families import write_config
from coala_lib.lm.memory import compiled_bytes, extraction_bytes, n_parameters
from coala_lib.lm.shards import write_file

MISTRAL_7B = DecoderConfig(
    32001, 4096, 14336, 32, 32, 8, 32768, family="mistral", sliding_window=4096, tie_word_embeddings=False
)
LLAMA_8B = DecoderConfig(
    128256, 4096, 14336, 32, 32, 8, 131072, rope_theta=5e5, tie_word_embeddings=False,
    rope_scaling=RopeScaling("llama3", 8.0),
)  # fmt: skip
SMALL = DecoderConfig(100, 256, 896, 3, 8, 2, 2048, tie_word_embeddings=False)


def test_parameters_of_known_models(tiny):
    assert n_parameters(LLAMA_8B) == 8_030_261_248
    assert n_parameters(tiny.config) == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(tiny)))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(("batch", "length"), [(8, 64), (1, 512)])
def test_the_closed_form_bounds_the_compilers_plan(batch, length, scan, compiled_quickly):
    by_hand = extraction_bytes(SMALL, batch, length, jnp.float32, scan=scan)
    plan = compiled_bytes(SMALL, batch, length, jnp.float32, scan=scan)
    unused = SMALL.vocab_size * SMALL.hidden_size * 4  # the output matrix: features need no logits
    assert plan.arguments == by_hand.weights - unused + batch * length * 4
    beside_weights = by_hand.total - by_hand.weights
    assert plan.temporary + plan.output <= beside_weights <= 3 * (plan.temporary + plan.output)


@pytest.mark.parametrize(("batch", "length"), [(4, 1024), (1, 4096)])
def test_features_of_an_8b_model_fit_24_gb(batch, length):
    needed = extraction_bytes(LLAMA_8B, batch, length)
    assert needed.weights == 2 * 8_030_261_248
    assert needed.total < 24e9
    assert extraction_bytes(LLAMA_8B, batch, 4 * length).total > 24e9
    assert extraction_bytes(LLAMA_8B, batch, length, jnp.float32).total > 24e9


def test_a_7b_shape_compiles_ahead_of_time():
    plan = compiled_bytes(MISTRAL_7B, 1, 256)
    assert plan.arguments == 2 * (n_parameters(MISTRAL_7B) - 32001 * 4096) + 256 * 4
    assert plan.output == 256 * 4096 * 2
    assert plan.temporary > 0


LOAD = """
import sys
import jax
from pathlib import Path
from flax import nnx
from coala_lib.lm.checkpoint import load_decoder
from safetensors.numpy import load_file

def kilobytes(name):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(name)))

load_decoder(sys.argv[2], scan=sys.argv[1] == "stacked")  # a tiny one: the code that loads is in memory now
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
held = [load_file(file) for file in Path(sys.argv[3]).glob("*.safetensors")] if sys.argv[1] == "whole" else []
decoder = load_decoder(sys.argv[3], scan=sys.argv[1] == "stacked")
size = sum(jax.block_until_ready(leaf).nbytes for leaf in jax.tree.leaves(nnx.state(decoder)))
print((kilobytes("VmHWM") - before) * 1024 / size)
"""


def _write(folder: Path, config: DecoderConfig) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(write_config(config)))
    shapes = tensor_shapes(config)
    write_file(folder / "model.safetensors", shapes, np.dtype("float32"), lambda name: np.ones(shapes[name]))
    return folder


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from Linux' /proc"
)
def test_loading_needs_little_more_than_the_model(tmp_path):
    small = _write(tmp_path / "small", DecoderConfig(64, 32, 64, 2, 2, 1, 64))
    large = _write(tmp_path / "large", DecoderConfig(2048, 512, 2048, 16, 8, 4, 512))
    runs = {
        kind: subprocess.Popen(
            [sys.executable, "-c", LOAD, kind, small, large], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for kind in ("listed", "stacked", "whole")
    }
    ratios = {}
    for kind, run in runs.items():
        out, errors = run.communicate()
        assert run.returncode == 0, errors[-2000:]
        ratios[kind] = float(out.splitlines()[-1])
    assert 1 <= ratios["listed"] <= 1.2
    assert 1 <= ratios["stacked"] <= 1.2
    # the measurement sees a loader that holds the file beside the model
    assert ratios["whole"] > 1.8
