"""Probes: how well can pairs be ordered by something that is no preference?

A probe sees a pair as the difference of two rows, chosen minus rejected, and a logistic regression without intercept
learns on some conversations which side was chosen. It is judged on other conversations. A probe that never sees the
prompt and still beats one half has found a property of the *replies*; a head can find it too, and need not read.

Differs from the paper: its App. E.3 takes win rates of the trained model as the check of the data; nothing there tells
a preference from a shortcut.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import MaxAbsScaler

from coala_lib.corpora.triplets import Triplet

Triplets = Sequence[Triplet]
Scores = Float[np.ndarray, " N"]
Probe = Callable[[Triplets, Triplets], Scores]
View = Callable[[Triplets], sparse.csr_array]

GREETINGS = "hello|hi|hey|greetings|welcome|good (?:morning|afternoon|evening|day)|nice to meet you"
CLOSINGS = (
    "goodbye|bye|farewell|good luck|take care|see you|so long|come again|"
    "have a (?:good|great|nice|lovely|wonderful) \\w+|you(?:'re| are) welcome|any ?time|glad (?:i|to) \\w+ help"
)
TOKENS = r"(?u)\b\w+\b"  # scikit-learn's own pattern leaves out single digits, and "step 2" tells the turn
LEXICONS = tuple(re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for words in (GREETINGS, CLOSINGS))


def text(triplet: Triplet, field: str) -> str:
    """The messages of a field, joined by line feeds."""
    return "\n".join(message["content"] for message in triplet[field])


def texts(triplets: Triplets, field: str) -> list[str]:
    """A field of every row, as text."""
    return [text(triplet, field) for triplet in triplets]


def _both(triplets: Triplets) -> list[str]:
    return texts(triplets, "chosen") + texts(triplets, "rejected")


def _learn(rows: sparse.csr_array, held_out: sparse.csr_array) -> Scores:
    """Margins of the held-out pairs, from a logistic regression on the differences of the training pairs."""
    # a difference and its negative say the same, so every second pair is turned round to have two classes
    signs = np.where(np.arange(rows.shape[0]) % 2, 1.0, -1.0)
    scaler = MaxAbsScaler().fit(rows)
    model = LogisticRegression(fit_intercept=False, C=1.0, max_iter=500)
    model.fit(scaler.transform(sparse.diags_array(signs) @ rows), signs)
    return model.decision_function(scaler.transform(held_out))


def _counter() -> CountVectorizer:
    """Which words and word pairs a text holds."""
    return CountVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), min_df=2, max_features=20_000, binary=True)


def _differences(view: Callable[[list[str]], np.ndarray | sparse.sparray], triplets: Triplets) -> sparse.csr_array:
    return sparse.csr_array(view(texts(triplets, "chosen"))) - sparse.csr_array(view(texts(triplets, "rejected")))


def length(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by the length of the replies: characters and words."""

    def view(said: list[str]) -> np.ndarray:
        return np.array([[len(reply), len(reply.split())] for reply in said], float)

    return _learn(_differences(view, train), _differences(view, test))


def _word_view(train: Triplets) -> View:
    counter = _counter().fit(_both(train))
    return lambda triplets: _differences(counter.transform, triplets)


def words(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by words and word pairs of the replies alone: the prompt-blind probe."""
    view = _word_view(train)
    return _learn(view(train), view(test))


def greetings(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by how often the replies greet or take leave, by a fixed lexicon."""

    def view(said: list[str]) -> np.ndarray:
        return np.array([[len(lexicon.findall(reply)) for lexicon in LEXICONS] for reply in said], float)

    return _learn(_differences(view, train), _differences(view, test))


def turn(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by the turn that each reply seems to come from, the earlier one first.

    A ridge regression learns turn numbers from words: the rejected reply counts as one turn after the chosen one, as
    the Alternating Strategy has it. What it orders, it orders by position, where `words` may use anything.
    """
    counter, turns = _counter(), np.array([triplet["turn_index"] for triplet in train], float)
    model = Ridge(alpha=1.0).fit(counter.fit_transform(_both(train)), np.concatenate([turns, turns + 1]))
    chosen, rejected = (model.predict(counter.transform(texts(test, side))) for side in ("chosen", "rejected"))
    return rejected - chosen


def memory(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by how often each text was chosen less how often it was rejected in training."""
    score = Counter(texts(train, "chosen"))
    score.subtract(texts(train, "rejected"))
    return np.array([score[text(t, "chosen")] - score[text(t, "rejected")] for t in test], float)


def _overlap_view(train: Triplets) -> View:
    vectorizer = TfidfVectorizer(token_pattern=TOKENS, max_features=20_000)
    vectorizer.fit(_both(train) + texts(train, "prompt"))

    def view(triplets: Triplets) -> sparse.csr_array:
        apart = _differences(vectorizer.transform, triplets)
        prompts = ([t["prompt"][-1]["content"] for t in triplets], texts(triplets, "prompt"))
        columns = [apart.multiply(vectorizer.transform(asked)).sum(axis=1) for asked in prompts]
        return sparse.csr_array(np.stack([np.asarray(column).ravel() for column in columns], axis=1))

    return view


def overlap(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by what each reply shares with the last turn and with the whole prompt: a probe that reads both.

    The features are the cosines of tf-idf vectors. Topic is most of what it can see, so it is no artefact by itself;
    `prompt_swap` says how much of it depends on the prompt.
    """
    view = _overlap_view(train)
    return _learn(view(train), view(test))


def words_and_overlap(train: Triplets, test: Triplets) -> Scores:
    """Order pairs by the features of `words` and `overlap` together: its gain over `words` is due to the prompt."""
    views = _word_view(train), _overlap_view(train)
    return _learn(*(sparse.csr_array(sparse.hstack([view(rows) for view in views])) for rows in (train, test)))


BLIND: dict[str, Probe] = {
    "length": length,
    "words": words,
    "greetings": greetings,
    "turn": turn,
    "memory": memory,
}


def right(margins: Scores) -> Scores:
    """1 where the chosen reply is ahead, 0 where it is behind, one half for a tie."""
    return (margins > 0) + 0.5 * (margins == 0)


def prompt_swap(triplets: Triplets, seed: int) -> list[Triplet]:
    """The same pairs under the prompts of other conversations: whatever still orders them is not about the prompt.

    Args:
        triplets: rows of at least two conversations.
        seed: of the draw of donors.

    Returns:
        The rows in order, each with the prompt of a row of another conversation.

    Raises:
        ValueError: where all rows are of one conversation.

    Example:
        >>> rows = [dict(prompt=[c], chosen=[], rejected=[], conversation_id=c) for c in "ab"]
        >>> [row["prompt"] for row in prompt_swap(rows, seed=0)]
        [['b'], ['a']]
    """
    talks = np.array([triplet["conversation_id"] for triplet in triplets])
    if len(np.unique(talks)) < 2:
        raise ValueError("prompts can be swapped between conversations only; got rows of one conversation")
    rng = np.random.default_rng(seed)
    donors = np.arange(len(triplets))
    while (same := talks[donors] == talks).any():
        donors[same] = rng.integers(len(triplets), size=same.sum())
    return [triplet | {"prompt": triplets[donor]["prompt"]} for triplet, donor in zip(triplets, donors, strict=True)]
