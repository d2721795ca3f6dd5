"""Which rows go through the decoder together: few shapes, little padding, and a shared prompt read once.

The chosen and the rejected reply stand behind one prompt, so its keys and values serve both: of 2 (p + r) tokens a
pair, p + 2r are left. A plan depends on the data and on `Batching` alone; a run that was killed makes the same batches
again, and so the same bits.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from coala_lib.lm.tokenizer import Encoded


@dataclass(frozen=True)
class Batching:
    """How to cut rows into batches.

    Attributes:
        tokens: positions a batch at most, padding included; what the device's memory allows.
        narrowest: smallest width of a batch; wider ones grow by about the half.
        share_prompts: read a prompt once for all its responses, where that is less work.
        worth: positions that take about as long as compiling one program (measured on two cores with the offline
            model); shapes that would save less padding than this join wider ones.

    Raises:
        ValueError: for values below 1, or `worth` below 0.

    Example:
        >>> [Batching().width(n) for n in (1, 32, 33, 49, 65, 700)]
        [32, 32, 48, 64, 96, 768]
    """

    tokens: int = 4096
    narrowest: int = 32
    share_prompts: bool = True
    worth: int = 32_768

    def __post_init__(self) -> None:
        if min(self.tokens, self.narrowest, self.worth + 1) < 1:
            raise ValueError(f"tokens and narrowest are at least 1 and worth at least 0; got {self}")

    def width(self, n: int) -> int:
        """The smallest width that holds n tokens: `narrowest` times 1, 1.5, 2, 3, 4, 6, ..."""
        doubled = self.narrowest << (-(-n // self.narrowest) - 1).bit_length()
        between = 3 * doubled // 4
        return between if n <= between and doubled > self.narrowest else doubled


@dataclass(frozen=True)
class Batch:
    """Rows of one shape.

    Attributes:
        rows: (b, G) numbers of the rows; the G rows of a line share their prompt.
        prompt: width of the prompts; 0 where prompt and response are read in one piece (then G = 1).
        response: width of the responses, or of the pieces.
        lines: b of the compiled program; lines beyond the batch's own are padding.
        tokens: tokens read, padding left out.
    """

    rows: Int[np.ndarray, "b G"]
    prompt: int
    response: int
    lines: int
    tokens: int

    @property
    def positions(self) -> int:
        """Positions the decoder computes, padding included."""
        return self.lines * _width((self.prompt, self.response, self.rows.shape[1]))


@dataclass(frozen=True)
class Plan:
    """All batches of some rows, the widest first, so that what does not fit into memory fails at once.

    Attributes:
        batches: every row stands in exactly one.
        unshared: tokens that would be read if no prompt were shared.
    """

    batches: tuple[Batch, ...]
    unshared: int

    @property
    def tokens(self) -> int:
        """Tokens that are read, padding left out."""
        return sum(batch.tokens for batch in self.batches)

    @property
    def positions(self) -> int:
        """Positions that are computed, padding included."""
        return sum(batch.positions for batch in self.batches)

    @property
    def saved(self) -> float:
        """Share of the tokens that sharing prompts saves."""
        return 1 - self.tokens / self.unshared


def _families(sequences: Sequence[Encoded], share: bool) -> list[list[int]]:
    """Rows by prompt, in powers of two (five are four and one), those of like length together."""
    if not share:
        return [[row] for row in range(len(sequences))]
    by_prompt: dict[bytes, list[int]] = defaultdict(list)
    for row, sequence in enumerate(sequences):
        prompt = np.asarray(sequence.ids[: sequence.n_prompt], np.int32)
        by_prompt[hashlib.blake2b(prompt.tobytes(), digest_size=16).digest()].append(row)
    families = []
    for rows in by_prompt.values():
        rest = sorted(rows, key=lambda row: len(sequences[row].ids))
        while rest:
            size = 1 << (len(rest).bit_length() - 1)
            families.append(rest[:size])
            rest = rest[size:]
    return families


Shape = tuple[int, int, int]  # width of the prompts (0: read in one piece), width of the responses, siblings


def _width(shape: Shape) -> int:
    prompt, response, siblings = shape
    return prompt + siblings * response


def _shapes(sequences: Sequence[Encoded], batching: Batching, limit: int, share: bool) -> dict[Shape, list[list[int]]]:
    """Families by the narrowest shape that holds them; those that sharing would not help stand alone."""
    shapes: dict[Shape, list[list[int]]] = defaultdict(list)
    for rows in _families(sequences, share):
        n_prompt, longest = sequences[rows[0]].n_prompt, max(len(sequences[row].ids) for row in rows)
        shape = min(batching.width(n_prompt), limit), batching.width(longest - n_prompt), len(rows)
        pays = n_prompt and _width(shape) < len(rows) * min(batching.width(longest), limit)
        if len(rows) > 1 and pays and n_prompt + shape[1] <= limit:
            shapes[shape].append(rows)
        else:
            for row in rows:
                shapes[0, min(batching.width(len(sequences[row].ids)), limit), 1].append([row])
    return shapes


def _merge(
    shapes: dict[Shape, list[list[int]]], sequences: Sequence[Encoded], worth: int, limit: int
) -> dict[Shape, list[list[int]]]:
    """Let shapes join wider ones, the narrowest first, where the padding costs less than a program of their own."""
    merged = dict(shapes)
    for shape in sorted(merged, key=_width):
        families = merged[shape]
        longest = max(sequences[rows[0]].n_prompt for rows in families) if shape[0] else 0
        wider = [
            other
            for other in merged
            if other != shape
            and (other[2], other[0] > 0) == (shape[2], shape[0] > 0)
            and other[0] >= shape[0]
            and shape[1] <= other[1] <= limit - longest
        ]
        best = min(wider, key=_width, default=None)
        if best and len(families) * (_width(best) - _width(shape)) < worth:
            merged[best] = merged[best] + merged.pop(shape)
    return merged


def plan_batches(sequences: Sequence[Encoded], batching: Batching, limit: int) -> Plan:
    """Cut rows into batches.

    Args:
        sequences: n encoded prompts with responses, each of at most `limit` tokens.
        batching: how.
        limit: context of the model; no position beyond it is computed, padding included.

    Returns:
        A `Plan`; its `tokens`, `unshared` and `saved` say what sharing prompts saves before anything runs.

    Example:
        >>> pair = [Encoded((1, 2, 3, 4), 3), Encoded((1, 2, 3, 5, 6), 3)]
        >>> plan = plan_batches(pair, Batching(narrowest=2, worth=0), limit=16)
        >>> plan.tokens, plan.unshared
        (6, 9)
    """

    def cost(shapes: dict[Shape, list[list[int]]]) -> int:  # a shared prompt is a second forward to compile
        return sum(len(rows) * _width(shape) + batching.worth * (1 + (shape[0] > 0)) for shape, rows in shapes.items())

    ways = [False, True] if batching.share_prompts else [False]
    options = [_merge(_shapes(sequences, batching, limit, share), sequences, batching.worth, limit) for share in ways]
    batches = []
    for shape, families in sorted(min(options, key=cost).items(), reverse=True):
        fits = max(1, batching.tokens // _width(shape))
        # a shape with few rows needs no full batch; powers of two, so that other data meet the same programs
        lines = min(fits, 1 << (len(families) - 1).bit_length())
        for start in range(0, len(families), lines):
            rows = np.asarray(families[start : start + lines])
            lengths = sum(len(sequences[row].ids) for row in rows.ravel().tolist())
            twice = sum(sequences[row].n_prompt for row in rows[:, 0].tolist()) * (shape[2] - 1)
            batches.append(Batch(rows, shape[0], shape[1], lines, lengths - twice))
    batches.sort(key=lambda batch: -(batch.prompt + batch.response))
    return Plan(tuple(batches), sum(len(sequence.ids) for sequence in sequences))
