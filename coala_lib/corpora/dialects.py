"""The dialects of preference data: how other trainers and data sets write a pair, read into the one schema and back.

Differs from TRL: where a prompt hides in two strings, the cut never falls inside a word (TRL cuts at the first
character that differs, so `blue` and `black` would leave `bl` in the prompt).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from coala_lib.corpora.dialect import Dialect, extras, single, text
from coala_lib.corpora.files import Row
from coala_lib.corpora.ratings import helpsteer, shp, ultrafeedback
from coala_lib.corpora.triplets import FIELDS, BadRow, Triplet, TripletError, as_messages, extract_prompt, say


def _flat(
    name: str,
    prompt: str,
    chosen: str,
    rejected: str,
    system: Literal["never", "optional", "always"] = "optional",
    **more: Any,
) -> Dialect:
    """Prompt and replies as texts under given names, with or without a column for the system's message."""
    used = (prompt, chosen, rejected) if system == "never" else (prompt, chosen, rejected, "system")

    def read(row: Row) -> dict[str, Any]:
        return extras(row, *used) | {
            "prompt": (_system(row) if "system" in used else []) + say("user", text(row, prompt)),
            "chosen": say("assistant", text(row, chosen)),
            "rejected": say("assistant", text(row, rejected)),
        }

    def write(triplet: Triplet) -> list[dict[str, Any]]:
        before, *parts = single(triplet, name, system="system" in used)
        first = {"system": before or ""} if before or system == "always" else {}
        return [extras(triplet, *FIELDS) | first | dict(zip(used[:3], parts, strict=True))]

    kinds = ({"system": str | None} if system == "always" else {}) | dict.fromkeys(used[:3], str)
    return Dialect(name, kinds, read, write, **more)


def _system(row: Row) -> list[dict[str, str]]:
    """The system's message where a row has one."""
    said = row.get("system")
    return say("system", said) if isinstance(said, str) and said.strip() else []


def _explicit(name: str, prompt: str, kinds: Mapping[str, Any], **more: Any) -> Dialect:
    """History and replies as messages, each in its column; a reply may be one message."""

    def read(row: Row) -> dict[str, Any]:
        return extras(row, prompt, "chosen", "rejected") | {
            "prompt": as_messages(row.get(prompt)),
            "chosen": as_messages(row.get("chosen")),
            "rejected": as_messages(row.get("rejected")),
        }

    def write(triplet: Triplet) -> list[dict[str, Any]]:
        sides = {side: triplet[side] for side in ("chosen", "rejected")}
        if kinds["chosen"] is dict:
            single(triplet | {"prompt": triplet["prompt"][-1:]}, name)
            sides = {side: messages[0] for side, messages in sides.items()}
        if name == "sharegpt":
            sides = {side: _sharegpt(message) for side, message in sides.items()}
        history = [_sharegpt(m) for m in triplet["prompt"]] if name == "sharegpt" else triplet["prompt"]
        return [extras(triplet, *FIELDS) | {prompt: history} | sides]

    return Dialect(name, {prompt: list} | kinds, read, write, **more)


def _sharegpt(message: Mapping[str, str]) -> dict[str, str]:
    return {
        "from": {"user": "human", "assistant": "gpt"}.get(message["role"], message["role"]),
        "value": message["content"],
    }


def _read_implicit(row: Row) -> dict[str, Any]:
    dialogues = [as_messages(row.get(side)) for side in ("chosen", "rejected")]
    if not all(isinstance(dialogue, list) for dialogue in dialogues):
        raise BadRow("chosen", "or 'rejected' is no list of messages; see TRL's schema")
    parts = extract_prompt(*dialogues)
    if not parts[0]:
        raise BadRow(
            "chosen", "and 'rejected' share no first message, so that there is no prompt; add a column 'prompt'"
        )
    return extras(row, *FIELDS) | dict(zip(FIELDS, parts, strict=True))


def _dialogues(triplet: Triplet) -> dict[str, Any]:
    return {side: [*triplet["prompt"], *triplet[side]] for side in ("chosen", "rejected")}


def _read_handbook(row: Row) -> dict[str, Any]:
    prompt, chosen = text(row, "prompt"), as_messages(row.get("chosen"))
    rest = extras(row, *FIELDS, "messages", "system")
    if isinstance(chosen, list) and chosen and isinstance(chosen[0], dict) and chosen[0].get("role") == "assistant":
        replies = {"chosen": chosen, "rejected": as_messages(row.get("rejected"))}
        return rest | {"prompt": _system(row) + say("user", prompt)} | replies
    found = _read_implicit(row)
    asked = [m["content"].strip() for m in found["prompt"] if isinstance(m, dict) and isinstance(m.get("content"), str)]
    if prompt.strip() not in asked:
        raise BadRow("prompt", "does not stand in the dialogues of 'chosen' and 'rejected'; mend the row")
    return rest | {field: found[field] for field in FIELDS} | {"prompt": _system(row) + found["prompt"]}


def _write_handbook(triplet: Triplet) -> list[dict[str, Any]]:
    asked = next(message["content"] for message in triplet["prompt"] if message["role"] == "user")
    both = _dialogues(triplet)
    return [extras(triplet, *FIELDS) | {"prompt": asked} | both | {"messages": both["chosen"]}]


