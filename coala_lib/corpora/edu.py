"""A generated student-tutor world: seeded facts, conversations about them, nothing to download.

The paper's EduFeedback is written by a large language model (App. E); nobody can say for certain which of its replies
answer the question. Here the facts are known, so an exact oracle (`edu_oracle`) can score any reply.

Made so that no shortcut separates a good reply from a bad one:

* neighbouring concepts share a word, so that a name alone confuses;
* values come from small pools shared between relations, so that right and wrong replies use the same words;
* greetings, acknowledgements and pronouns of the tutor do not depend on the turn.

Differs from the paper: replies are templates, not GPT-4o text; 11 subjects, moods, temperature 0.2-0.9 and 4-8
alternating utterances follow its App. E.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

SUBJECTS: dict[str, tuple[str, str]] = {
    "physics": ("coupled driven damped harmonic stable", "oscillator pendulum circuit wave lattice field"),
    "chemistry": ("covalent ionic polar reactive bonded", "crystal solution compound mixture salt gas"),
    "biology": ("cellular dormant adaptive marine viral", "colony membrane signal habitat gene enzyme"),
    "astronomy": ("binary distant rotating dwarf pulsing", "star galaxy nebula orbit cluster disk"),
    "mathematics": ("linear convex finite prime smooth", "mapping sequence group surface graph measure"),
    "history": ("medieval coastal imperial rural secret", "treaty guild revolt market archive council"),
    "geography": ("glacial tropical inland volcanic arid", "valley plateau basin delta ridge plain"),
    "literature": ("tragic epic lyric hidden modern", "narrator verse chorus plot stanza motif"),
    "music": ("minor open broken modal syncopated", "chord rhythm melody scale fugue cadence"),
    "philosophy": ("moral free radical practical inner", "duty will doubt virtue reason sense"),
    "economics": ("public scarce fixed elastic shared", "good demand cost price capital budget"),
}

_THINGS = (
    "a rule for change",
    "a pattern that repeats",
    "a limit on growth",
    "a way to compare parts",
    "a measure of order",
    "a balance of two sides",
    "a path with no end",
    "a link between causes",
)
_PLACES = (
    "old river maps",
    "early trade records",
    "a study of tides",
    "a debate in court",
    "work with glass",
    "notes on falling bodies",
    "reports from islands",
    "songs of the harvest",
)
_FACTORS = (
    "the size of the sample",
    "the local climate",
    "the order of steps",
    "the shape of the border",
    "the time it takes",
    "the heat around it",
    "the number of parts",
    "the choice of scale",
)
_AIMS = (
    "planning long trips",
    "checking a proof",
    "saving energy",
    "sorting old letters",
    "testing new tools",
    "telling a story",
    "setting fair rules",
    "reading weak signals",
)


@dataclass(frozen=True)
class Relation:
    """How one relation is asked for, how it is told, and which values it can take.

    Attributes:
        questions: phrasings with `{x}` for the concept.
        answers: phrasings with `{x}` and `{v}` for the value.
        values: the pool of values, shared with another relation where the grammar allows.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    values: tuple[str, ...]


RELATIONS: dict[str, Relation] = {
    "define": Relation(
        ("What is {x}?", "How would you define {x}?", "What does {x} mean?"),
        ("{x} is {v}", "{x} means {v}", "we define {x} as {v}"),
        _THINGS,
    ),
    "origin": Relation(
        ("Where does {x} come from?", "How did {x} arise?", "What started {x}?"),
        ("{x} comes from {v}", "{x} arose from {v}", "{x} started with {v}"),
        _PLACES,
    ),
    "use": Relation(
        ("What is {x} used for?", "How do people use {x}?", "What does {x} help with?"),
        ("{x} is used for {v}", "people use {x} for {v}", "{x} helps with {v}"),
        _AIMS,
    ),
    "depend": Relation(
        ("What does {x} depend on?", "What controls {x}?", "What can change {x}?"),
        ("{x} depends on {v}", "{x} is controlled by {v}", "{x} changes with {v}"),
        _FACTORS,
    ),
    "example": Relation(
        ("Can you give an example of {x}?", "Where can I see {x}?", "Where does {x} show up?"),
        ("an example of {x} is {v}", "you can see {x} in {v}", "{x} shows up in {v}"),
        _PLACES,
    ),
    "mistake": Relation(
        ("What do people get wrong about {x}?", "How is {x} misread?", "What is {x} mistaken for?"),
        ("people wrongly take {x} for {v}", "{x} is misread as {v}", "{x} is mistaken for {v}"),
        _THINGS,
    ),
    "contrast": Relation(
        ("What sets {x} apart?", "How does {x} differ from the rest?", "What makes {x} special?"),
        ("{x} is set apart by {v}", "{x} differs in {v}", "{x} is special in {v}"),
        _FACTORS,
    ),
}

STUDENT_MOODS = {
    "curious": ("I wonder.", "I am curious.", ""),
    "worried": ("Sorry, I am lost.", "This is hard.", ""),
    "brisk": ("Quick one.", "Next.", ""),
    "playful": ("Fun topic!", "Let us see.", ""),
}
TUTOR_MOODS = {
    "warm": ("Good question.", "Happy to help.", ""),
    "plain": ("Well.", "", ""),
    "strict": ("Listen.", "Be precise.", ""),
    "playful": ("Here we go!", "Ha, nice one.", ""),
}
THANKS = ("I see.", "Thanks.", "Okay.", "")
COMPLAINTS = ("That is not what I asked.", "No, you missed my question.", "That does not answer me.")


