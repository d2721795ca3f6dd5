"""Messages that name row and field, splits that leak nothing, and duplicates that are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_lib.corpora.splitting import Duplicate, deduplicate, find_duplicates, split_by_prompt
from coala_lib.corpora.triplets import TripletError, extract_prompt, is_conversational, split, unpair, validate


def say(role, text):
    return [{"role": role, "content": text}]


def triplet(**changes):
    good = {"prompt": say("user", "Why?"), "chosen": say("assistant", "So."), "rejected": say("assistant", "No.")}
    return good | {"conversation_id": "c", "turn_index": 0, "source": "test"} | changes


def test_good_rows_pass():
    history = say("user", "Hi") + say("assistant", "Hello") + say("user", "Why?")
    validate([triplet(), triplet(prompt=history)])


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is missing or no list of messages"),
        ([], "is missing or no list of messages"),
        ("plain text", "is missing or no list of messages"),
        (["text"], "needs messages with 'role' and text 'content'"),
        ([{"role": "user"}], "needs messages with 'role' and text 'content'"),
        ([{"role": "user", "content": None}], "needs messages with 'role' and text 'content'"),
        (say("user", ""), "holds an empty message; remove or mend the row"),
        (say("assistant", " \n\t"), "holds an empty message; remove or mend the row"),
        (say("system", "Be kind."), "must end with a '(user|assistant)' message"),
    ],
)
def test_messages_name_row_and_field(field, value, message):
    with pytest.raises(TripletError, match=f"^row 2: field '{field}' {message}"):
        validate([triplet(), triplet(), triplet(**{field: value}), triplet(chosen=None)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": say("narrator", "Once.")}, "field 'prompt' has the role 'narrator'; the roles are system, user,"),
        ({"chosen": say("user", "Hm?") + say("assistant", "So.")}, "field 'chosen' must begin with an 'assistant'"),
        ({"chosen": say("assistant", "a\0b")}, "field 'chosen' holds a NUL character"),
        ({"chosen": say("assistant", "\ud83d")}, "field 'chosen' holds half of a surrogate pair"),
        ({"chosen": say("assistant", "x" * 1_000_001)}, "field 'chosen' holds a message of 1,000,001 characters"),
        ({"turn_index": "3"}, "field 'turn_index' is '3', not an integer"),
        ({"turn_index": True}, "field 'turn_index' is True, not an integer"),
        ({"conversation_id": 3.5}, "field 'conversation_id' is 3.5, not text"),
        ({"source": None}, "field 'source' is None, not text"),
        ({"score_chosen": "9"}, "field 'score_chosen' is '9', not a number"),
        ({"score_rejected": float("nan")}, "field 'score_rejected' is nan, not a number"),
        ({"score_chosen": 2, "score_rejected": 7.5}, "field 'score_chosen' is 2, below the 7.5 of 'rejected'"),
    ],
)
def test_what_else_breaks_the_schema(changes, message):
    with pytest.raises(TripletError, match=f"^row 0: {message}"):
        validate([triplet(**changes)])


def test_scores_and_long_replies_are_sound():
    validate([triplet(score_chosen=3, score_rejected=3.0), triplet(score_chosen=None, score_rejected=1)])
    validate([triplet(chosen=say("assistant", "So.") + say("user", "Hm?") + say("assistant", "x" * 1_000_000))])


def test_missing_field_equal_texts_and_no_rows():
    row = triplet()
    del row["rejected"]
    with pytest.raises(TripletError, match="row 0: field 'rejected' is missing"):
        validate([row])
    with pytest.raises(TripletError, match="row 1: 'chosen' and 'rejected' are the same text"):
        validate([triplet(), triplet(rejected=say("assistant", "So."))])
    with pytest.raises(TripletError, match="there are no triplets"):
        validate([])


messages = st.sampled_from("abc")


@given(st.lists(messages, min_size=1), st.lists(messages, min_size=1), st.lists(messages, min_size=1))
def test_the_shared_beginning_is_the_longest_that_leaves_a_message(start, one, other):
    prompt, chosen, rejected = extract_prompt(start + one, start + other)
    assert (prompt + chosen, prompt + rejected) == (start + one, start + other)
    assert chosen
    assert rejected
    assert len(prompt) >= len(start)
    assert chosen[0] != rejected[0] or 1 in (len(chosen), len(rejected))


def test_names_of_trl():
    assert is_conversational(triplet())
    assert not is_conversational({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."})
    assert not is_conversational({})
    rows = unpair([triplet(), triplet(turn_index=1)])
    assert [(row["label"], row["turn_index"]) for row in rows] == [(True, 0), (True, 1), (False, 0), (False, 1)]
    assert rows[3] == {
        "prompt": say("user", "Why?"),
        "completion": say("assistant", "No."),
        "label": False,
        "conversation_id": "c",
        "turn_index": 1,
        "source": "test",
    }


# forty conversations fill both sides, the drawn ones repeat some of them and add others
names = st.lists(st.integers(0, 60), max_size=30).map(lambda extra: [str(i) for i in [*range(40), *extra]])


@given(names, st.integers(0, 5), st.randoms())
def test_split_leaks_nothing_and_ignores_order(ids, seed, shuffler):
    rows = [triplet(conversation_id=name, turn_index=i) for i, name in enumerate(ids)]
    train, held_out = split(rows, 0.4, seed)
    sides = [{row["conversation_id"] for row in side} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    assert sorted(row["turn_index"] for row in train + held_out) == list(range(len(rows)))

    shuffled = rows.copy()
    shuffler.shuffle(shuffled)
    again = split(shuffled, 0.4, seed)
    assert [sorted(r["turn_index"] for r in side) for side in again] == [
        sorted(r["turn_index"] for r in side) for side in (train, held_out)
    ]
    # a conversation keeps its side when others come or go
    assert split(rows[:40], 0.4, seed)[1] == [row for row in held_out if row["turn_index"] < 40]


def test_split_takes_the_share_and_the_seed():
    rows = [triplet(conversation_id=str(i)) for i in range(2000)]
    _, held_out = split(rows, 0.2, seed=0)
    assert 340 < len(held_out) < 460
    assert held_out != split(rows, 0.2, seed=1)[1]
    # a larger share keeps what a smaller one had held out
    assert {r["conversation_id"] for r in held_out} < {r["conversation_id"] for r in split(rows, 0.3, seed=0)[1]}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match="held_out is a share in"):
        split([triplet()], share, seed=0)


def test_empty_side_is_refused():
    with pytest.raises(ValueError, match="a side of the split is empty"):
        split([triplet()], 0.5, seed=0)


# --- prompts apart

asked = st.lists(st.tuples(st.integers(0, 25), st.sampled_from(["Why?", "How?", " why?\n", "WHO?"])), max_size=12)


@given(asked, st.integers(0, 3), st.randoms())
def test_no_prompt_and_no_conversation_on_both_sides(shared, seed, shuffler):
    own = [triplet(conversation_id=f"{i:02}", prompt=say("user", f"question {i}")) for i in range(40)]
    rows = own + [triplet(conversation_id=f"{i:02}", prompt=say("user", text)) for i, text in shared]
    sides = split_by_prompt(rows, 0.4, seed)
    for of in (lambda r: r["conversation_id"], lambda r: r["prompt"][0]["content"].strip().casefold()):
        assert not {of(row) for row in sides[0]} & {of(row) for row in sides[1]}
    assert len(sides[0]) + len(sides[1]) == len(rows)

    shuffled = rows.copy()
    shuffler.shuffle(shuffled)
    again = split_by_prompt(shuffled, 0.4, seed)
    assert [{id(row) for row in side} for side in again] == [{id(row) for row in side} for side in sides]


def test_split_by_conversation_alone_lets_a_prompt_through():
    rows = [triplet(conversation_id=str(i), prompt=say("user", f"question {i // 2}")) for i in range(60)]
    prompts = [{row["prompt"][0]["content"] for row in side} for side in split(rows, 0.4, seed=0)]
    assert prompts[0] & prompts[1]
    assert split_by_prompt(
        [triplet(conversation_id=str(i), prompt=say("user", f"{i}")) for i in range(60)], 0.4, 0
    ) == (split([triplet(conversation_id=str(i), prompt=say("user", f"{i}")) for i in range(60)], 0.4, 0))
    with pytest.raises(ValueError, match="a side of the split is empty"):
        split_by_prompt([triplet(conversation_id=str(i)) for i in range(60)], 0.4, seed=0)


# --- once


def test_duplicates_exact_normalised_and_reversed():
    first = triplet()
    rows = [first, triplet(conversation_id="d"), triplet(chosen=say("assistant", " SO. "))]
    rows.append(triplet(chosen=first["rejected"], rejected=first["chosen"]))
    assert find_duplicates(rows) == [Duplicate(1, 0), Duplicate(3, 0, reversed=True)]
    assert find_duplicates(rows, normalised=True) == [Duplicate(1, 0), Duplicate(2, 0), Duplicate(3, 0, reversed=True)]
    kept, found = deduplicate(rows, normalised=True)
    assert kept == [rows[0], rows[3]]
    assert len(found) == 3
    assert deduplicate(kept)[0] == kept
