"""What a generation run may spend, and what it has spent.

A conversation is started only where the budget covers all of it at its longest: money is not spent on halves.
What it does not use goes back. Several conversations run at once, so all of this is one lock away from the threads.
"""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Requests and tokens; requests count every attempt, also those that failed."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def less(self, other: "Usage") -> "Usage":
        """What is left of this after `other`, nothing below 0."""
        return Usage(
            max(0, self.requests - other.requests),
            max(0, self.prompt_tokens - other.prompt_tokens),
            max(0, self.completion_tokens - other.completion_tokens),
        )

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Budget:
    """Caps of one run; None: no cap. What earlier runs of the same file have spent does not count.

    Attributes:
        max_requests: attempts, retries included. Retries are counted as they happen, so that each worker may pass the
            cap by the retries of one request.
        max_tokens: prompt and completion tokens, as the endpoint reports them.
        max_cost: in the currency of the prices.
        prompt_price, completion_price: per million tokens.

    Raises:
        ValueError: for a cap below 1 request or token, or a cost without a price.

    Example:
        >>> budget = Budget(max_cost=0.01, prompt_price=1.0, completion_price=2.0)
        >>> budget.covers(Usage(1, 4000, 3000)), budget.covers(Usage(1, 4000, 3001))
        (True, False)
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens"):
            cap = getattr(self, name)
            if cap is not None and cap < 1:
                raise ValueError(f"{name} must be at least 1, or None for no cap; got {cap}")
        if min(self.prompt_price, self.completion_price) < 0:
            raise ValueError("prices per million tokens must not be negative")
        if self.max_cost is not None and not (self.max_cost > 0 and self.prompt_price + self.completion_price > 0):
            raise ValueError("max_cost needs a positive amount and a price: give prompt_price and completion_price")

    def cost(self, usage: Usage) -> float:
        """Price of the tokens."""
        return (usage.prompt_tokens * self.prompt_price + usage.completion_tokens * self.completion_price) / 1_000_000

    def covers(self, usage: Usage) -> bool:
        """Whether no cap is passed; a cost at its cap up to rounding still is covered."""
        caps = ((self.max_requests, usage.requests), (self.max_tokens, usage.tokens))
        return all(cap is None or used <= cap for cap, used in caps) and (
            self.max_cost is None or self.cost(usage) <= self.max_cost * (1 + 1e-9)
        )


NO_CAPS = Budget()


class Hold:
    """The part of a budget that one conversation may still need; made by `Meter.hold`."""

    def __init__(self, meter: "Meter", most: Usage) -> None:
        self._meter, self.left = meter, most

    def spend(self, usage: Usage) -> bool:
        """Count what a request has used; False where a cap is passed, and the conversation has to end."""
        return self._meter._spend(self, usage)

    def close(self) -> None:
        """Give back what was not needed."""
        self._meter._close(self)


class Meter:
    """Counts what is spent and what is held, for many threads.

    Example:
        >>> meter = Meter(Budget(max_requests=10))
        >>> first = meter.hold(Usage(requests=8))
        >>> _ = first.spend(Usage(requests=3)); first.close()
        >>> meter.hold(Usage(requests=8)) is None, meter.spent.requests
        (True, 3)
    """

    def __init__(self, budget: Budget) -> None:
        self.budget, self.spent = budget, Usage()
        self._holds: set[Hold] = set()
        self._changed = threading.Condition()

    def hold(self, most: Usage) -> Hold | None:
        """Hold the budget for one conversation; waits for others to give back; None where it will never fit."""
        with self._changed:
            while not self.budget.covers(sum((hold.left for hold in self._holds), self.spent) + most):
                if not self._holds:
                    return None
                self._changed.wait()
            hold = Hold(self, most)
            self._holds.add(hold)
            return hold

    def _spend(self, hold: Hold, usage: Usage) -> bool:
        with self._changed:
            self.spent += usage
            hold.left = hold.left.less(usage)
            return self.budget.covers(self.spent)

    def _close(self, hold: Hold) -> None:
        with self._changed:
            self._holds.discard(hold)
            self._changed.notify_all()