def _read_shared_beginning(row: Row) -> dict[str, Any]:
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    cut = next(
        (k for k, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    while cut and not (chosen[cut : cut + 1].isspace() and rejected[cut : cut + 1].isspace()):
        cut -= 1
    if not chosen[:cut].strip():
        raise BadRow("chosen", "and 'rejected' share no first words, so that there is no prompt; add a column 'prompt'")
    replies = {"chosen": say("assistant", chosen[cut:]), "rejected": say("assistant", rejected[cut:])}
    return extras(row, *FIELDS) | {"prompt": say("user", chosen[:cut])} | replies


def _write_shared_beginning(triplet: Triplet) -> list[dict[str, Any]]:
    _, prompt, chosen, rejected = single(triplet, "trl-standard-implicit")
    return [extras(triplet, *FIELDS) | {"chosen": prompt + chosen, "rejected": prompt + rejected}]


_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def _from_hh(dialogue: str, field: str) -> list[dict[str, str]]:
    head, *pieces = _TURN.split(dialogue)
    if head.strip() or not pieces:
        raise BadRow(field, "is no dialogue marked by 'Human:' and 'Assistant:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[name], "content": said.removeprefix(" ")}
        for name, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _to_hh(messages: Sequence[Mapping[str, str]]) -> str:
    if any(message["role"] == "system" for message in messages):
        raise BadRow("prompt", "has a system message, for which dialect 'hh' has no place; write 'trl' instead")
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in messages)


def _read_hh(row: Row) -> dict[str, Any]:
    return _read_implicit(row | {side: _from_hh(text(row, side), side) for side in ("chosen", "rejected")})


def _read_hh_prompt(row: Row) -> dict[str, Any]:
    prompt = _from_hh(text(row, "prompt").rstrip(), "prompt")
    if prompt[-1] == {"role": "assistant", "content": ""}:  # the mark that opens the reply
        prompt.pop()
    replies = {side: _from_hh("Assistant: " + text(row, side), side) for side in ("chosen", "rejected")}
    return extras(row, *FIELDS) | {"prompt": prompt} | replies


def _write_hh_prompt(triplet: Triplet) -> list[dict[str, Any]]:
    prompt = _to_hh(triplet["prompt"]).removeprefix("\n\n") + "\n\nAssistant:"
    replies = {side: _to_hh(triplet[side]).removeprefix("\n\nAssistant: ") for side in ("chosen", "rejected")}
    return [extras(triplet, *FIELDS) | {"prompt": prompt} | replies]


def _is_hh(row: Row) -> bool:
    return all(str(row.get(side)).startswith(("\n\nHuman:", "Human:")) for side in ("chosen", "rejected"))


def _is_hh_prompt(row: Row) -> bool:
    return str(row.get("prompt")).lstrip().startswith("Human:")


_LISTS, _OBJECTS, _TEXTS = ({"chosen": kind, "rejected": kind} for kind in (list, dict, str))
DIALECTS: tuple[Dialect, ...] = (
    _explicit("trl", "prompt", _LISTS),
    Dialect("trl-implicit", _LISTS, _read_implicit, lambda t: [extras(t, *FIELDS) | _dialogues(t)],
            without=("prompt", "context_messages", "input")),
    _flat("trl-standard", "prompt", "chosen", "rejected", system="never", without=("system",),
          marks=lambda row: not _is_hh_prompt(row)),
    Dialect("trl-standard-implicit", _TEXTS, _read_shared_beginning, _write_shared_beginning,
            without=("prompt", "question", "instruction", "input"), marks=lambda row: not _is_hh(row)),
    Dialect("handbook", {"prompt": str} | _LISTS, _read_handbook, _write_handbook),
    _flat("axolotl", "question", "chosen", "rejected"),
    _flat("axolotl-input", "input", "chosen", "rejected"),
    _flat("axolotl-argilla", "instruction", "chosen_response", "rejected_response"),
    _flat("axolotl-prompt", "prompt", "chosen", "rejected", system="always"),
    _explicit("axolotl-chat", "messages", _OBJECTS),
    _explicit("sharegpt", "conversations", _OBJECTS),
    _explicit("openrlhf", "context_messages", _LISTS, without=("prompt",)),
    _explicit("openrlhf-input", "input", _LISTS, without=("prompt",)),
    _flat("tunix", "prompts", "chosen_responses", "rejected_responses"),
    Dialect("hh", _TEXTS, _read_hh, lambda t: [extras(t, *FIELDS) | {k: _to_hh(v) for k, v in _dialogues(t).items()}],
            without=("prompt",), marks=_is_hh),
    Dialect("hh-prompt", {"prompt": str} | _TEXTS, _read_hh_prompt, _write_hh_prompt, marks=_is_hh_prompt),
    helpsteer(), shp(), ultrafeedback(),
)  # fmt: skip


def named(name: str) -> Dialect:
    """A dialect by its name.

    Raises:
        TripletError: where there is none of that name.
    """
    known = {dialect.name: dialect for dialect in DIALECTS}
    if name not in known:
        raise TripletError(f"there is no dialect {name!r}; the dialects are {', '.join(known)}")
    return known[name]
