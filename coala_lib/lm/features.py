"""The feature file: the seam between language models and convex optimisation.

Left of it stand language models, right of it convex programs. Its manifest fingerprints everything the numbers depend
on, so that a stale file is refused with the reason; a run that was killed goes on where it stopped and ends in the
same bits; the file is mapped into memory, so that it may be larger than that.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float
from safetensors import SafetensorError
from tqdm import tqdm

from coala_lib._files import replacing
from coala_lib.lm.batches import Batching, plan_batches
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.extraction import check_sequences, pooled_features, run_batch, sweep_features
from coala_lib.lm.pooling import Pooling, Reading
from coala_lib.lm.table import CODES, Table, map_table
from coala_lib.lm.tokenizer import Encoded

__all__ = [
    "FeatureFileError",
    "Manifest",
    "data_hash",
    "fingerprint_of",
    "pooled_features",
    "read_features",
    "sweep_features",
    "write_features",
    "write_sweep",
]
Storage = Literal["float32", "float16", "bfloat16"]
NAMES = ("model_id", "revision")  # they say where the model came from; its hash says what it is


class FeatureFileError(ValueError):
    """A feature file that is absent, damaged or of other data; the message says which and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a feature file depends on.

    Attributes:
        model, tokenizer, data: hashes of the weights and config, of the tokenizer, of the token ids.
        layer, pooling, first: the `Reading`.
        dtype: dtype of the stored features; they are pooled in float32.
        rows, dimension: n and d.
        model_id, revision: the backbone's name and revision on the Hub, for those who score other texts with a head.
    """

    model: str
    tokenizer: str
    data: str
    layer: int
    pooling: Pooling
    dtype: str
    rows: int
    dimension: int
    first: int | None = None
    model_id: str | None = None
    revision: str | None = None

    @property
    def reading(self) -> Reading:
        """What guided sampling must read off the decoder for a head of these features."""
        return Reading(self.layer, self.pooling, self.first)


def data_hash(sequences: Sequence[Encoded]) -> str:
    """Hash of token ids and prompt lengths, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(np.asarray([sequence.n_prompt, len(sequence.ids), *sequence.ids], np.int64).tobytes())
    return digest.hexdigest()[:16]


