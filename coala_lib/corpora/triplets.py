"""One schema for preference data: TRL's conversational `prompt` / `chosen` / `rejected`, checked before any work.

A triplet is a plain dictionary, so that it goes to and from JSONL, parquet and `datasets` unchanged:
`prompt` is a list of messages that ends with the user's turn, `chosen` and `rejected` are lists of messages that begin
and end with the assistant (mostly one message); `conversation_id`, `turn_index` and `source` say where it comes from.
Other columns travel along; `score_chosen` and `score_rejected` are read where they are present.

Other layouts of the same information (strings, a prompt hidden in both dialogues, ratings) are `dialects`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from coala_lib.corpora.conversation import ROLES, Message, read_message

MAX_CHARS = 1_000_000
FIELDS = ("prompt", "chosen", "rejected")


class Triplet(TypedDict):
    """One preference: `chosen` is preferred to `rejected` as the continuation of `prompt`."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    conversation_id: str
    turn_index: int
    source: str


class TripletError(ValueError):
    """Data that break the schema; the message names file or row, field and what to do, in one line."""


class BadRow(Exception):
    """A row that breaks the schema.

    Attributes:
        field: the column at fault; "" where the row as a whole is.
        what: what is wrong with it, and what to do.
    """

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"field {field!r} {what}" if field else what)
        self.field, self.what = field, what


def is_conversational(row: Mapping[str, Any]) -> bool:
    """Whether the completions of a row are lists of messages (TRL's name).

    Example:
        >>> is_conversational({"chosen": [{"role": "assistant", "content": "Yes."}]})
        True
        >>> is_conversational({"prompt": "The sky is", "chosen": " blue."})
        False
    """
    value = next((row[key] for key in (*FIELDS, "completion", "messages") if key in row), None)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]


def extract_prompt(chosen: Sequence[Any], rejected: Sequence[Any]) -> tuple[list, list, list]:
    """Split two dialogues into the messages they share and their endings.

    Args:
        chosen: the preferred dialogue.
        rejected: the other one.

    Returns:
        (prompt, chosen, rejected): the longest common beginning that leaves each side a message, then the endings.

    Example:
        >>> extract_prompt(["a", "b", "c"], ["a", "b", "d"])
        (['a', 'b'], ['c'], ['d'])
    """
    # equal dialogues keep their last message, so that the check can say that they are equal
    most = min(len(chosen), len(rejected)) - 1
    shared = next((k for k in range(most) if chosen[k] != rejected[k]), max(most, 0))
    return list(chosen[:shared]), list(chosen[shared:]), list(rejected[shared:])


def unpair(triplets: Sequence[Triplet]) -> list[dict[str, Any]]:
    """TRL's unpaired form: each triplet gives a good and a bad completion, all good ones first.

    Args:
        triplets: the rows.

    Returns:
        Rows with `prompt`, `completion`, `label` and the triplet's other columns.

    Example:
        >>> ask, good, bad = (say(r, c) for r, c in (("user", "?"), ("assistant", "a"), ("assistant", "b")))
        >>> [row["label"] for row in unpair([Triplet(prompt=ask, chosen=good, rejected=bad)])]
        [True, False]
    """
    return [
        {key: value for key, value in triplet.items() if key not in FIELDS}
        | {"prompt": triplet["prompt"], "completion": triplet[side], "label": side == "chosen"}
        for side in ("chosen", "rejected")
        for triplet in triplets
    ]


