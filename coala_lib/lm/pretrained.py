"""A model with its tokenizer, from a folder or from the Hub at one commit, and back to a folder."""

import os
from pathlib import Path

import jax.numpy as jnp
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jax.sharding import Mesh
from jax.typing import DTypeLike
from transformers import PreTrainedTokenizerBase

from coala_lib.lm.checkpoint import load_config, load_decoder, save_decoder
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.shards import CheckpointError, staging
from coala_lib.lm.tokenizer import load_tokenizer

# never pickled weights, never code
PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


def fetch(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local one as it is, a Hub id through the Hub's cache.

    Args:
        source: a folder, or a Hub id such as "openai-community/gpt2".
        revision: the commit (or tag) that a Hub id is read at; a branch moves, so there is no default.

    Returns:
        The folder; that of a Hub id ends in the commit's hash.

    Raises:
        CheckpointError: one sentence, where there is no such folder or id, no revision, or no way to the Hub.
    """
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, os.PathLike) or str(source).count("/") > 1 or str(source).startswith((".", "/", "~")):
        raise CheckpointError(f"there is no folder {source}; give a checkpoint's folder or a Hub id")
    if revision is None:
        raise CheckpointError(
            f"{source!r} is no folder, and a Hub id is read at one commit only: give revision=, a hash that "
            f"https://huggingface.co/{source}/commits/main lists"
        )
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=PATTERNS))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{source!r} at {revision} is not in this machine's cache and the Hub cannot be reached; "
            "run once with a connection, or give a folder"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(f"the Hub has no {source!r} at {revision}: {str(error).splitlines()[0]}") from None


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: DecoderConfig) -> None:
    """Refuse a tokenizer that writes tokens the model has no embedding for.

    Raises:
        CheckpointError: with both sizes.
    """
    if (known := max(tokenizer.get_vocab().values()) + 1) > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer writes {known} tokens, the model embeds {config.vocab_size}; is it another model's?"
        )


def load_pretrained(
    source: str | os.PathLike[str],
    dtype: DTypeLike = jnp.float32,
    *,
    revision: str | None = None,
    scan: bool = False,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> tuple[Decoder, PreTrainedTokenizerBase]:
    """A checkpoint's decoder and tokenizer; both are looked at before the weights are read.

    Args:
        source, revision: see `fetch`.
        dtype, scan, remat, mesh: see `load_decoder`.

    Returns:
        (decoder, tokenizer).

    Raises:
        CheckpointError: one sentence about what is missing, damaged or of another model.
    """
    folder = fetch(source, revision)
    config = load_config(folder)
    try:
        tokenizer = load_tokenizer(folder)
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from None
    check_tokenizer(tokenizer, config)
    return load_decoder(folder, dtype, scan=scan, remat=remat, mesh=mesh), tokenizer


def save_pretrained(
    decoder: Decoder,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike[str],
    dtype: DTypeLike = jnp.bfloat16,
    *,
    shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write a model with its tokenizer as transformers reads them: `from_pretrained(folder)`.

    Args:
        decoder, tokenizer: what to write.
        folder: made where absent; a failed save leaves what stood there.
        dtype, shard_bytes: see `save_decoder`.

    Returns:
        The folder.

    Raises:
        CheckpointError: where the tokenizer is another model's.
    """
    check_tokenizer(tokenizer, decoder.config)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    save_decoder(decoder, folder, dtype, shard_bytes=shard_bytes, more=special)
    with staging(Path(folder)) as new:
        tokenizer.save_pretrained(new)
    return Path(folder)
