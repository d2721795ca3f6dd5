"""A tiny decoder whose weights are large enough that a wrong mask or position shows; the real ones where they are."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from coala_lib.lm.decoder import Decoder, DecoderConfig
from coala_lib.lm.tokenizer import Encoded


@pytest.fixture(scope="session")
def tiny() -> Decoder:
    graph, state = nnx.split(Decoder(DecoderConfig(61, 32, 48, 2, 4, 2, 128), nnx.Rngs(0)))
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 1 else leaf, state))


@pytest.fixture(scope="session")
def sequences() -> list[Encoded]:
    """Eleven prompts with responses of four lengths, cut in different places."""
    rng = np.random.default_rng(0)
    lengths = [(7, 20, 45, 66)[i % 4] for i in range(11)]
    return [Encoded(tuple(rng.integers(1, 61, n).tolist()), int(rng.integers(1, n))) for n in lengths]


@pytest.fixture(scope="session")
def models() -> Path:
    shared = Path(os.environ.get("COALA_SHARED", Path(__file__).parents[4] / "shared"))
    if not (shared / "models").is_dir():
        pytest.skip(f"no shared models at {shared / 'models'}; set COALA_SHARED")
    return shared / "models"


@pytest.fixture(scope="session")
def edu_lm() -> Path:
    folder = Path(__file__).parents[3] / "notebooks" / "fixtures" / "edu-lm"
    if not (folder / "training.json").is_file():
        pytest.skip(f"no trained model at {folder}; run coala pretrain")
    return folder
