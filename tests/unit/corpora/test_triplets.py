"""Messages that name row and field, and a split that leaks nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_lib.corpora.triplets import TripletError, split, validate


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


def test_missing_field_equal_texts_and_no_rows():
    row = triplet()
    del row["rejected"]
    with pytest.raises(TripletError, match="row 0: field 'rejected' is missing"):
        validate([row])
    with pytest.raises(TripletError, match="row 1: 'chosen' and 'rejected' are the same text"):
        validate([triplet(), triplet(rejected=say("assistant", "So."))])
    with pytest.raises(TripletError, match="there are no triplets"):
        validate([])


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
