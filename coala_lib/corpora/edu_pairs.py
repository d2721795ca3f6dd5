"""Preference pairs from the tutor world, and the difficulties that make a shortcut come or go.

Pairs come from the Alternating Population Strategy (App. E.2). Each row of `EDU_DIFFICULTIES` turns one knob of the
default; probes of the words alone then tell what the knob gives away. In the default world they find nothing.
"""

from dataclasses import dataclass, field
from typing import Literal

from coala_lib.corpora.alternating import alternate
from coala_lib.corpora.edu import Style, conversations
from coala_lib.corpora.edu_facts import World
from coala_lib.corpora.triplets import Triplet


@dataclass(frozen=True)
class Difficulty:
    """What kind of pairs to draw.

    Attributes:
        style: how people talk.
        error_rate: chance that a tutor answers something else; see `converse`.
        rejected: "later", the tutor's turn after the chosen one (the paper), or "elsewhere", a reply from a
            conversation that is not among the pairs.
    """

    style: Style = field(default_factory=Style)
    error_rate: float = 0.0
    rejected: Literal["later", "elsewhere"] = "later"

    def __post_init__(self) -> None:
        if self.rejected not in ("later", "elsewhere"):
            raise ValueError(f"rejected is 'later' or 'elsewhere'; got {self.rejected!r}")


EDU_DIFFICULTIES = {
    "default": Difficulty(),
    "greetings": Difficulty(Style(greeting=1.0, farewell=1.0)),
    "erring tutor": Difficulty(error_rate=0.3),
    "one concept": Difficulty(Style(same=1.0, near=0.0)),
    "no pronouns": Difficulty(Style(student_pronoun=0.0, tutor_pronoun=0.0)),
    "shared facts": Difficulty(Style(shared=1.0)),
    "elsewhere": Difficulty(rejected="elsewhere"),
}


def edu_pairs(world: World, n: int, seed: int, difficulty: Difficulty = Difficulty()) -> list[Triplet]:
    """Preference pairs of `n` conversations.

    Args:
        world: the facts.
        n: conversations; each of A replies gives A - 1 pairs.
        seed: of the conversations; at least 0.
        difficulty: what kind of pairs, from `EDU_DIFFICULTIES` or of your own.

    Returns:
        Triplets with `source` "edu".

    Raises:
        ValueError: where n < 1 or seed < 0.

    Example:
        >>> from coala_lib.corpora.edu import make_world
        >>> len(edu_pairs(make_world(0), n=10, seed=0))
        18
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    kind = {"error_rate": difficulty.error_rate, "style": difficulty.style}
    triplets = alternate(conversations(world, n, seed, **kind), source="edu")
    if difficulty.rejected == "later":
        return triplets
    # strangers come from a stream of their own: a reply rejected here is chosen nowhere, so no split can leak it
    strangers = alternate(conversations(world, len(triplets), -1 - seed, **kind), source="edu")
    rejected = [stranger["rejected"] for stranger in strangers[: len(triplets)]]
    return [triplet | {"rejected": reply} for triplet, reply in zip(triplets, rejected, strict=True)]
