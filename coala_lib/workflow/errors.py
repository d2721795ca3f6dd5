"""Two ways to end: the request was wrong (exit code 2, nothing started), or the work failed (exit code 1).

Each message is one sentence that says what is wrong, where, and what to do.
"""


class UsageError(ValueError):
    """The request cannot be carried out as stated; raised before anything starts."""


class RunError(RuntimeError):
    """Something that was started did not end well; finished results are untouched."""
