"""What the generator asks of a language model: messages and a temperature in, a reply and its price out.

Two clients stand behind it: `Endpoint` (any server that speaks OpenAI's chat completions) and `Local` (any function,
such as a decoder of ours; this package does not import it).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from coala_lib.corpora.budget import Usage
from coala_lib.corpora.conversation import Message

CHARACTERS_A_TOKEN = 3  # few, so that an estimate before the request is rather too high


class ClientError(OSError):
    """A request that failed for good.

    Attributes:
        fatal: whether every other request would fail as well (a wrong key, an unknown model).
        requests: attempts that were made.
    """

    def __init__(self, message: str, *, fatal: bool, requests: int = 1) -> None:
        super().__init__(message)
        self.fatal, self.requests = fatal, requests


@dataclass(frozen=True)
class Reply:
    """What came back: the text, what it used, and whether it ended by itself (False: cut at the longest length)."""

    text: str
    usage: Usage
    finished: bool = True


@runtime_checkable
class Client(Protocol):
    """A language model that replies.

    Attributes:
        name: of the model, kept with every conversation.
        max_tokens: longest reply, for the estimate before a conversation is started.
    """

    name: str
    max_tokens: int

    def __call__(self, messages: list[Message], temperature: float) -> Reply: ...


def estimate_tokens(messages: list[Message]) -> int:
    """A high guess of the tokens of messages, where no tokenizer is at hand."""
    return sum(len(message["content"]) // CHARACTERS_A_TOKEN + 4 for message in messages)


@dataclass(frozen=True)
class Local:
    """A client out of a function; calls are made one at a time, since few models in memory are thread-safe.

    Attributes:
        reply: (messages, temperature) -> text.
        name: kept with every conversation.
        max_tokens: longest reply of the function, for the budget.

    Example:
        >>> echo = Local(lambda messages, temperature: messages[-1]["content"], name="echo")
        >>> echo([{"role": "user", "content": "Why?"}], 0.5).text
        'Why?'
    """

    reply: Callable[[list[Message], float], str]
    name: str = "local"
    max_tokens: int = 256
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __call__(self, messages: list[Message], temperature: float) -> Reply:
        with self._lock:
            text = self.reply(messages, temperature)
        return Reply(text, Usage(1, estimate_tokens(messages), estimate_tokens([{"role": "", "content": text}])))
