"""Who talks: two agents, a student and a tutor, each with a persona and a mood, drawn from a seed.

The paper's EduFeedback lets two agents of one large language model talk (App. E.2): eleven subjects, moods that vary,
temperature 0.2-0.9, 4-8 alternating turns, a student who prepares for a quiz. `Plan` holds these choices, `setting`
draws conversation k from them: the same k gives the same people, whatever was generated before.

Differs from the paper: the prompts are our own (App. E prints none), the subjects are those of `edu_facts` (App. E
counts eleven and names few), and a theme within the subject keeps cold speakers from asking the same question always.
"""

import random
from dataclasses import dataclass

from coala_lib.corpora.conversation import Message

THEMES: dict[str, str] = {
    "physics": "waves / heat and work / electric circuits / gravity / light / pressure",
    "chemistry": "acids and bases / chemical bonds / reaction rates / the periodic table / solutions / gases",
    "biology": "cells / inheritance / evolution / the immune system / ecosystems / photosynthesis",
    "astronomy": "the life of stars / the Moon / planets / galaxies / telescopes / the expanding universe",
    "mathematics": "fractions / derivatives / probability / proof by induction / vectors / prime numbers",
    "history": "trade routes / the printing press / revolutions / ancient cities / the Cold War / daily life",
    "geography": "rivers / climate zones / earthquakes / population / maps / deserts",
    "literature": "narrators / metaphor / tragedy / the short story / poetic metre / satire",
    "music": "scales / rhythm / the Baroque period / the Romantic period / the orchestra / song forms",
    "philosophy": "knowledge and doubt / free will / virtue / what makes an act right / mind and body / paradoxes",
    "economics": "supply and demand / inflation / trade / taxes / public goods / interest rates",
}
STUDENTS = (
    "a pupil of fifteen who likes concrete examples",
    "a first-year student who mixes up similar terms",
    "an adult who returns to learning after ten years",
    "a diligent student who wants exact definitions",
    "a student from another field who compares with what you know",
    "a student who half remembers the lecture",
)
STUDENT_MOODS = ("curious", "worried about tomorrow", "tired", "in a hurry", "cheerful", "a little sceptical")
TUTORS = (
    "a patient tutor who builds on what was said before",
    "a terse tutor who comes straight to the point",
    "a tutor who explains with one everyday comparison",
    "a careful tutor who names common mistakes",
    "a lively tutor who ends on a short check",
)
TUTOR_MOODS = ("warm", "calm", "strict", "playful", "enthusiastic")

STUDENT_PROMPT = """You play a student who prepares for a quiz in {subject} and writes to a tutor in a chat.
You are {student}. Today you are {student_mood}. The quiz has questions on {theme}.
Ask one thing a turn, in at most {student_words} words. From your second turn on, first react to what the tutor said,
then ask for a detail, an example, a doubt you have, or the next thing the quiz may ask.
Do not answer questions and do not write the tutor's part. Write only your own next turn, without a name before it."""
TUTOR_PROMPT = """You tutor a student in {subject} in a chat; a quiz on {theme} is near.
You are {tutor}. Today you are {tutor_mood}: that may show in your tone, never in your facts.
Answer what was just asked, first and directly, in at most {tutor_words} words of plain prose.
Say so where you are not sure. Write only your own next turn, without a name before it."""
KICK_OFF = "The chat is open. Write your first question."


@dataclass(frozen=True)
class Plan:
    """What conversations to generate.

    Attributes:
        n: how many; a plan with a larger n goes on where a smaller one ended.
        seed: of all draws.
        subjects: which of the eleven.
        rounds: (fewest, most) question-answer rounds; (2, 4) gives the paper's 4-8 turns.
        temperature: (low, high) of the conversation's sampling temperature (App. E: 0.2-0.9).
        tutor_words, student_words: longest turn the prompts ask for.

    Raises:
        ValueError: naming the field that is out of its range.

    Example:
        >>> Plan(n=2, subjects=("music",)).rounds
        (2, 4)
    """

    n: int
    seed: int = 0
    subjects: tuple[str, ...] = tuple(THEMES)
    rounds: tuple[int, int] = (2, 4)
    temperature: tuple[float, float] = (0.2, 0.9)
    tutor_words: int = 90
    student_words: int = 40

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1 conversation; got {self.n}")
        if not self.subjects or set(self.subjects) - set(THEMES):
            raise ValueError(f"subjects are one or more of {', '.join(THEMES)}; got {self.subjects}")
        if not 1 <= self.rounds[0] <= self.rounds[1]:
            raise ValueError(f"rounds is (fewest, most) with 1 <= fewest <= most; got {self.rounds}")
        if not 0 <= self.temperature[0] <= self.temperature[1]:
            raise ValueError(f"temperature is (low, high) with 0 <= low <= high; got {self.temperature}")
        if min(self.tutor_words, self.student_words) < 1:
            raise ValueError("tutor_words and student_words must be at least 1")


@dataclass(frozen=True)
class Setting:
    """Who talks about what in one conversation; the fields fill the two prompts."""

    conversation_id: str
    subject: str
    theme: str
    student: str
    student_mood: str
    tutor: str
    tutor_mood: str
    rounds: int
    temperature: float


def setting(plan: Plan, index: int) -> Setting:
    """Draw the people of conversation `index`.

    Args:
        plan: see `Plan`; its n does not matter here.
        index: from 0.

    Returns:
        The `Setting`, a function of (plan, index) alone.

    Example:
        >>> setting(Plan(n=1), 7) == setting(Plan(n=500), 7)
        True
    """
    rng = random.Random(f"talk-{plan.seed}-{index}")
    subject = rng.choice(plan.subjects)
    return Setting(
        conversation_id=f"talk-{plan.seed}-{index}",
        subject=subject,
        theme=rng.choice(THEMES[subject].split(" / ")),
        student=rng.choice(STUDENTS),
        student_mood=rng.choice(STUDENT_MOODS),
        tutor=rng.choice(TUTORS),
        tutor_mood=rng.choice(TUTOR_MOODS),
        rounds=rng.randint(*plan.rounds),
        temperature=round(rng.uniform(*plan.temperature), 3),
    )


def view(plan: Plan, who: Setting, messages: list[Message]) -> list[Message]:
    """The conversation as the next speaker sees it: a system prompt, and its own turns as `assistant`.

    Args:
        plan: for the lengths.
        who: the people.
        messages: the turns so far, student first; even: the student is next, odd: the tutor.

    Returns:
        Messages for a chat model.

    Example:
        >>> plan = Plan(n=1)
        >>> [m["role"] for m in view(plan, setting(plan, 0), [])]
        ['system', 'user']
    """
    fields = vars(plan) | vars(who)
    if len(messages) % 2:
        return [{"role": "system", "content": TUTOR_PROMPT.format(**fields)}, *messages]
    swap = {"user": "assistant", "assistant": "user"}
    return [
        {"role": "system", "content": STUDENT_PROMPT.format(**fields)},
        {"role": "user", "content": KICK_OFF},
        *({"role": swap[message["role"]], "content": message["content"]} for message in messages),
    ]
