"""The data sets of the papers by their Hub ids, or from local files of the same shape, with what was really read.

Every result carries its provenance: which commit, how many rows, and how that compares with the number the paper
states. A difference is reported in a sentence, never smoothed over.
`datasets` does the downloading and the caching, and honours HF_HUB_OFFLINE and HF_DATASETS_OFFLINE.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from coala_lib.corpora.alternating import AlternationReport, alternate_any
from coala_lib.corpora.conversation import Conversation, is_conversation, read_conversation
from coala_lib.corpora.dialect import Dialect, names_of
from coala_lib.corpora.files import Row, read_rows
from coala_lib.corpora.hub_sources import EDU, IMDB, SOURCES, HubSource
from coala_lib.corpora.imdb import review_pairs
from coala_lib.corpora.report import Report
from coala_lib.corpora.triplets import BadRow, Triplet, TripletError
from coala_lib.corpora.validation import sift


@dataclass(frozen=True)
class Provenance:
    """Where data come from, and how they compare with what the papers state.

    Attributes:
        hub_id: the data set.
        path, sha256: the local file read instead of the Hub, and its hash.
        revision: the revision asked for.
        commit: the commit that was read; None where it could not be told, or a local file was read.
        split: the split asked for.
        limited: whether reading stopped at a limit, so that no count can be compared.
        counts: what was counted -> how many.
        differences: one sentence for each count that is not the published one, and for a commit nobody asked for.
    """

    hub_id: str
    path: str | None
    sha256: str | None
    revision: str
    commit: str | None
    split: str
    limited: bool
    counts: dict[str, int]
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """Triplets, what became of the rows, and where they come from."""

    triplets: list[Triplet]
    report: Report | AlternationReport
    provenance: Provenance


def load_pairs(
    hub_id: str,
    *,
    path: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    split: str | None = None,
    dialect: str | Dialect | None = None,
    limit: int | None = None,
    streaming: bool = False,
    seed: int = 0,
    n_pairs: int = 11_000,
    recipe: Literal["prefix", "sentiment"] = "prefix",
    quarantine: str | os.PathLike[str] | None = None,
) -> Loaded:
    """Preference pairs of one of the papers' data sets.

    Args:
        hub_id: one of `SOURCES`.
        path: a local file to read instead, in any dialect.
        revision: branch, tag or commit; None takes the registry's.
        split: the split; None takes the registry's.
        dialect: how the pairs are written; None takes the registry's for the Hub and tells it from a local file.
        limit: rows to read at the most; the counts are then not compared.
        streaming: read from the Hub row by row, without storing.
        seed, n_pairs, recipe: of the pairs of IMDb; see `imdb.review_pairs`.
        quarantine: see `validation.sift`.

    Returns:
        The triplets with report and provenance. Conversations (EduFeedback) give triplets by the Alternating Strategy.

    Raises:
        TripletError: where the data set cannot be had, or its columns are not those expected.
        FileNotFoundError: where there is no such local file.
    """
    origin, rows, commit = _open(hub_id, path, revision, split, streaming)
    rows = islice(rows, limit)
    first = next(rows, None)
    rows = chain([] if first is None else [first], rows)
    counts: dict[str, int] = {}
    if hub_id == IMDB and _has_columns(first, origin.columns):
        pairs, left_out = review_pairs(rows, n_pairs, seed, recipe)
        triplets, report = sift(pairs, quarantine=quarantine, name=hub_id)
        counts["reviews"] = 2 * len(pairs) + sum(left_out.values())
        counts |= {f"reviews, {reason}": n for reason, n in left_out.items()}
    elif isinstance(first, dict) and is_conversation(first) and "chosen" not in first:
        triplets, report = alternate_any(_conversations(rows, hub_id), source=hub_id)
        counts["conversations"] = report.conversations
    else:
        given = dialect or (None if path else origin.dialect)
        # a file read anew keeps its bad lines as they were, for the quarantine
        whole = path if path is not None and limit is None else rows
        triplets, report = sift(whole, dialect=given, quarantine=quarantine, name=hub_id)
        counts["rows"] = report.rows
    counts["triplets"] = len(triplets)
    return Loaded(triplets, report, _provenance(origin, path, revision, commit, split, limit, counts))


def load_conversations(
    hub_id: str = EDU,
    *,
    path: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    streaming: bool = False,
) -> tuple[list[Conversation], Provenance]:
    """Conversations of a data set, as they stand; `alternating` makes pairs of them.

    Args:
        hub_id, path, revision, split, limit, streaming: see `load_pairs`.

    Returns:
        (conversations, provenance).

    Raises:
        TripletError: where the data set cannot be had, or a row is no conversation.
        FileNotFoundError: where there is no such local file.
    """
    origin, rows, commit = _open(hub_id, path, revision, split, streaming)
    talks = list(_conversations(islice(rows, limit), hub_id))
    return talks, _provenance(origin, path, revision, commit, split, limit, {"conversations": len(talks)})


def _open(
    hub_id: str, path: str | os.PathLike[str] | None, revision: str | None, split: str | None, streaming: bool
) -> tuple[HubSource, Iterator[Any], str | None]:
    """The registry's entry, the rows, and the commit they come from."""
    if hub_id not in SOURCES:
        raise TripletError(f"{hub_id!r} is not among the papers' data sets: {', '.join(SOURCES)}")
    origin = SOURCES[hub_id]
    if path is not None:
        return origin, (row for _, _, row in read_rows(path)), None
    rows, commit = _from_hub(origin, revision or origin.revision, split or origin.split, streaming)
    first = next(rows, None)
    if not _has_columns(first, origin.columns):
        found = names_of(first) if first else "no rows"
        raise TripletError(
            f"{hub_id} at {commit or revision or origin.revision}: expected the columns {', '.join(origin.columns)}, "
            f"found {found}; the schema has moved, so give revision= of an older commit or a local copy by path="
        )
    return origin, chain([first], rows), commit


