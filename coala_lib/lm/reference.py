"""The reference model's log-probabilities of the pairs: computed once, and kept in a file.

A preference step then runs one model and not two; the file says which model and which pairs it belongs to.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from coala_lib._files import replacing
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import fingerprint_of
from coala_lib.lm.pairs import PairRows, read_pairs


def fingerprints(decoder: Decoder, rows: PairRows) -> dict[str, str]:
    """What reference sums depend on: hashes of the model and of the pairs."""
    pairs = hashlib.sha256()
    for part in rows[:2]:
        pairs.update(f"{part.shape}".encode() + part.tobytes())
    return {"model": fingerprint_of(decoder), "pairs": pairs.hexdigest()[:16]}


def with_reference(
    decoder: Decoder, rows: PairRows, batch: int = 64, cache: str | os.PathLike[str] | None = None
) -> PairRows:
    """The rows with the reference's sums, computed once or read from a file.

    Args:
        decoder: the reference model.
        rows: pairs.
        batch: pairs a forward.
        cache: file of the sums; written whole or not at all, and used again for the same model and pairs only.

    Returns:
        `PairRows` whose `reference` is filled.

    Raises:
        ValueError: where the file is damaged, or belongs to another model or other pairs, saying which.
    """
    print_of = fingerprints(decoder, rows) if cache is not None else {}
    if cache is not None and Path(cache).exists():
        try:
            with safe_open(cache, "numpy") as opened:
                theirs, sums = opened.metadata() or {}, opened.get_tensor("reference")
        except SafetensorError as error:
            raise ValueError(f"{cache} is damaged ({error}); delete it, and the sums are computed again") from None
        for what, mine in print_of.items():
            if theirs.get(what) != mine:
                raise ValueError(
                    f"{cache} holds reference sums of another {what} ({theirs.get(what)}, not {mine}); "
                    "delete it or name another file"
                )
        return rows._replace(reference=sums)
    found = read_pairs(decoder, rows, batch)
    sums = np.stack([found.chosen, found.rejected], axis=1).astype(np.float32)
    if cache is not None:
        with replacing(cache) as temporary:
            save_file({"reference": sums}, temporary, print_of)
    return rows._replace(reference=sums)
