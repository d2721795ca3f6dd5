"""One conversation: named messages in order; what the generated worlds yield and the Alternating Strategy reads.

Everybody writes conversations down differently; `read_conversation` takes the four common forms:

* `messages`: objects of `role` and `content` (OpenAI, TRL);
* `conversations`: objects of `from` and `value` (ShareGPT);
* `turns`: objects of `role` and `text`;
* `utterances`: pairs of speaker and text (the sample in App. A of the DPO-Convex paper, where `agent1` is the tutor).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
ROLE_NAMES: dict[str, str] = {
    "agent1": "assistant", "assistant": "assistant", "gpt": "assistant", "model": "assistant", "teacher": "assistant",
    "tutor": "assistant", "agent2": "user", "human": "user", "prompter": "user", "student": "user", "user": "user",
    "system": "system",
}  # fmt: skip
FORMS = ("messages", "conversations", "turns", "utterances")


@dataclass(frozen=True)
class Conversation:
    """A conversation as messages (`role`, `content`), in order.

    Attributes:
        conversation_id: its name; splits keep all triplets of one name on one side.
        messages: the turns; user, assistant, user, ... where nothing is broken.

    Example:
        >>> Conversation("c0", ({"role": "user", "content": "Why?"},)).messages[0]["role"]
        'user'
    """

    conversation_id: str
    messages: tuple[Message, ...]


def read_message(value: Any) -> Any:
    """One message as `role` and `content`, from any of the four forms; what is none of them comes back unchanged.

    Args:
        value: an object or a (speaker, text) pair.

    Returns:
        A message, its role translated where `ROLE_NAMES` knows the name.

    Example:
        >>> read_message({"from": "gpt", "value": "Because."}), read_message(["agent2", "Why?"])
        ({'role': 'assistant', 'content': 'Because.'}, {'role': 'user', 'content': 'Why?'})
    """
    if isinstance(value, Mapping):
        for speaker, text in (("role", "content"), ("from", "value"), ("role", "text")):
            if {speaker, text} <= value.keys():
                role = value[speaker]
                return {"role": ROLE_NAMES.get(role, role) if isinstance(role, str) else role, "content": value[text]}
    elif isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str):
        return {"role": ROLE_NAMES.get(value[0], value[0]), "content": value[1]}
    return value


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a list of messages in one of the four forms."""
    return any(isinstance(row.get(form), list | tuple) for form in FORMS)


def read_conversation(row: Mapping[str, Any], conversation_id: str) -> Conversation:
    """A conversation out of a row in one of the four forms.

    Args:
        row: the row; the first of `messages`, `conversations`, `turns`, `utterances` that is a list counts.
        conversation_id: its name where the row has neither `conversation_id`, `id` nor `sample_id`.

    Returns:
        The `Conversation`, as it stands: mending is the reader's choice (see `alternating`).

    Raises:
        ValueError: where the row holds no conversation, or a turn is no message.

    Example:
        >>> read_conversation({"utterances": [["agent2", "Why?"], ["agent1", "Because."]]}, "c0").messages[1]
        {'role': 'assistant', 'content': 'Because.'}
    """
    turns = next((row[form] for form in FORMS if isinstance(row.get(form), list | tuple)), None)
    if turns is None:
        raise ValueError(f"a conversation needs one of the columns {', '.join(FORMS)}; found {', '.join(row)}")
    messages = tuple(read_message(turn) for turn in turns)
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError(f"conversation {conversation_id}: turn {number} is no message with a role and a text")
    named = next((row[key] for key in ("conversation_id", "id", "sample_id") if row.get(key) is not None), None)
    return Conversation(conversation_id if named is None else str(named), messages)
