"""The facts of the tutor world, and the words they are asked for and told in.

Eleven subjects (as in the paper's App. E) of ten concepts, seven relations a concept.
Neighbouring concepts share a word, and relations share pools of values, so that right and wrong replies use the
same words.

Differs from the paper: its facts are those of a large language model; ours are drawn, so that they are known.
"""

import random
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
# said in the first and in the last reply only: what a tutor greets with tells the position of a reply, not its worth
GREETINGS = ("Hello and welcome.", "Hi there.", "Nice to meet you.")
FAREWELLS = ("Goodbye.", "See you next time.", "Good luck with your quiz.")


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