def fingerprint_of(decoder: Decoder) -> str:
    """Hash of a model's weights in memory, 16 hexadecimal digits; for models that no folder holds."""
    digest = hashlib.sha256(repr(decoder.config).encode())
    for leaf in jax.tree.leaves(nnx.state(decoder)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def write_features(
    folder: str | os.PathLike[str],
    decoder: Decoder,
    sequences: Sequence[Encoded],
    *,
    model: str,
    tokenizer: str,
    layer: int = -1,
    pooling: Pooling = "mean",
    dtype: Storage = "float32",
    batching: Batching | None = None,
    model_id: str | None = None,
    revision: str | None = None,
) -> Path:
    """Extract features into `features.safetensors` and `manifest.json`; call it again after a kill, and it goes on.

    Args:
        folder: where they go; a finished file of the same fingerprint is kept as it is.
        decoder, sequences: see `sweep_features`.
        model, tokenizer: fingerprints, from `checkpoint.fingerprint`.
        layer, pooling: see `Reading`.
        dtype: of the stored features.
        batching: how to cut batches.
        model_id, revision: for the manifest; not part of the fingerprint.

    Returns:
        The folder.

    Raises:
        ValueError: naming the row, for what the model cannot read (`check_sequences`) or the dtype cannot hold.
        FeatureFileError: where the folder holds features of another run, saying what differs.
    """
    identity = {"model": model, "tokenizer": tokenizer, "model_id": model_id, "revision": revision}
    _write({Path(folder): Reading(layer, pooling)}, decoder, sequences, identity, dtype, batching or Batching())
    return Path(folder)


def write_sweep(
    folder: str | os.PathLike[str],
    decoder: Decoder,
    sequences: Sequence[Encoded],
    readings: Sequence[Reading],
    *,
    model: str,
    tokenizer: str,
    dtype: Storage = "float32",
    batching: Batching | None = None,
    model_id: str | None = None,
    revision: str | None = None,
) -> dict[Reading, Path]:
    """Extract several readings in one pass, each into a feature file of its own below `folder`.

    Arguments and errors are those of `write_features`; readings whose file is finished cost nothing.

    Returns:
        The folder of each reading.
    """
    identity = {"model": model, "tokenizer": tokenizer, "model_id": model_id, "revision": revision}
    paths = {r: Path(folder) / str(r).replace(",", "").replace(" ", "-") for r in readings}
    _write({path: r for r, path in paths.items()}, decoder, sequences, identity, dtype, batching or Batching())
    return paths


def _write(
    folders: Mapping[Path, Reading],
    decoder: Decoder,
    sequences: Sequence[Encoded],
    identity: Mapping[str, str | None],
    dtype: Storage,
    batching: Batching,
) -> None:
    if dtype not in CODES:
        raise ValueError(f"features are stored as {', '.join(CODES)}; got {dtype!r}")
    check_sequences(sequences, decoder, list(folders.values()))
    shared = dict(identity) | {"data": data_hash(sequences), "dtype": dtype}
    shared |= {"rows": len(sequences), "dimension": decoder.config.hidden_size}
    manifests = {folder: Manifest(**shared, **asdict(reading)) for folder, reading in folders.items()}
    for folder, manifest in manifests.items():  # all of them before the first byte is written
        _refuse_stale(folder / "manifest.json", manifest)
    tables = {f: Table(f / "features.safetensors", m.rows, m.dimension, dtype) for f, m in manifests.items()}
    tables = {folder: table for folder, table in tables.items() if not table.finished()}
    if not tables:
        return
    for folder in tables:
        if not (folder / "manifest.json").exists():
            with replacing(folder / "manifest.json") as temporary:
                temporary.write_text(json.dumps(asdict(manifests[folder]), indent=1) + "\n", encoding="utf-8")
    done = np.logical_and.reduce([table.prepare() for table in tables.values()])
    plan = plan_batches(sequences, batching, decoder.config.max_position_embeddings)
    readings = tuple(folders[folder] for folder in tables)
    left = [batch for batch in plan.batches if not done[batch.rows].all()]
    had = plan.tokens - sum(batch.tokens for batch in left)
    with tqdm(total=plan.tokens, initial=had, unit="tok", unit_scale=True, desc="features") as bar:
        for batch in left:
            values = run_batch(decoder, sequences, batch, readings)
            for table, features in zip(tables.values(), values, strict=True):
                table.put(batch.rows.ravel(), features)
            bar.update(batch.tokens)
    for table in tables.values():
        table.finish()


def _refuse_stale(target: Path, manifest: Manifest) -> None:
    if not target.exists():
        return
    try:
        found, wanted = json.loads(target.read_text(encoding="utf-8")), asdict(manifest)
    except json.JSONDecodeError:
        raise FeatureFileError(f"{target} is damaged; delete the folder and extract again") from None
    differs = [name for name in wanted if name not in NAMES and found.get(name) != wanted[name]]
    if differs:
        reasons = ", ".join(f"{name} {found.get(name)} there and {wanted[name]} here" for name in differs)
        raise FeatureFileError(f"{target.parent} holds features of another run: {reasons}; use another folder")


def read_features(folder: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n d"], Manifest]:
    """Map a feature file into memory, and read its manifest.

    Args:
        folder: what `write_features` wrote.

    Returns:
        (n, d) features in their stored dtype, and the `Manifest`. Changes to the array stay in memory.

    Raises:
        FeatureFileError: where a file is missing, truncated, or does not fit its manifest.
    """
    folder = Path(folder)
    try:
        manifest = Manifest(**json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
        features = map_table(folder / "features.safetensors")
    except (OSError, SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise FeatureFileError(
            f"{folder} holds no whole feature file ({error}); delete the folder and extract again"
        ) from None
    found, wanted = (*features.shape, features.dtype.name), (manifest.rows, manifest.dimension, manifest.dtype)
    # block by block: a test of the whole would hold as many booleans as there are features
    if found != wanted or not all(np.isfinite(features[i : i + 4096]).all() for i in range(0, len(features), 4096)):
        raise FeatureFileError(f"{folder}: features have shape {features.shape} or NaN, not what the manifest says")
    return features, manifest
