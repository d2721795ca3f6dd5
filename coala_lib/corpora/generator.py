"""Generate EduFeedback-style conversations: two agents talk over any chat model, into one JSONL file.

Every finished conversation is one line; a run that was killed goes on where it stopped, and nothing is written twice
(`journal`). Who talks is drawn from the plan's seed (`agents`), so that two runs differ by the model's own randomness
only. `alternate` makes preference pairs of what comes out.

Differs from the paper: any model instead of GPT-4o, prompts of our own (App. E prints none), and a budget (`budget`).
"""

import hashlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coala_lib.corpora.agents import STUDENT_PROMPT, TUTOR_PROMPT, Plan, Setting, setting, view
from coala_lib.corpora.budget import NO_CAPS, Budget, Hold, Meter, Usage
from coala_lib.corpora.client import Client, ClientError, estimate_tokens
from coala_lib.corpora.conversation import Message
from coala_lib.corpora.journal import alone, append, resume

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_SPEAKER = re.compile(r"\A\W*(student|tutor|user|assistant)\W*:\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """What a run has done.

    Attributes:
        written: conversations this run has added.
        found: conversations that were there already.
        failed: conversation -> why it was given up; the next run tries it again.
        usage: what this run has used, given-up conversations included.
        cost: of that, in the currency of the budget's prices.
        truncated: turns of this run that were cut at the longest length.
        stopped: "done", or "budget" where it did not cover another conversation.
    """

    written: int
    found: int
    failed: dict[str, str]
    usage: Usage
    cost: float
    truncated: int
    stopped: str


def generate(
    plan: Plan,
    client: Client,
    out: str | os.PathLike[str],
    *,
    budget: Budget = NO_CAPS,
    workers: int = 4,
    max_failures: int = 5,
    bar: tqdm | None = None,
) -> Outcome:
    """Generate the conversations of a plan that `out` does not hold yet.

    Args:
        plan: what to generate.
        client: the model: an `Endpoint` or a `Local`.
        out: JSONL file; made, or gone on with. Beside it `<out>.plan.json` keeps what a later run has to agree with.
        budget: caps of this run.
        workers: conversations at the same time.
        max_failures: the run ends after so many conversations in a row have failed.
        bar: advanced by one for each conversation written.

    Returns:
        The `Outcome`. Each line of `out` has `conversation_id`, `messages`, `setting`, `model`, `usage`.

    Raises:
        ValueError: where the budget does not cover one conversation, `out` is of another plan or damaged, or another
            run is writing to it.
        ClientError: where the model cannot be asked; what was finished before stands in `out`.

    Example:
        >>> import tempfile
        >>> from coala_lib.corpora.client import Local
        >>> out = Path(tempfile.mkdtemp()) / "talks.jsonl"
        >>> model = Local(lambda messages, temperature: f"Turn {len(messages)}.")
        >>> generate(Plan(n=2), model, out).written, generate(Plan(n=3), model, out).written
        (2, 1)
    """
    if workers < 1 or max_failures < 1:
        raise ValueError(f"workers and max_failures must be at least 1; got {workers} and {max_failures}")
    out = Path(out)
    terms = {name: value for name, value in asdict(plan).items() if name != "n"} | {
        "model": client.name,
        "prompts": hashlib.sha256((STUDENT_PROMPT + TUTOR_PROMPT).encode()).hexdigest()[:16],
    }
    with alone(out):
        done = resume(out, terms, "conversation_id")
        todo = [who for index in range(plan.n) if (who := setting(plan, index)).conversation_id not in done]
        run = _Run(plan, client, out, Meter(budget), max_failures, bar)
        if todo and not budget.covers(most := run.most(todo[0])):
            raise ValueError(
                f"the budget does not cover one conversation, which may need {most.requests} requests and "
                f"{most.tokens} tokens; raise it, or shorten turns and rounds"
            )
        run.all(todo, workers)
    return Outcome(
        written=run.written,
        found=plan.n - len(todo),
        failed=run.failed,
        usage=run.meter.spent,
        cost=budget.cost(run.meter.spent),
        truncated=run.truncated,
        stopped="budget" if run.full.is_set() else "done",
    )


def clean(text: str) -> str:
    """The turn in a reply: without thoughts, without a speaker's name before it, without half characters.

    Example:
        >>> clean("<think>Hm.</think> **Tutor:** A rule, mostly. ")
        'A rule, mostly.'
    """
    text = _THOUGHTS.sub("", text).encode("utf-8", "replace").decode("utf-8")
    return _SPEAKER.sub("", text.strip()).strip()


@dataclass
class _Run:
    """One run: what its threads share."""

    plan: Plan
    client: Client
    out: Path
    meter: Meter
    max_failures: int
    bar: tqdm | None
    written: int = 0
    truncated: int = 0
    in_a_row: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    full: threading.Event = field(default_factory=threading.Event)  # begin nothing new: the budget is used up
    stop: threading.Event = field(default_factory=threading.Event)  # leave what was begun: an error, an interrupt

    def most(self, who: Setting) -> Usage:
        """What a conversation may need at its longest: every turn is sent again with all later requests."""
        turns, longest = 2 * who.rounds, self.client.max_tokens
        system = estimate_tokens(view(self.plan, who, [])) + 4 * turns
        return Usage(turns, turns * system + longest * turns * (turns - 1) // 2, turns * longest)

    def all(self, todo: list[Setting], workers: int) -> None:
        """Work through the list with threads; the first error that ends the run is raised here."""
        waiting = iter(todo)

        def work() -> None:
            while not (self.full.is_set() or self.stop.is_set()):
                with self.lock:
                    who = next(waiting, None)
                if who is None:
                    return
                try:
                    self.one(who)
                except BaseException as error:
                    self.error = self.error or error
                    self.stop.set()

        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in [pool.submit(work) for _ in range(workers)]:
                    future.result()
            finally:
                self.stop.set()  # after an interrupt every thread ends with the turn it is in
        if isinstance(self.error, ClientError):
            told = f"{self.error}; {self.written} new conversations stand in {self.out}, run again to go on"
            raise ClientError(told, fatal=self.error.fatal, requests=self.error.requests) from None
        if self.error:
            raise self.error

    def one(self, who: Setting) -> None:
        """Generate one conversation and write it, or note why not."""
        hold = self.meter.hold(self.most(who))
        if hold is None:
            self.full.set()
            return
        try:
            row = self.talk(who, hold)
        except ClientError as error:
            hold.spend(Usage(error.requests))
            with self.lock:
                self.failed[who.conversation_id] = str(error)
                self.in_a_row += 1
                if error.fatal or self.in_a_row >= self.max_failures:
                    raise
            return
        finally:
            hold.close()
        if row is not None:
            with self.lock:
                append(self.out, row)
                self.written += 1
                self.in_a_row = 0
                if self.bar is not None:
                    self.bar.update()

    def talk(self, who: Setting, hold: Hold) -> dict[str, Any] | None:
        """The row of one conversation; None where the run ended meanwhile."""
        messages: list[Message] = []
        used, turns = Usage(), 2 * who.rounds
        for turn in range(turns):
            if self.stop.is_set():
                return None
            reply = self.client(view(self.plan, who, messages), who.temperature)
            used += reply.usage
            within = hold.spend(reply.usage)
            if not (text := clean(reply.text)):
                raise ClientError(f"{self.client.name}: turn {turn} is empty", fatal=False, requests=0)
            messages.append({"role": ("user", "assistant")[turn % 2], "content": text})
            with self.lock:
                self.truncated += not reply.finished
            if not within and turn + 1 < turns:
                self.full.set()
                return None
        people = {name: value for name, value in asdict(who).items() if name != "conversation_id"}
        return {
            "conversation_id": who.conversation_id,
            "messages": messages,
            "setting": people,
            "model": self.client.name,
            "usage": asdict(used),
        }
