"""A language model behind an OpenAI-compatible chat-completions endpoint, asked politely.

Requests keep to a rate, wait where the server says so (`Retry-After`), and are tried again with growing, jittered
pauses where trying again can help. The key comes from the environment, goes into one header, and nowhere else:
not into files, errors or representations, not over plain HTTP to another machine, not after a redirect.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import httpx2

from coala_lib.corpora.budget import Usage
from coala_lib.corpora.client import ClientError, Reply, estimate_tokens
from coala_lib.corpora.conversation import Message

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PASSING = (408, 409, 425, 429)  # statuses below 500 after which the same request may succeed


class Pace:
    """Spreads requests and tokens over time, for many threads.

    Args:
        requests_per_minute, tokens_per_minute: None: no limit.
        clock, sleep: of the time, in seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        for name, rate in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if rate is not None and not rate > 0:
                raise ValueError(f"{name} must be above 0, or None for no limit; got {rate}")
        self._a_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._a_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._sleep, self._lock = clock, sleep, threading.Lock()
        self._next_request = self._next_tokens = self._closed_until = -float("inf")

    def wait(self, tokens: int) -> None:
        """Wait for the turn of a request of about so many tokens."""
        with self._lock:
            start = max(self._clock(), self._next_request, self._next_tokens)
            self._next_request, self._next_tokens = start + self._a_request, start + tokens * self._a_token
        # a server's pause that begins while we wait is kept as well
        while (pause := max(start, self._closed_until) - self._clock()) > 0:
            self._sleep(pause)

    def correct(self, tokens: int) -> None:
        """Count tokens that the guess before the request left out; negative where it was too high."""
        with self._lock:
            self._next_tokens += tokens * self._a_token

    def close(self, seconds: float) -> None:
        """Let nobody through for a while."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + seconds)


class Endpoint:
    """A client of one model at one server; use it as a context, so that its connections are closed.

    Args:
        base_url: up to and with the version, such as `https://host/v1`.
        model: the model's name there.
        key_variable: environment variable that holds the key; unset: none is sent.
        max_tokens: longest reply.
        attempts: how often a request is tried, at least 1.
        timeout: seconds to wait for a connection, and for each part of a reply.
        pause: seconds before the second attempt; each further pause is twice as long.
        longest_pause: seconds; a server that asks for more is given up.
        pace: the rate to keep.
        extra: more fields of the request; a field set to None is left out, such as `max_tokens` where a server
            wants `max_completion_tokens`.

    Raises:
        ValueError: for an address that is none, holds a password, or would carry the key unencrypted.

    Example:
        >>> with Endpoint("http://127.0.0.1:8000/v1", "small-model", key_variable="NO_SUCH_KEY") as client:
        ...     client.name
        'small-model'
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        max_tokens: int = 256,
        attempts: int = 6,
        timeout: float = 60.0,
        pause: float = 1.0,
        longest_pause: float = 120.0,
        pace: Pace | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if attempts < 1 or max_tokens < 1:
            raise ValueError("attempts and max_tokens must be at least 1")
        self.name, self.max_tokens, self.attempts = model, max_tokens, attempts
        self.pause, self.longest_pause, self.pace = pause, longest_pause, pace or Pace()
        self._extra, self._key = dict(extra or {}), os.environ.get(key_variable, "").strip()
        host = _check(base_url, self._key, key_variable)
        self._client = httpx2.Client(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=timeout,
            trust_env=host not in LOOPBACK,  # a proxy cannot reach this machine's own server
            follow_redirects=False,
        )

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def __call__(self, messages: list[Message], temperature: float) -> Reply:
        """Ask for the next message.

        Raises:
            ClientError: where no attempt succeeded, or none can.
        """
        body = {"model": self.name, "messages": messages, "temperature": temperature, "max_tokens": self.max_tokens}
        body = {name: value for name, value in (body | self._extra).items() if value is not None}
        guess, problem = estimate_tokens(messages) + self.max_tokens, ""
        for attempt in range(1, self.attempts + 1):
            self.pace.wait(guess)
            asked_to_wait = None
            try:
                response = self._client.post("chat/completions", json=body)
            except httpx2.HTTPError as error:
                problem = f"no answer ({type(error).__name__})"
            else:
                if response.status_code == 200:
                    reply = _read(response, messages, attempt)
                    if reply is not None:
                        self.pace.correct(reply.usage.tokens - guess)
                        return reply
                    problem = "the answer is no chat completion with a text"
                elif response.status_code in PASSING or response.status_code >= 500:
                    problem = f"status {response.status_code}"
                    asked_to_wait = _retry_after(response.headers.get("Retry-After"))
                else:
                    told = f"status {response.status_code}: {_message(response)}"
                    raise ClientError(self._say(told), fatal=True, requests=attempt) from None
            self.pace.correct(-guess)
            if attempt == self.attempts:
                break
            if asked_to_wait is None:
                time.sleep(min(self.longest_pause, self.pause * 2 ** (attempt - 1)) * random.uniform(0.5, 1))
            elif asked_to_wait > self.longest_pause:
                problem += f", and it asks to wait {asked_to_wait:.0f} s"
                break
            else:
                self.pace.close(asked_to_wait)
        raise ClientError(self._say(f"{problem}, after {attempt} attempts"), fatal=False, requests=attempt) from None

    def _say(self, problem: str) -> str:
        """A sentence with nothing secret in it, also where the server repeats the key."""
        text = f"{self.name} at {self._client.base_url.host}: {problem}"
        return text.replace(self._key, "[key]") if self._key else text


def _check(base_url: str, key: str, key_variable: str) -> str:
    """The host of an address that may be used."""
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        raise ValueError("base_url is no address; give one like https://host/v1") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError("base_url must be an http or https address without a query, like https://host/v1")
    if url.userinfo:
        raise ValueError(f"base_url must not hold a password; put the key into the variable {key_variable}")
    if key and url.scheme == "http" and url.host not in LOOPBACK:
        raise ValueError(f"the key in {key_variable} would go to {url.host} unencrypted; use https, or unset it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"the key in {key_variable} holds characters that no key has; set it again")
    return url.host


def _read(response: httpx2.Response, messages: list[Message], attempt: int) -> Reply | None:
    """The reply in a response; None where it has none."""
    try:
        answer = response.json()
        choice = answer["choices"][0]
        text, finished = choice["message"]["content"], choice.get("finish_reason") != "length"
        used = answer.get("usage") or {}
        guess = {"prompt_tokens": estimate_tokens(messages), "completion_tokens": len(text) // 3}
        usage = Usage(attempt, *(int(used.get(name) or known) for name, known in guess.items()))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Reply(text, usage, finished) if isinstance(text, str) and text.strip() else None


def _message(response: httpx2.Response) -> str:
    """What an error says, in one short line."""
    try:
        told = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        told = response.reason_phrase
    return " ".join(str(told).split())[:200]


def _retry_after(header: str | None) -> float | None:
    """Seconds of a `Retry-After` header, given as seconds or as a date; None where it is neither."""
    try:
        return max(0.0, float(header))
    except (TypeError, ValueError):
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
