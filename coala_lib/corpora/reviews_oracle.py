"""The oracle of the review world: reads any text and counts which aspects it praises and which it faults.

A good or a bad word counts where its clause names an aspect (or the film); each denial before it turns it round.
What stands before the last "but" of a sentence is conceded, and set aside.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coala_lib.corpora.reviews import ASPECTS, BAD, BAD_VERDICTS, GOOD, GOOD_VERDICTS

_POLARITY = dict.fromkeys(GOOD + GOOD_VERDICTS, True) | dict.fromkeys(BAD + BAD_VERDICTS, False)
_DENIALS = frozenset(("not", "never", "nobody", "no", "nothing", "hardly"))
_NAMED = frozenset((*ASPECTS, "film"))
_RATING = re.compile(r"\brating is (10|[0-9]) of 10\b")


@dataclass(frozen=True)
class Reading:
    """What a text says of a film.

    Attributes:
        praised, faulted: mentions of aspects, what is denied turned round, what is conceded left out.
    """

    praised: int
    faulted: int

    @property
    def share(self) -> float:
        """Signed share (praised - faulted) / (praised + faulted) in [-1, 1]; 0 where nothing is said."""
        return (self.praised - self.faulted) / max(1, self.praised + self.faulted)


def read_review(text: str) -> Reading:
    """Count the mentions of a text; any text is welcome, also malformed.

    Args:
        text: what somebody wrote.

    Returns:
        A `Reading`.

    Example:
        >>> read_review("The plot is not dull. The cast is vivid, but the music is bland.")
        Reading(praised=1, faulted=1)
        >>> read_review("Dull plot dull!").share, read_review("plot the of but").share
        (-1.0, 0.0)
    """
    counts = {True: 0, False: 0}
    for sentence in re.split(r"[.!?;\n]", text.lower().replace("n't", " not")):
        kept = re.findall(r"[a-z]+", re.split(r"\bbut\b", sentence)[-1])
        if _NAMED.isdisjoint(kept):
            continue
        denied = False
        for word in kept:
            if word in _DENIALS:
                denied = not denied
            elif word in _POLARITY:
                counts[_POLARITY[word] != denied] += 1
                denied = False
    return Reading(counts[True], counts[False])


def judge_review(prompt: Sequence[dict[str, str]], reply: str) -> float:
    """Reward of a continuation: its signed share, turned round where the opening's rating asks for a bad review.

    Args:
        prompt: messages (`role`, `content`); a rating below 6 of 10 asks for a bad review, all else for a good one.
        reply: the continuation.

    Returns:
        Reward in [-1, 1].

    Example:
        >>> opening = [{"role": "user", "content": "I saw The Last Train. My rating is 2 of 10."}]
        >>> judge_review(opening, "I would not call the script witty.")
        1.0
    """
    ratings = _RATING.findall(" ".join(message["content"].lower() for message in prompt))
    wanted = -1.0 if ratings and int(ratings[-1]) < 6 else 1.0
    # 0 has no sign
    return wanted * share if (share := read_review(reply).share) else 0.0
