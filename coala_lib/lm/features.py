"""Pooled hidden states of prompt + response: the seam between language models and convex optimisation.

Left of the feature file stand language models, right of it convex programs. Its manifest fingerprints everything
the numbers depend on, so that a stale file is refused, and a run that was killed goes on where it stopped.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from coala_lib._files import replacing
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.tokenizer import Encoded

Pooling = Literal["mean", "last"]
BUCKET, TOKENS_A_BATCH, ROWS_A_PART = 64, 4096, 512


class FeatureFileError(ValueError):
    """A feature file that is absent, damaged or of other data; the message says which and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a feature file depends on.

    Attributes:
        model, tokenizer, data: hashes of the weights and config, of the tokenizer, of the token ids.
        layer: hidden state that was pooled; -1 is the last, after the final norm.
        pooling: "mean" over the response's tokens or "last" of them.
        dtype: dtype of the features.
        rows, dimension: n and d.
    """

    model: str
    tokenizer: str
    data: str
    layer: int
    pooling: Pooling
    dtype: str
    rows: int
    dimension: int


def pool(hidden: Float[Array, "B T d"], response: Bool[Array, "B T"], pooling: Pooling) -> Float[Array, "B d"]:
    """Pool hidden states over the response: the mean of its tokens, or the last one."""
    if pooling == "mean":
        weights = response.astype(hidden.dtype)[:, :, None]
        return (hidden * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)
    at = response.shape[1] - 1 - jnp.argmax(response[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, at[:, None, None], axis=1)[:, 0]


@nnx.jit(static_argnames=("layer", "pooling"))
def _forward(
    decoder: Decoder, tokens: Int[Array, "B T"], response: Bool[Array, "B T"], layer: int, pooling: Pooling
) -> Float[Array, "B d"]:
    hidden, _ = decoder(tokens, layers=(layer,))
    return pool(hidden[0].astype(jnp.float32), response, pooling)


def pooled_features(
    decoder: Decoder, sequences: Sequence[Encoded], layer: int = -1, pooling: Pooling = "mean", bar: tqdm | None = None
) -> Float[np.ndarray, "n d"]:
    """Features of each prompt + response; they do not depend on padding or on what shares the batch.

    Args:
        decoder: frozen model.
        sequences: n encoded prompts with responses.
        layer: hidden state to pool, as in `Decoder.__call__`.
        pooling: "mean" or "last".
        bar: advanced by the tokens of each batch.

    Returns:
        (n, d) float32, row i for sequence i.

    Raises:
        ValueError: naming the row, for an empty response or more tokens than the model's context.
    """
    limit = decoder.config.max_position_embeddings
    for row, sequence in enumerate(sequences):
        if len(sequence.ids) <= sequence.n_prompt:
            raise ValueError(f"row {row}: the response has no tokens; remove the row")
        if len(sequence.ids) > limit:
            raise ValueError(f"row {row}: {len(sequence.ids)} tokens, the model reads {limit}; shorten the prompt")
    out = np.zeros((len(sequences), decoder.config.hidden_size), np.float32)
    widths = np.array([-(-len(s.ids) // BUCKET) * BUCKET for s in sequences])
    for width in np.unique(widths):
        rows = np.flatnonzero(widths == width)
        size = max(1, TOKENS_A_BATCH // int(width))
        for batch in np.split(rows, range(size, len(rows), size)):
            # a short last batch is filled up with rows of padding, so that every width compiles once
            tokens, response = np.zeros((size, width), np.int32), np.zeros((size, width), bool)
            for at, row in enumerate(batch):
                ids = sequences[row].ids
                tokens[at, : len(ids)] = ids
                response[at, sequences[row].n_prompt : len(ids)] = True
            out[batch] = np.asarray(_forward(decoder, tokens, response, layer, pooling))[: len(batch)]
            if bar is not None:
                bar.update(int(sum(len(sequences[row].ids) for row in batch)))
    return out


def data_hash(sequences: Sequence[Encoded]) -> str:
    """Hash of token ids and prompt lengths, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(np.asarray([sequence.n_prompt, len(sequence.ids), *sequence.ids], np.int64).tobytes())
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
) -> Path:
    """Extract features into `features.safetensors` and `manifest.json`, in parts that survive a kill.

    Args:
        folder: where they go; a finished file with the same manifest is kept as it is.
        decoder, sequences, layer, pooling: see `pooled_features`.
        model, tokenizer: fingerprints, from `checkpoint.fingerprint`.

    Returns:
        The folder.

    Raises:
        FeatureFileError: where the folder holds features of other data, saying what differs.
    """
    folder = Path(folder)
    dimension = decoder.config.hidden_size
    manifest = Manifest(model, tokenizer, data_hash(sequences), layer, pooling, "float32", len(sequences), dimension)
    target = folder / "manifest.json"
    if target.exists():
        _refuse_stale(target, manifest)
        if (folder / "features.safetensors").exists():
            return folder
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    parts = []
    with tqdm(total=sum(len(s.ids) for s in sequences), unit="tok", unit_scale=True, desc="features") as bar:
        for start in range(0, len(sequences), ROWS_A_PART):
            chunk = sequences[start : start + ROWS_A_PART]
            parts.append(folder / f"part-{start:08d}.safetensors")
            if parts[-1].exists():
                bar.update(sum(len(s.ids) for s in chunk))
                continue
            with replacing(parts[-1]) as temporary:
                save_file({"features": pooled_features(decoder, chunk, layer, pooling, bar)}, temporary)
    with replacing(folder / "features.safetensors") as temporary:
        save_file({"features": np.concatenate([load_file(part)["features"] for part in parts])}, temporary)
    for part in parts:
        part.unlink()
    return folder


def _refuse_stale(target: Path, manifest: Manifest) -> None:
    try:
        found, wanted = json.loads(target.read_text()), asdict(manifest)
    except json.JSONDecodeError:
        raise FeatureFileError(f"{target} is damaged; delete the folder and extract again") from None
    if found != wanted:
        differs = ", ".join(sorted(name for name in wanted if found.get(name) != wanted[name]))
        raise FeatureFileError(f"{target.parent} holds features of another run ({differs} differ); use another folder")


def read_features(folder: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n d"], Manifest]:
    """Read a feature file and its manifest.

    Raises:
        FeatureFileError: where a file is missing, truncated, or does not fit its manifest.
    """
    folder = Path(folder)
    try:
        manifest = Manifest(**json.loads((folder / "manifest.json").read_text()))
        features = load_file(folder / "features.safetensors")["features"]
    except (OSError, SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise FeatureFileError(
            f"{folder} holds no whole feature file ({error}); delete the folder and extract again"
        ) from None
    if features.shape != (manifest.rows, manifest.dimension) or not np.isfinite(features).all():
        raise FeatureFileError(f"{folder}: features have shape {features.shape} or NaN, not what the manifest says")
    return features, manifest


def fingerprint_of(decoder: Decoder) -> str:
    """Hash of a model's weights in memory, 16 hexadecimal digits; for models that no folder holds."""
    digest = hashlib.sha256(repr(decoder.config).encode())
    for leaf in jax.tree.leaves(nnx.state(decoder)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]
