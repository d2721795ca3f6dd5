"""A generated student-tutor world: seeded facts, conversations about them, nothing to download.

The paper's EduFeedback is written by a large language model (App. E); nobody can say for certain which of its replies
answer the question. Here the facts are known (`edu_facts`), so an exact oracle (`edu_oracle`) can score any reply.

Made so that no shortcut separates a good reply from a bad one: names and values are shared (`edu_facts`), and
greetings, acknowledgements and pronouns of the tutor do not depend on the turn.
`Style` turns each of these knobs; the shortcuts that come back are what the data audit has to find.

Differs from the paper: replies are templates, not GPT-4o text; 11 subjects, moods, temperature 0.2-0.9 and 4-8
alternating utterances follow its App. E.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

from coala_lib.corpora.conversation import Conversation
from coala_lib.corpora.edu_facts import (
    COMPLAINTS,
    FAREWELLS,
    GREETINGS,
    RELATIONS,
    STUDENT_MOODS,
    THANKS,
    TUTOR_MOODS,
    World,
    make_world,
)

__all__ = ["RELATIONS", "Conversation", "Style", "World", "conversations", "converse", "make_world"]


@dataclass(frozen=True)
class Style:
    """How people talk in the tutor world. The defaults make the text the book's language model has read.

    Equal seeds draw equal topics and facts at every temperature: knobs can be compared conversation by conversation.

    Attributes:
        temperature: (low, high) of a conversation's temperature, > 0; equal ends fix it. Cold speakers repeat
            their favourite phrasing.
        student_moods, tutor_moods: the moods to draw from, by name.
        rounds: (fewest, most) question-answer rounds; (2, 4) gives the paper's 4-8 utterances.
        student_pronoun: chance that the student says "it" where the topic stays.
        tutor_pronoun: chance that the tutor says "it".
        second_fact: chance that a reply adds a fact nobody asked for.
        shared: chance that a reply also tells what answers another question of the same conversation, so that
            the right words stand in the wrong replies too.
        same, near: chance that the next question keeps the concept, or moves to a neighbour that shares a word;
            else it moves to any other concept of the subject.
        greeting, farewell: chance that the first reply opens with a greeting, the last one ends with a farewell:
            cues of position that say nothing of relevance.

    Raises:
        ValueError: naming the knob that is out of its range.

    Example:
        >>> Style(temperature=(0.5, 0.5), greeting=1.0).rounds
        (2, 4)
        >>> Style(same=0.8, near=0.4)
        Traceback (most recent call last):
        ...
        ValueError: same + near is a probability; got 1.2
    """

    temperature: tuple[float, float] = (0.2, 0.9)
    student_moods: tuple[str, ...] = tuple(STUDENT_MOODS)
    tutor_moods: tuple[str, ...] = tuple(TUTOR_MOODS)
    rounds: tuple[int, int] = (2, 4)
    student_pronoun: float = 0.5
    tutor_pronoun: float = 0.4
    second_fact: float = 0.25
    shared: float = 0.0
    same: float = 0.45
    near: float = 0.35
    greeting: float = 0.0
    farewell: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature[0] <= self.temperature[1]:
            raise ValueError(f"temperature is (low, high) with 0 < low <= high; got {self.temperature}")
        if not 1 <= self.rounds[0] <= self.rounds[1]:
            raise ValueError(f"rounds is (fewest, most) with 1 <= fewest <= most; got {self.rounds}")
        for name, known in (("student_moods", STUDENT_MOODS), ("tutor_moods", TUTOR_MOODS)):
            moods = getattr(self, name)
            if not moods or set(moods) - set(known):
                raise ValueError(f"{name} takes one or more of {', '.join(known)}; got {moods}")
        for knob in fields(self):
            if knob.type is float and not 0 <= getattr(self, knob.name) <= 1:
                raise ValueError(f"{knob.name} is a probability in [0, 1]; got {getattr(self, knob.name)}")
        if self.same + self.near > 1 + 1e-9:
            raise ValueError(f"same + near is a probability; got {self.same + self.near:g}")


def _choose(rng: random.Random, options: tuple[str, ...], temperature: float) -> str:
    """Prefer early options: option k has weight exp(-k / (2 temperature)); a cold speaker repeats one phrasing."""
    weights = [2.718281828 ** (-k / (2 * temperature)) for k in range(len(options))]
    return rng.choices(options, weights)[0]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def _second(world: World, rng: random.Random, name: str, fact: tuple[str, str], temperature: float) -> str:
    """A sentence that adds a fact nobody asked for."""
    extra = _choose(rng, RELATIONS[fact[1]].answers, temperature)
    return "also, " + extra.format(x=name, v=world.facts[fact])


def _answer(
    world: World, rng: random.Random, style: Style, concept: str, relation: str, mood: str, temperature: float
) -> str:
    name = "it" if rng.random() < style.tutor_pronoun else f"the {concept}"
    told = _choose(rng, RELATIONS[relation].answers, temperature)
    parts = [_choose(rng, TUTOR_MOODS[mood], temperature), told.format(x=name, v=world.facts[concept, relation])]
    if rng.random() < style.second_fact:
        other = rng.choice([r for r in RELATIONS if r != relation])
        parts.append(_second(world, rng, "it", (concept, other), temperature))
    return " ".join(_sentence(part) for part in parts if part)


def _next_topic(world: World, rng: random.Random, style: Style, concept: str, relation: str) -> tuple[str, str]:
    """The next question: the same concept, a neighbour that shares a word, or any other of the subject."""
    family = world.subjects[world.subject_of[concept]]
    at, draw = family.index(concept), rng.random()
    if draw < style.same:
        return concept, rng.choice([r for r in RELATIONS if r != relation])
    near = [family[k] for k in (at - 1, at + 1) if 0 <= k < len(family)]
    pool = near if draw < style.same + style.near else [c for c in family if c != concept]
    return rng.choice(pool), rng.choice(list(RELATIONS))


def _ornament(
    world: World,
    rng: random.Random,
    style: Style,
    replies: list[dict[str, str]],
    facts: list[tuple[str, str]],
    temperature: float,
) -> None:
    """Add to the replies what a style asks for beyond the answers; a knob at 0 draws nothing, and leaves the stream."""
    for reply, told in zip(replies, facts, strict=True) if style.shared else ():
        others = [fact for fact in facts if fact != told]
        if others and rng.random() < style.shared:
            fact = rng.choice(others)
            reply["content"] += " " + _sentence(_second(world, rng, f"the {fact[0]}", fact, temperature))
    if style.greeting and rng.random() < style.greeting:
        replies[0]["content"] = f"{rng.choice(GREETINGS)} {replies[0]['content']}"
    if style.farewell and rng.random() < style.farewell:
        replies[-1]["content"] += f" {rng.choice(FAREWELLS)}"


def converse(
    world: World, rng: random.Random, conversation_id: str, error_rate: float, style: Style = Style()
) -> Conversation:
    """One conversation of question-answer rounds.

    Args:
        world: the facts.
        rng: the source of randomness; it is advanced.
        conversation_id: its name.
        error_rate: chance in [0, 1] that the tutor answers another relation or another concept.
            The student complains at the next turn and asks again, so that text carries a signal of relevance.
        style: how people talk.

    Returns:
        The `Conversation`.
    """
    temperature = rng.uniform(*style.temperature)
    student, tutor = rng.choice(style.student_moods), rng.choice(style.tutor_moods)
    concept = rng.choice(list(world.subject_of))
    relation, previous, opening = rng.choice(list(RELATIONS)), None, ""
    messages, facts = [], []
    for _ in range(rng.randint(*style.rounds)):
        name = "it" if concept == previous and rng.random() < style.student_pronoun else f"the {concept}"
        asked = _choose(rng, RELATIONS[relation].questions, temperature).format(x=name)
        mood = _choose(rng, STUDENT_MOODS[student], temperature)
        messages.append({"role": "user", "content": " ".join(p for p in (opening, mood, asked) if p)})
        told, wrong = (concept, relation), rng.random() < error_rate
        if wrong and rng.random() < 0.5:
            told = (concept, rng.choice([r for r in RELATIONS if r != relation]))
        elif wrong:
            family = world.subjects[world.subject_of[concept]]
            told = (rng.choice([c for c in family if c != concept]), relation)
        messages.append({"role": "assistant", "content": _answer(world, rng, style, *told, tutor, temperature)})
        facts.append(told)
        previous = concept
        if wrong:
            opening = _choose(rng, COMPLAINTS, temperature)
        else:
            opening = _choose(rng, THANKS, temperature)
            concept, relation = _next_topic(world, rng, style, concept, relation)
    _ornament(world, rng, style, messages[1::2], facts, temperature)
    return Conversation(conversation_id, tuple(messages))


def conversations(
    world: World, n: int, seed: int, error_rate: float = 0.0, style: Style = Style()
) -> Iterator[Conversation]:
    """Stream `n` seeded conversations.

    Args:
        world: the facts.
        n: how many; at least 1.
        seed: equal seeds give equal streams; use different seeds for pretraining, training and evaluation.
        error_rate: see `converse`. 0.3 for pretraining text, 0 for preference data.
        style: see `Style`.

    Yields:
        `Conversation` objects named `edu-<seed>-<index>`.

    Raises:
        ValueError: where n < 1 or error_rate is outside [0, 1].

    Example:
        >>> talk = next(conversations(make_world(0), n=1, seed=7))
        >>> [m["role"] for m in talk.messages[:2]]
        ['user', 'assistant']
    """
    if n < 1:
        raise ValueError(f"n must be at least 1 conversation; got {n}")
    if not 0 <= error_rate <= 1:
        raise ValueError(f"error_rate is a probability in [0, 1]; got {error_rate}")
    rng = random.Random(f"edu-talk-{seed}")
    for index in range(n):
        yield converse(world, rng, f"edu-{seed}-{index}", error_rate, style)