@dataclass(frozen=True)
class World:
    """The facts of one seed.

    Attributes:
        subjects: subject -> its ten concepts, neighbours sharing a word.
        facts: (concept, relation) -> value.
    """

    subjects: dict[str, tuple[str, ...]]
    facts: dict[tuple[str, str], str]

    @cached_property
    def subject_of(self) -> dict[str, str]:
        return {concept: subject for subject, concepts in self.subjects.items() for concept in concepts}


@dataclass(frozen=True)
class Conversation:
    """A conversation as messages (`role`, `content`) that alternate user, assistant, user, ..."""

    conversation_id: str
    messages: tuple[dict[str, str], ...]


def make_world(seed: int = 0) -> World:
    """Draw the facts: 11 subjects x 10 concepts x 7 relations, each value uniform in its relation's pool.

    Args:
        seed: the world's seed; equal seeds give equal worlds.

    Returns:
        A `World` of 770 facts.

    Example:
        >>> world = make_world(0)
        >>> len(world.facts), world.subjects["physics"][:3]
        (770, ('coupled oscillator', 'coupled pendulum', 'driven pendulum'))
    """
    rng = random.Random(f"edu-world-{seed}")
    subjects = {}
    for subject, (adjectives, nouns) in SUBJECTS.items():
        left, right = adjectives.split(), nouns.split()
        subjects[subject] = tuple(f"{left[k // 2]} {right[(k + 1) // 2]}" for k in range(10))
    facts = {
        (concept, name): rng.choice(relation.values)
        for concepts in subjects.values()
        for concept in concepts
        for name, relation in RELATIONS.items()
    }
    return World(subjects, facts)


def _choose(rng: random.Random, options: tuple[str, ...], temperature: float) -> str:
    """Prefer early options: option k has weight exp(-k / (2 temperature)); a cold speaker repeats one phrasing."""
    weights = [2.718281828 ** (-k / (2 * temperature)) for k in range(len(options))]
    return rng.choices(options, weights)[0]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def _answer(world: World, rng: random.Random, concept: str, relation: str, mood: str, temperature: float) -> str:
    name = "it" if rng.random() < 0.4 else f"the {concept}"
    told = _choose(rng, RELATIONS[relation].answers, temperature)
    parts = [_choose(rng, TUTOR_MOODS[mood], temperature), told.format(x=name, v=world.facts[concept, relation])]
    if rng.random() < 0.25:
        other = rng.choice([r for r in RELATIONS if r != relation])
        extra = _choose(rng, RELATIONS[other].answers, temperature)
        parts.append("also, " + extra.format(x="it", v=world.facts[concept, other]))
    return " ".join(_sentence(part) for part in parts if part)


def _next_topic(world: World, rng: random.Random, concept: str, relation: str) -> tuple[str, str]:
    """The next question: same concept (0.45), a neighbour that shares a word (0.35), or any of the subject."""
    family = world.subjects[world.subject_of[concept]]
    at, draw = family.index(concept), rng.random()
    if draw < 0.45:
        return concept, rng.choice([r for r in RELATIONS if r != relation])
    near = [family[k] for k in (at - 1, at + 1) if 0 <= k < len(family)]
    pool = near if draw < 0.8 else [c for c in family if c != concept]
    return rng.choice(pool), rng.choice(list(RELATIONS))


def converse(world: World, rng: random.Random, conversation_id: str, error_rate: float) -> Conversation:
    """One conversation of 2-4 question-answer rounds (4-8 utterances, as in the paper's App. E).

    Args:
        world: the facts.
        rng: the source of randomness; it is advanced.
        conversation_id: its name.
        error_rate: chance in [0, 1] that the tutor answers another relation or another concept.
            The student complains at the next turn and asks again, so that text carries a signal of relevance.

    Returns:
        The `Conversation`.
    """
    temperature = rng.uniform(0.2, 0.9)
    student, tutor = rng.choice(list(STUDENT_MOODS)), rng.choice(list(TUTOR_MOODS))
    concept = rng.choice(list(world.subject_of))
    relation, previous, opening = rng.choice(list(RELATIONS)), None, ""
    messages = []
    for _ in range(rng.randint(2, 4)):
        name = "it" if concept == previous and rng.random() < 0.5 else f"the {concept}"
        asked = _choose(rng, RELATIONS[relation].questions, temperature).format(x=name)
        mood = _choose(rng, STUDENT_MOODS[student], temperature)
        messages.append({"role": "user", "content": " ".join(p for p in (opening, mood, asked) if p)})
        told, wrong = (concept, relation), rng.random() < error_rate
        if wrong and rng.random() < 0.5:
            told = (concept, rng.choice([r for r in RELATIONS if r != relation]))
        elif wrong:
            family = world.subjects[world.subject_of[concept]]
            told = (rng.choice([c for c in family if c != concept]), relation)
        messages.append({"role": "assistant", "content": _answer(world, rng, *told, tutor, temperature)})
        previous = concept
        if wrong:
            opening = _choose(rng, COMPLAINTS, temperature)
        else:
            opening = _choose(rng, THANKS, temperature)
            concept, relation = _next_topic(world, rng, concept, relation)
    return Conversation(conversation_id, tuple(messages))


def conversations(world: World, n: int, seed: int, error_rate: float = 0.0) -> Iterator[Conversation]:
    """Stream `n` seeded conversations.

    Args:
        world: the facts.
        n: how many; at least 1.
        seed: equal seeds give equal streams; use different seeds for pretraining, training and evaluation.
        error_rate: see `converse`. 0.3 for pretraining text, 0 for preference data.

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
        yield converse(world, rng, f"edu-{seed}-{index}", error_rate)
