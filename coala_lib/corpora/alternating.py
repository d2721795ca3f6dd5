"""The Alternating Population Strategy: preference pairs out of plain conversations, with no judge (App. E.2-E.3).

For each tutor turn but the last: prompt = the history up to the student's turn, chosen = the tutor's next turn
(utterance i), rejected = the tutor turn after that (utterance i + 2).

Real conversations are broken in many ways. `alternate` refuses them; `alternate_any` mends by these rules, in this
order, and counts every use:

1. a conversation with a speaker who is neither student, tutor nor system gives nothing;
2. empty turns go, and so do system messages after the first turn (a first one opens every prompt, as in App. E.3);
3. turns of one speaker in a row become one turn, joined by a line feed;
4. turns of the tutor before the student has spoken go: the paper's prompt is a turn of "agent 2", the student;
5. turns of the student after the tutor's last are never answered, and no pair uses them;
6. two equal replies state no preference: their pair is left out (also by `alternate`).

Differs from the paper: A replies give A - 1 triplets (App. E.2 says "the same number" as replies; its own count, 3-4
turns to 2-3 triplets, is A - 1); the role says who speaks, where its example writes "agent2:" into the prompt.

`first_utterance` is the earlier form in the DPO-Convex paper (its Section 4.1): one triplet a conversation.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from coala_lib.corpora.conversation import Conversation, Message
from coala_lib.corpora.triplets import Triplet, say


@dataclass(frozen=True)
class AlternationReport:
    """What became of the conversations; `triplets + ties == expected` always.

    Attributes:
        conversations: how many were read.
        replies: tutor turns that answer a student, after mending.
        expected: sum of A - 1 over the conversations with A >= 1 replies.
        triplets: pairs made.
        ties: pairs left out because both replies are equal.
        mended: rule -> conversations it changed.
        without: reason -> conversations that give no triplet.
    """

    conversations: int
    replies: int
    expected: int
    triplets: int
    ties: int
    mended: dict[str, int]
    without: dict[str, int]


def mend(talk: Conversation, student: str = "user", tutor: str = "assistant") -> tuple[Conversation | None, list[str]]:
    """A conversation in the form the strategy needs, by the rules above.

    Args:
        talk: any conversation.
        student, tutor: what its roles call them.

    Returns:
        ([system,] user, assistant, user, ... ending with the tutor's last turn, or None where rule 1 holds;
        the names of the rules used).

    Example:
        >>> said = [("assistant", "Hello!"), ("user", "Why?"), ("user", "Tell me."), ("assistant", "So.")]
        >>> mended, rules = mend(Conversation("c", tuple({"role": r, "content": c} for r, c in said)))
        >>> [m["content"] for m in mended.messages], rules
        (['Why?\\nTell me.', 'So.'], ['turns joined', 'opening of the tutor'])
    """
    names = {student: "user", tutor: "assistant", "system": "system"}
    if any(message["role"] not in names for message in talk.messages):
        return None, ["unknown speaker"]
    rules: dict[str, None] = {}
    system: list[Message] = []
    turns: list[Message] = []
    for message in talk.messages:
        role, content = names[message["role"]], message["content"]
        if not content.strip():
            rules["empty turns"] = None
        elif role == "system":
            if turns or system:
                rules["late system message"] = None
            else:
                system = say("system", content)
        elif turns and turns[-1]["role"] == role:
            rules["turns joined"] = None
            turns[-1] = {"role": role, "content": f"{turns[-1]['content']}\n{content}"}
        else:
            turns.append({"role": role, "content": content})
    if turns and turns[0]["role"] == "assistant":
        rules["opening of the tutor"] = None
        del turns[0]
    if turns and turns[-1]["role"] == "user":
        rules["unanswered student"] = None
        del turns[-1]
    return Conversation(talk.conversation_id, (*system, *turns)), list(rules)


def _pairs(talk: Conversation, source: str) -> tuple[list[Triplet], int]:
    """The triplets of a well-formed conversation, and its ties."""
    messages = talk.messages
    first = 1 if messages and messages[0]["role"] == "system" else 0
    triplets, ties = [], 0
    for turn in range(first + 1, len(messages) - 2, 2):
        chosen, rejected = messages[turn], messages[turn + 2]
        if chosen["content"] == rejected["content"]:
            ties += 1
            continue
        triplets.append(
            Triplet(
                prompt=list(messages[:turn]),
                chosen=[chosen],
                rejected=[rejected],
                conversation_id=talk.conversation_id,
                turn_index=(turn - first) // 2,
                source=source,
            )
        )
    return triplets, ties


def alternate(conversations: Iterable[Conversation], source: str) -> list[Triplet]:
    """Triplets by the Alternating Population Strategy, from conversations in good order.

    Args:
        conversations: messages that alternate user, assistant, user, ...; a system message may come first.
        source: the data set's name, kept with every triplet.

    Returns:
        A - 1 triplets for a conversation of A replies; pairs with equal texts are left out (they state no preference).

    Raises:
        ValueError: naming the conversation, where the roles do not alternate.

    Example:
        >>> roles = ("user", "assistant", "user", "assistant")
        >>> talk = Conversation("c", tuple({"role": r, "content": f"{i}"} for i, r in enumerate(roles)))
        >>> (triplet,) = alternate([talk], source="doc")
        >>> triplet["chosen"][0]["content"], triplet["rejected"][0]["content"], len(triplet["prompt"])
        ('1', '3', 1)
    """
    triplets: list[Triplet] = []
    for talk in conversations:
        roles = [message["role"] for message in talk.messages]
        if roles[roles[:1] == ["system"] :] != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(
                f"conversation {talk.conversation_id}: roles must alternate user, assistant; got {roles} "
                "(alternate_any mends such conversations)"
            )
        triplets += _pairs(talk, source)[0]
    return triplets


def alternate_any(
    conversations: Iterable[Conversation], source: str, *, student: str = "user", tutor: str = "assistant"
) -> tuple[list[Triplet], AlternationReport]:
    """Triplets by the Alternating Population Strategy, from conversations as they are found.

    Args:
        conversations: any conversations; they are mended by the rules at the top of this file.
        source: the data set's name, kept with every triplet.
        student, tutor: what their roles call the two; in the triplets they are `user` and `assistant`.

    Returns:
        (triplets, the report that accounts for every conversation).

    Example:
        >>> talk = Conversation("c", tuple({"role": r, "content": f"{i}"} for i, r in enumerate("TSTSTS")))
        >>> triplets, report = alternate_any([talk], "doc", student="S", tutor="T")
        >>> [t["rejected"][0]["content"] for t in triplets], report.replies, report.mended
        (['4'], 2, {'opening of the tutor': 1, 'unanswered student': 1})
    """
    triplets: list[Triplet] = []
    mended: Counter[str] = Counter()
    without: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for talk in conversations:
        sound, rules = mend(talk, student, tutor)
        count["conversations"] += 1
        if sound is None:
            without[rules[0]] += 1
            continue
        mended.update(rules)
        found, ties = _pairs(sound, source)
        replies = sum(message["role"] == "assistant" for message in sound.messages)
        count.update(replies=replies, expected=max(replies - 1, 0), ties=ties)
        if not found:
            without["no reply" if not replies else "one reply" if replies == 1 else "equal replies"] += 1
        triplets += found
    report = AlternationReport(
        **{name: count[name] for name in ("conversations", "replies", "expected", "ties")},
        triplets=len(triplets),
        mended=dict(mended),
        without=dict(without),
    )
    return triplets, report


def first_utterance(conversations: Iterable[Conversation], source: str, steps: int = 2) -> list[Triplet]:
    """One triplet a conversation: its first query, the answer, and a later utterance (DPO-Convex, Section 4.1).

    That text takes the completion right after the query as chosen and the other agent's, two steps after the query,
    as rejected. Two steps after the query the *student* speaks; COALA's own rule takes the tutor's next turn instead,
    three steps after it. `steps` gives either.

    Args:
        conversations: messages that alternate user, assistant, user, ...; a system message may come first.
        source: the data set's name, kept with every triplet.
        steps: how many utterances after the query the rejected one stands: 2 as printed, 3 for the tutor's next turn.

    Returns:
        At most one triplet a conversation; those too short, and equal texts, give none.

    Raises:
        ValueError: where `steps` is below 2.

    Example:
        >>> said = enumerate(["user", "assistant"] * 2)
        >>> talk = Conversation("c", tuple({"role": r, "content": f"{i}"} for i, r in said))
        >>> [first_utterance([talk], "doc", steps)[0]["rejected"][0]["content"] for steps in (2, 3)]
        ['2', '3']
    """
    if steps < 2:
        raise ValueError(f"steps counts utterances after the query, and the chosen one is the first; got {steps}")
    triplets = []
    for talk in conversations:
        first = 1 if talk.messages and talk.messages[0]["role"] == "system" else 0
        if len(talk.messages) <= first + steps:
            continue
        chosen, rejected = talk.messages[first + 1]["content"], talk.messages[first + steps]["content"]
        if chosen == rejected:
            continue
        origin = {"conversation_id": talk.conversation_id, "turn_index": 0, "source": source}
        sides = {"chosen": say("assistant", chosen), "rejected": say("assistant", rejected)}
        triplets.append(Triplet(prompt=list(talk.messages[: first + 1]), **sides, **origin))
    return triplets
