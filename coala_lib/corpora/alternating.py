"""The Alternating Population Strategy: preference pairs out of plain conversations, with no judge (App. E.2-E.3).

For each tutor turn but the last: prompt = the history up to the student's turn, chosen = the tutor's next turn,
rejected = the tutor turn after that. A conversation with A replies gives A - 1 triplets
(App. E.2 says "the same number as replies"; its own example gives A - 1).
"""

from collections.abc import Iterable

from coala_lib.corpora.edu import Conversation
from coala_lib.corpora.triplets import Triplet


def alternate(conversations: Iterable[Conversation], source: str) -> list[Triplet]:
    """Triplets by the Alternating Population Strategy.

    Args:
        conversations: messages that alternate user, assistant, user, ...
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
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(f"conversation {talk.conversation_id}: roles must alternate user, assistant; got {roles}")
        for turn in range(1, len(roles) - 2, 2):
            chosen, rejected = talk.messages[turn], talk.messages[turn + 2]
            if chosen["content"] == rejected["content"]:
                continue
            triplets.append(
                Triplet(
                    prompt=list(talk.messages[:turn]),
                    chosen=[chosen],
                    rejected=[rejected],
                    conversation_id=talk.conversation_id,
                    turn_index=turn // 2,
                    source=source,
                )
            )
    return triplets