def check_triplet(triplet: Mapping[str, Any], max_chars: int = MAX_CHARS) -> None:
    """Refuse a triplet that breaks the schema.

    Args:
        triplet: the row.
        max_chars: longest message accepted, in characters; longer ones are mostly a file in the wrong column.

    Raises:
        BadRow: naming the field and what is wrong with it.
    """
    for field, last in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        messages = triplet.get(field)
        if not isinstance(messages, list) or not messages:
            raise BadRow(field, "is missing or no list of messages; see TRL's schema")
        for message in messages:
            _check_message(field, message, max_chars)
        if messages[-1]["role"] != last:
            raise BadRow(field, f"must end with a {last!r} message")
        if field != "prompt" and messages[0]["role"] != "assistant":
            raise BadRow(field, "must begin with an 'assistant' message")
    if triplet["chosen"] == triplet["rejected"]:
        raise BadRow("", "'chosen' and 'rejected' are the same text; remove the row")
    for field, kind, name in (
        ("conversation_id", str, "text"),
        ("turn_index", int, "an integer"),
        ("source", str, "text"),
    ):
        if field in triplet and (not isinstance(triplet[field], kind) or isinstance(triplet[field], bool)):
            raise BadRow(field, f"is {triplet[field]!r:.40}, not {name}")
    scores = [triplet.get(f"score_{side}") for side in ("chosen", "rejected")]
    for side, score in zip(("chosen", "rejected"), scores, strict=True):
        if score is not None and (not isinstance(score, int | float) or isinstance(score, bool) or score != score):
            raise BadRow(f"score_{side}", f"is {score!r:.40}, not a number")
    if None not in scores and scores[0] < scores[1]:
        raise BadRow(
            "score_chosen", f"is {scores[0]:g}, below the {scores[1]:g} of 'rejected'; swap the sides or remove the row"
        )


def _check_message(field: str, message: Any, max_chars: int) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        raise BadRow(field, "needs messages with 'role' and text 'content'")
    if not (content := message["content"]).strip():
        raise BadRow(field, "holds an empty message; remove or mend the row")
    if message.get("role") not in ROLES:
        raise BadRow(field, f"has the role {message.get('role')!r:.40}; the roles are {', '.join(ROLES)}")
    if len(content) > max_chars:
        raise BadRow(field, f"holds a message of {len(content):,} characters; the limit is {max_chars:,} (max_chars)")
    if "\0" in content:
        raise BadRow(field, "holds a NUL character; remove it")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise BadRow(field, "holds half of a surrogate pair, which is no text; remove it") from None


def validate(triplets: Sequence[Triplet]) -> None:
    """Refuse the first triplet that breaks the schema.

    Args:
        triplets: the rows.

    Raises:
        TripletError: naming the row, the field and what is wrong with it.

    Example:
        >>> ask, good = [{"role": "user", "content": "Why?"}], [{"role": "assistant", "content": "Because."}]
        >>> validate([dict(prompt=ask, chosen=good, rejected=[{"role": "assistant", "content": " "}])])
        Traceback (most recent call last):
        ...
        coala_lib.corpora.triplets.TripletError: row 0: field 'rejected' holds an empty message; remove or mend the row
    """
    if not triplets:
        raise TripletError("there are no triplets; give at least one row")
    for row, triplet in enumerate(triplets):
        try:
            check_triplet(triplet)
        except BadRow as error:
            raise TripletError(f"row {row}: {error}") from None


def split(
    triplets: Iterable[Triplet], held_out: float, seed: int, groups: Iterable[str] | None = None
) -> tuple[list[Triplet], list[Triplet]]:
    """Split by conversation, so that no conversation stands on both sides.

    Args:
        triplets: the rows.
        held_out: expected share of groups in the second part, in (0, 1).
        seed: equal seeds split equally, whatever the order or number of rows.
        groups: the group of each row; None takes its `conversation_id`. See also `splitting.split_by_prompt`.

    Returns:
        (training rows, held-out rows).

    Raises:
        ValueError: where `held_out` is outside (0, 1) or a side stays empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share in (0, 1); got {held_out}")
    rows = list(triplets)
    sides: tuple[list[Triplet], list[Triplet]] = ([], [])
    for row, name in zip(rows, groups or [row["conversation_id"] for row in rows], strict=True):
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        sides[int.from_bytes(digest[:8], "big") < held_out * 2**64].append(row)
    if not all(sides):
        raise ValueError("a side of the split is empty; give more conversations or another share")
    return sides


def as_messages(value: Any) -> Any:
    """A list of messages from a list or a single message in any known form; anything else comes back unchanged."""
    if isinstance(value, Mapping):
        value = [value]
    return [read_message(message) for message in value] if isinstance(value, list | tuple) else value


def say(role: str, content: str) -> list[Message]:
    """A list of one message."""
    return [{"role": role, "content": content}]