def _has_columns(row: Any, columns: Iterable[str]) -> bool:
    return isinstance(row, dict) and set(columns) <= row.keys()


def _from_hub(origin: HubSource, revision: str, split: str, streaming: bool) -> tuple[Iterator[Row], str | None]:
    import datasets

    commit = _resolve(origin.hub_id, revision)
    try:
        data = datasets.load_dataset(origin.hub_id, split=split, revision=commit or revision, streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        offline = "offline mode is on, and the cache may lack it" if datasets.config.HF_HUB_OFFLINE else None
        raise TripletError(
            f"{origin.hub_id} at {revision}, split {split!r}: cannot be had "
            f"({offline or ' '.join(str(error).split())[:200]}); "
            "check the name, the network and the cache, or give a local copy by path="
        ) from None
    # offline, `datasets` takes whatever commit is cached; the addresses of the files tell which one it was
    addresses = " ".join(map(str, getattr(data.info, "download_checksums", None) or ()))
    found = re.search(rf"{re.escape(origin.hub_id)}@([0-9a-f]{{40}})/", addresses)
    return iter(data), found.group(1) if found else commit


def _resolve(hub_id: str, revision: str) -> str | None:
    """The commit a revision stands for; None where the Hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(hub_id, revision=revision).sha
    except Exception:  # no answer of whatever kind is no commit; `load_dataset` speaks next
        return None


def _conversations(rows: Iterable[Any], name: str) -> Iterator[Conversation]:
    for number, row in enumerate(rows):
        try:
            if isinstance(row, BadRow):
                raise row
            yield read_conversation(row, str(number))
        except (BadRow, ValueError) as error:
            raise TripletError(f"{name}: row {number}: {error}") from None


def _provenance(
    origin: HubSource,
    path: str | os.PathLike[str] | None,
    revision: str | None,
    commit: str | None,
    split: str | None,
    limit: int | None,
    counts: dict[str, int],
) -> Provenance:
    differences = [
        f"{origin.hub_id}: {counts[name]:,} {name} here, {stated:,} in the paper ({origin.where}), "
        f"difference {counts[name] - stated:+,}"
        for name, stated in origin.published.items()
        if limit is None and name in counts and counts[name] != stated
    ]
    asked = revision or origin.revision
    if commit and re.fullmatch("[0-9a-f]{40}", asked) and commit != asked:
        differences.append(f"{origin.hub_id}: commit {commit} read from the cache, {asked} was asked for")
    return Provenance(
        hub_id=origin.hub_id,
        path=None if path is None else str(path),
        sha256=None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        revision=asked,
        commit=commit,
        split=split or origin.split,
        limited=limit is not None,
        counts=counts,
        differences=tuple(differences),
    )
