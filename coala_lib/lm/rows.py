"""Rows for training: documents packed, prompts with responses padded, and an endless order of examples."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import numpy as np

from coala_lib.lm.tokenizer import Encoded


def packed(documents: Iterable[Sequence[int]], context: int) -> Iterator[np.ndarray]:
    """Pack documents into rows of `context + 1` tokens.

    A row starts at a document's start, as features and sampling do; what does not fit into a row is dropped.

    Args:
        documents: token ids.
        context: tokens a row, less the one that is only a target.

    Yields:
        (context + 1,) int32 arrays.
    """
    row: list[int] = []
    for document in documents:
        row.extend(document)
        if len(row) > context:
            yield np.asarray(row[: context + 1], np.int32)
            row = []


def padded(sequences: Iterable[Encoded], context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows for fine-tuning: each sequence alone, padded on the right, with its response marked.

    Args:
        sequences: prompts with responses.
        context: tokens a row, less the one that is only a target.

    Yields:
        (context + 1,) int32 tokens, and (context,) bool: which targets belong to the response.

    Raises:
        ValueError: naming the row, where it has no response or is too long.

    Example:
        >>> tokens, response = next(padded([Encoded((5, 6, 7), 2)], context=3))
        >>> tokens.tolist(), response.tolist()
        ([5, 6, 7, 0], [False, True, False])
    """
    for row, sequence in enumerate(sequences):
        if not 0 < sequence.n_prompt < len(sequence.ids) <= context + 1:
            raise ValueError(
                f"row {row}: {sequence.n_prompt} tokens of prompt and {len(sequence.ids)} in all; "
                f"training needs both parts, in at most {context + 1} tokens"
            )
        tokens = np.zeros(context + 1, np.int32)
        tokens[: len(sequence.ids)] = sequence.ids
        target = np.arange(1, context + 1)
        yield tokens, (target >= sequence.n_prompt) & (target < len(sequence.ids))


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Indices below n, again and again without end, in a new order each epoch; equal seeds give equal streams.

    Example:
        >>> order = shuffled(3, seed=0)
        >>> sorted(next(order) for _ in range(3))
        [0, 1, 2]
    """
    for epoch in count():
        yield from np.random.default_rng([seed, epoch]).permutation(n).tolist()
