"""The oracle of the tutor world: reads any reply and says how relevant it is to the question that was asked.

A reply is read clause by clause. The first clause that states a relation counts:
1 for the concept and relation that were asked, 0.5 for the right concept with another relation,
0.25 for the right relation of another concept, 0 else. "It" is read as the concept that was asked about.
Whether the stated *value* is the true one is counted apart: relevance and truth are different questions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from coala_lib.corpora.edu_facts import RELATIONS, World

RIGHT, RIGHT_CONCEPT, RIGHT_RELATION, WRONG = 1.0, 0.5, 0.25, 0.0


@dataclass(frozen=True)
class Judgement:
    """What the oracle read.

    Attributes:
        reward: relevance in {0, 0.25, 0.5, 1}.
        concept: the concept the reply speaks of, or None.
        relation: the relation it states, or None.
        truthful: whether the stated value is the fact; None where nothing was stated.
    """

    reward: float
    concept: str | None
    relation: str | None
    truthful: bool | None


@lru_cache(maxsize=1)
def _patterns() -> tuple[list[tuple[str, re.Pattern[str]]], list[tuple[str, re.Pattern[str]]]]:
    """Question and answer phrasings as regular expressions; longer phrasings first, so that the specific one wins.

    They are for clauses of letters and spaces (`_plain`); that keeps the time linear in the clause's length.
    """

    def compiled(kind: str) -> list[tuple[str, re.Pattern[str]]]:
        pairs = [(name, phrase) for name, r in RELATIONS.items() for phrase in getattr(r, kind)]
        pairs.sort(key=lambda pair: -len(pair[1]))
        slots = {r"\{x\}": r"(?P<x>it|the [a-z]+ [a-z]+|[a-z ]+?)", r"\{v\}": r"(?P<v>.+)"}
        out = []
        for name, phrase in pairs:
            pattern = re.escape(phrase.lower())
            for slot, group in slots.items():
                pattern = pattern.replace(slot, group)
            out.append((name, re.compile(pattern)))
        return out

    return compiled("questions"), compiled("answers")


_plain = re.compile("[a-z ]+").fullmatch


def _resolve(text: str, world: World) -> str | None:
    """The concept named by "the coupled oscillator" or "coupled oscillator"; None for "it" and for names unknown."""
    name = text.strip().removeprefix("the ")
    return name if name in world.subject_of else None


def asked(prompt: Sequence[dict[str, str]], world: World) -> tuple[str | None, str | None]:
    """What the last student turn asks for.

    Args:
        prompt: messages that end with the student's turn.
        world: the facts (for the names).

    Returns:
        (concept, relation); a pronoun is resolved to the concept the student named last.
    """
    questions, _ = _patterns()
    concept = relation = None
    for message in prompt:
        if message["role"] != "user":
            continue
        for clause, end in re.findall(r"([^.!?]+)([.!?]|$)", message["content"].lower()):
            if end != "?" or not _plain(clause.strip()):
                continue
            for name, pattern in questions:
                if found := pattern.fullmatch(clause.strip() + end):
                    relation, concept = name, _resolve(found["x"], world) or concept
                    break
    return concept, relation


def judge(prompt: Sequence[dict[str, str]], reply: str, world: World) -> Judgement:
    """Score one reply; any text is welcome, also malformed.

    Args:
        prompt: messages (`role`, `content`) that end with the student's turn.
        reply: the tutor's text.
        world: the facts.

    Returns:
        A `Judgement`.

    Example:
        >>> from coala_lib.corpora.edu import make_world
        >>> world = make_world(0)
        >>> ask = [{"role": "user", "content": "What does the coupled oscillator depend on?"}]
        >>> value = world.facts["coupled oscillator", "depend"]
        >>> judge(ask, f"It depends on {value}.", world).reward
        1.0
        >>> judge(ask, "The coupled oscillator is a rule for change.", world).reward
        0.5
        >>> judge(ask, "the the of", world).reward
        0.0
    """
    _, answers = _patterns()
    concept, relation = asked(prompt, world)
    for clause in re.split(r"[.!?]", reply.lower()):
        clause = clause.strip().removeprefix("also, ")
        if not _plain(clause):
            continue
        for name, pattern in answers:
            if not (found := pattern.fullmatch(clause)):
                continue
            told = concept if found["x"].strip() == "it" else _resolve(found["x"], world)
            if told is None or concept is None or relation is None:
                return Judgement(WRONG, told, name, None)
            reward = {(True, True): RIGHT, (True, False): RIGHT_CONCEPT, (False, True): RIGHT_RELATION}.get(
                (told == concept, name == relation), WRONG
            )
            return Judgement(reward, told, name, world.facts[told, name] == found["v"].strip())
    return Judgement(WRONG, None, None, None)
