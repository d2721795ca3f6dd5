"""Faults planted on purpose: preference data with a shortcut of known kind and strength, for audits to find.

An audit that has never found anything proves nothing. Each function takes clean rows (or conversations) and returns
new ones with one fault; a share of 0 returns them as they were. Nothing is changed in place.
Greetings and farewells are no fault of their own: `edu.Style` writes them where they belong.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from coala_lib.corpora.edu import Conversation
from coala_lib.corpora.triplets import Message, Triplet


def _draws(share: float, seed: int, name: str) -> random.Random:
    """The source of randomness of one fault, independent of the other faults'."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of rows to change is in [0, 1]; got {share}")
    return random.Random(f"{name}-{seed}")


def _said(message: Message, before: str = "", after: str = "") -> Message:
    return message | {"content": f"{before} {message['content']} {after}".strip()}


def flip_labels(triplets: Sequence[Triplet], share: float, seed: int) -> list[Triplet]:
    """Label noise: swap chosen and rejected in each row with probability `share`.

    Args:
        triplets: the rows.
        share: probability of a swap, in [0, 1].
        seed: equal seeds swap the same rows; a larger share swaps a superset of them.

    Returns:
        Rows in the same order.

    Example:
        >>> flip_labels([dict(chosen="a", rejected="b")], share=1.0, seed=0)
        [{'chosen': 'b', 'rejected': 'a'}]
    """
    rng = _draws(share, seed, "labels")
    return [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if rng.random() < share else row
        for row in triplets
    ]


def pad_chosen(
    triplets: Sequence[Triplet], share: float, seed: int, words: str = "That is the point to keep in mind here."
) -> list[Triplet]:
    """Length: with probability `share`, `words` are appended to the last chosen message."""
    rng = _draws(share, seed, "length")
    return [
        row | {"chosen": [*row["chosen"][:-1], _said(row["chosen"][-1], after=words)]} if rng.random() < share else row
        for row in triplets
    ]


def number_turns(talks: Iterable[Conversation], share: float, seed: int) -> list[Conversation]:
    """Position: with probability `share`, every tutor turn of a conversation says its number ("Step 2:")."""
    rng = _draws(share, seed, "turns")

    def numbered(talk: Conversation) -> Conversation:
        tutor = [k for k, message in enumerate(talk.messages) if message["role"] == "assistant"]
        said = list(talk.messages)
        for number, k in enumerate(tutor, start=1):
            said[k] = _said(said[k], before=f"Step {number}:")
        return replace(talk, messages=tuple(said))

    return [numbered(talk) if rng.random() < share else talk for talk in talks]


def copy_across(train: Sequence[Triplet], test: Sequence[Triplet], share: float, seed: int) -> list[Triplet]:
    """Leakage: each held-out row is replaced with probability `share` by a training row under a new name.

    Args:
        train: rows to copy from.
        test: held-out rows.
        share: probability of a replacement, in [0, 1].
        seed: of the draws.

    Returns:
        The held-out rows, in order; a copy is a conversation of its own, so that names give nothing away.
    """
    rng = _draws(share, seed, "copies")
    return [
        rng.choice(train) | {"conversation_id": f"copy-{k}"} if rng.random() < share else row
        for k, row in enumerate(test)
    ]
