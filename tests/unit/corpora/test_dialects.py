"""Every dialect is told by its columns, read into the one schema, and written back."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_lib.corpora.dialect import detect
from coala_lib.corpora.dialects import DIALECTS, named
from coala_lib.corpora.export import to_rows, write_triplets
from coala_lib.corpora.files import read_rows, to_dataset, write_rows
from coala_lib.corpora.ratings import ATTRIBUTES, helpsteer, shp, ultrafeedback
from coala_lib.corpora.triplets import TripletError, say, validate
from coala_lib.corpora.validation import read_triplets, sift


def ask(text="Why?"):
    return say("user", text)


def tell(text):
    return say("assistant", text)


ORIGIN = {"conversation_id": "c7", "turn_index": 2, "source": "here"}
SIMPLE = {"prompt": ask(), "chosen": tell("Because."), "rejected": tell("So.")}
STEERED = SIMPLE | {"prompt": say("system", "Be kind.") + ask()}
LONG = SIMPLE | {"prompt": ask("Hi") + tell("Hello!") + ask()}
SCORED = SIMPLE | {"score_chosen": 9, "score_rejected": 3}
SHARED = {"prompt": ask("The sky is"), "chosen": tell(" blue."), "rejected": tell(" black.")}

# dialect -> (a row as it is found in the wild, what it says)
SAMPLES = {
    "trl": (LONG, LONG),
    "trl-implicit": ({"chosen": LONG["prompt"] + tell("Because."), "rejected": LONG["prompt"] + tell("So.")}, LONG),
    "trl-standard": ({"prompt": "The sky is", "chosen": " blue.", "rejected": " black."}, SHARED),
    "trl-standard-implicit": ({"chosen": "The sky is blue.", "rejected": "The sky is black."}, SHARED),
    "handbook": (
        {
            "prompt": "Why?",
            "prompt_id": "4f",
            "chosen": ask() + tell("Because."),
            "rejected": ask() + tell("So."),
            "messages": ask() + tell("Because."),
            "score_chosen": 9,
            "score_rejected": 3,
        },
        SCORED | {"prompt_id": "4f"},
    ),
    "axolotl": ({"system": "Be kind.", "question": "Why?", "chosen": "Because.", "rejected": "So."}, STEERED),
    "axolotl-input": ({"system": None, "input": "Why?", "chosen": "Because.", "rejected": "So."}, SIMPLE),
    "axolotl-argilla": ({"instruction": "Why?", "chosen_response": "Because.", "rejected_response": "So."}, SIMPLE),
    "axolotl-prompt": ({"system": "", "prompt": "Why?", "chosen": "Because.", "rejected": "So."}, SIMPLE),
    "axolotl-chat": (
        {"messages": STEERED["prompt"], "chosen": tell("Because.")[0], "rejected": tell("So.")[0]},
        STEERED,
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "So."},
        },
        SIMPLE,
    ),
    "openrlhf": ({"context_messages": LONG["prompt"], "chosen": tell("Because."), "rejected": tell("So.")}, LONG),
    "openrlhf-input": ({"input": LONG["prompt"], "chosen": tell("Because."), "rejected": tell("So.")}, LONG),
    "tunix": ({"prompts": "Why?", "chosen_responses": "Because.", "rejected_responses": "So."}, SIMPLE),
    "hh": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: Because.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: So.",
        },
        LONG,
    ),
    "hh-prompt": (
        {
            "prompt": "Human: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:",
            "chosen": "Because.",
            "rejected": "So.",
        },
        LONG,
    ),
    "helpsteer": (
        [{"prompt": "Why?", "response": r, "helpfulness": s} for r, s in (("So.", 3), ("Because.", 9))],
        SCORED,
    ),
    "shp": (
        {
            "history": "Why?",
            "human_ref_A": "So.",
            "human_ref_B": "Because.",
            "labels": 0,
            "score_A": 3,
            "score_B": 9,
            "score_ratio": 3.0,
        },
        SCORED,
    ),
    "ultrafeedback": (
        {
            "instruction": "Why?",
            "completions": [
                {"model": m, "response": r, "overall_score": s}
                for m, r, s in (("a", "Well.", 5), ("b", "Because.", 9), ("c", "So.", 3))
            ],
        },
        SCORED,
    ),
}  # fmt: skip


def rows_of(sample):
    return sample if isinstance(sample, list) else [sample]


def test_every_dialect_has_a_sample():
    assert list(SAMPLES) == [dialect.name for dialect in DIALECTS]


@pytest.mark.parametrize("name", SAMPLES)
def test_told_read_and_written_back(name, tmp_path):
    sample, meant = SAMPLES[name]
    rows = [row | ORIGIN for row in rows_of(sample)]
    assert [dialect.name for dialect in DIALECTS if dialect.fits(rows[0])] == [name]
    assert detect(rows, DIALECTS).name == name
    expected = [meant | ORIGIN]
    found = read_triplets(rows)
    assert found == expected
    validate(found)

    written = to_rows(found, name)
    assert read_triplets(written) == expected
    for ending in (".jsonl", ".json", ".parquet"):
        write_triplets(tmp_path / f"pairs{ending}", found, name)
        assert read_triplets(tmp_path / f"pairs{ending}") == expected
    for column in named(name).kinds:  # the dialect's own columns come back as they were
        if name not in ("helpsteer", "shp", "ultrafeedback"):
            assert written[0][column] == rows[0][column]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(str.strip)


@given(texts, texts, texts, st.lists(st.tuples(texts, texts), max_size=2))
@settings(max_examples=25)
def test_round_trips_whatever_the_words(asked, good, bad, history):
    before = [message for said, answer in history for message in ask(said) + tell(answer)]
    replies = {"chosen": tell(good + "+"), "rejected": tell(bad + "-")}
    triplet = {"prompt": before + ask(asked)} | replies | {"score_chosen": 4, "score_rejected": 1} | ORIGIN
    roomy = {"trl", "trl-implicit", "handbook", "axolotl-chat", "sharegpt", "openrlhf", "openrlhf-input"}
    # these three write marks between the words, which words can imitate
    for name in SAMPLES.keys() - {"trl-standard-implicit", "hh", "hh-prompt"}:
        if history and name not in roomy:
            with pytest.raises(TripletError, match="has no place"):
                to_rows([triplet], name)
        else:
            assert read_triplets(to_rows([triplet], name), dialect=name) == [triplet], name


def test_datasets_in_and_out():
    rows = [STEERED | ORIGIN, LONG | ORIGIN | {"score_chosen": 1.0}]
    dataset = to_dataset(to_rows(rows))
    assert dataset.column_names == [
        "conversation_id",
        "turn_index",
        "source",
        "prompt",
        "chosen",
        "rejected",
        "score_chosen",
    ]
    assert read_triplets(dataset) == rows
    assert read_triplets(dataset.to_iterable_dataset()) == rows


# --- telling


def test_columns_of_no_dialect_are_listed():
    with pytest.raises(
        TripletError, match=r"columns label, text fit no dialect; .*trl: prompt, chosen, rejected; "
    ) as error:
        read_triplets([{"text": "a", "label": 1}])
    for name in SAMPLES:
        assert f"{name}: " in str(error.value)
    with pytest.raises(TripletError, match="there is no dialect 'latin'; the dialects are trl, trl-implicit"):
        read_triplets([SIMPLE], dialect="latin")


def test_columns_of_several_dialects_are_refused():
    row = {"prompt": "Why?", "chosen": "Because.", "rejected": "So.", "response": "So.", "helpfulness": 3}
    with pytest.raises(
        TripletError, match=r"columns chosen, helpfulness, .* fit several dialects \(trl-standard, helpsteer\)"
    ):
        read_triplets([row])
    assert read_triplets([row], dialect="trl-standard")[0]["chosen"] == tell("Because.")


def test_keys_as_openrlhf_takes_them():
    rows = [{"question_text": "Why?", "output_good": "Because.", "output_bad": "So.", "chosen": "something else"}]
    keys = {"prompt": "question_text", "chosen": "output_good", "rejected": "output_bad"}
    (found,) = read_triplets(rows, columns=keys)
    assert {field: found[field] for field in SIMPLE} == SIMPLE


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "How?", "chosen": ask() + tell("a"), "rejected": ask() + tell("b")}, "field 'prompt' does not"),
        ({"chosen": ask("a") + tell("a"), "rejected": ask("b") + tell("b")}, "field 'chosen' and 'rejected' share no"),
        ({"chosen": "Blue is it.", "rejected": "Black is it."}, "field 'chosen' and 'rejected' share no first words"),
        ({"chosen": "Yes", "rejected": "Yes, it is."}, "field 'chosen' and 'rejected' share no first words"),
        ({"prompt": "Why?", "chosen": "a", "rejected": None}, "field 'rejected' is missing or null, not text"),
        ({"question": ["Why?"], "chosen": "a", "rejected": "b"}, "field 'question' is a list, not text"),
    ],
)  # fmt: skip
def test_rows_that_contradict_themselves(row, message):
    with pytest.raises(TripletError, match=f"^row 0: {message}"):
        read_triplets([row])


def test_handbook_with_bare_replies_and_a_system():
    row = {"system": "Be kind.", "prompt": "Why?", "chosen": tell("Because."), "rejected": tell("So.")}
    assert to_rows(read_triplets([row]), "handbook")[0]["chosen"] == STEERED["prompt"] + tell("Because.")


@pytest.mark.parametrize(
    ("name", "triplet", "message"),
    [
        (
            "trl-standard",
            LONG,
            "row 0: field 'prompt' is a conversation, for which dialect 'trl-standard' has no place",
        ),
        ("hh", STEERED, "row 0: field 'prompt' has a system message"),
        ("shp", SIMPLE, "row 0: field 'score_chosen' or 'score_rejected' is missing"),
        ("klingon", SIMPLE, "there is no dialect 'klingon'"),
    ],
)
def test_what_a_dialect_cannot_say(name, triplet, message):
    with pytest.raises(TripletError, match=message):
        to_rows([triplet], name)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_triplets(path, [SIMPLE])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Out of range"):
        write_rows(path, [SIMPLE, {"score": float("nan")}])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.jsonl"]
    with pytest.raises(TripletError, match="has an ending nobody writes"):
        write_triplets(tmp_path / "pairs.csv", [SIMPLE])


# --- ratings


def rated(*scores, prompt="Why?", attribute="helpfulness"):
    return [{"prompt": prompt, "response": f"reply {i}", attribute: score} for i, score in enumerate(scores)]


def test_helpsteer_pairs_replies_to_one_prompt():
    rows = rated(1, 4, 2, 4) + rated(3, 3, prompt="How?") + rated(2, prompt="Who?")
    good, report = sift(rows)
    assert [(t["chosen"], t["rejected"], t["score_chosen"]) for t in good] == [(tell("reply 1"), tell("reply 0"), 4)]
    assert report.left_out == {"replies within 1 of each other in helpfulness": 1, "one reply only": 1}
    assert (report.rows, report.triplets) == (7, 1)
    pairs = read_triplets(rows, dialect=helpsteer(pairing="all"))
    assert len(pairs) == 5
    assert all(t["score_chosen"] > t["score_rejected"] for t in pairs)
    assert len(read_triplets(rows, dialect=helpsteer(pairing="all", min_gap=3))) == 2
    other = [row | {"verbosity": 4 - row["helpfulness"]} for row in rows]
    assert read_triplets(other, dialect=helpsteer(attribute="verbosity"))[0]["chosen"] == tell("reply 0")


def test_helpsteer_names_bad_rows():
    rows = rated(1, 4)
    good, report = sift([*rows, rows[0] | {"helpfulness": "3"}, rows[0] | {"response": None}], dialect="helpsteer")
    assert len(good) == 1
    assert [str(problem) for problem in report.problems] == [
        "row 2: field 'helpfulness' is '3', not a number",
        "row 3: field 'response' is missing or null, not text",
    ]


@pytest.mark.parametrize(
    ("votes", "ratio", "kept"), [((3, 9), 2, 1), ((5, 9), 2, 0), ((5, 9), 1.5, 1), ((5, 10), 2, 1)]
)
def test_shp_leaves_weak_votes_out(votes, ratio, kept):
    row = SAMPLES["shp"][0] | {"score_A": votes[0], "score_B": votes[1]}
    good, report = sift([row], dialect=shp(ratio))
    assert (len(good), sum(report.left_out.values())) == (kept, 1 - kept)


def test_shp_that_prefers_fewer_votes_is_bad():
    with pytest.raises(TripletError, match="row 0: field 'labels' prefers the comment with fewer votes"):
        read_triplets([SAMPLES["shp"][0] | {"labels": 1}])
    with pytest.raises(TripletError, match="row 0: field 'labels' is 2"):
        read_triplets([SAMPLES["shp"][0] | {"labels": 2}])


def test_ultrafeedback_worst_and_random():
    rows = [
        {
            "source": "flan" if i % 2 else "truthful_qa",
            "instruction": f"question {i}",
            "completions": [{"response": f"reply {k}", "overall_score": float(10 - 2 * k)} for k in range(4)],
        }
        for i in range(300)
    ]
    assert {t["rejected"][0]["content"] for t in read_triplets(rows)} == {"reply 3"}
    drawn = read_triplets(rows, dialect=ultrafeedback("random", seed=1))
    counts = [sum(t["rejected"] == tell(f"reply {k}") for t in drawn) for k in (1, 2, 3)]
    assert sum(counts) == 300
    assert min(counts) > 70
    assert all(t["chosen"] == tell("reply 0") and t["source"] in ("flan", "truthful_qa") for t in drawn)
    # the draw belongs to the question, not to its place
    again = read_triplets(rows[::-1], dialect=ultrafeedback("random", seed=1))[::-1]
    assert [t["rejected"] for t in again] == [t["rejected"] for t in drawn]
    assert [t["rejected"] for t in read_triplets(rows, dialect=ultrafeedback("random", seed=2))] != [
        t["rejected"] for t in drawn
    ]
    _, report = sift(rows, dialect=ultrafeedback(exclude=("truthful_qa",)))
    assert report.left_out == {"source truthful_qa": 150}


def test_ultrafeedback_ties_and_single_replies():
    reply = {"response": "a", "overall_score": 4.0}
    rows = [{"instruction": "Why?", "completions": [reply] * n} for n in (2, 1)]
    _, report = sift(rows)
    assert report.left_out == {"completions rated alike": 1}
    assert [str(p) for p in report.problems] == [
        "row 1: field 'completions' holds fewer than two rated completions; remove the row"
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: helpsteer(attribute="charm"), f"attribute is one of {', '.join(ATTRIBUTES)}; got 'charm'"),
        (lambda: helpsteer(min_gap=0.0), "min_gap must be above 0"),
    ],
)
def test_rules_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_rule(without_annotations):
    with pytest.raises(ValueError, match="rejected is 'worst' or 'random'; got 'best'"):
        ultrafeedback(rejected="best")


# --- real data


@pytest.mark.parametrize(
    ("file", "dialect", "also"),
    [
        ("ultrafeedback/ultrafeedback_binarized_sample.parquet", "trl-standard", "handbook"),
        ("hh_rlhf/hh_rlhf_test.parquet", "hh-prompt", "hh"),
        ("alpaca_eval/pairs.parquet", "trl-standard", "axolotl"),
    ],
)
def test_real_pairs_round_trip(shared_data, file, dialect, also):
    rows = [row for _, _, row in islice(read_rows(shared_data / file), 250)]
    good, report = sift(rows)
    assert report.dialect == dialect
    assert len(good) >= 245
    for name in (dialect, also, "trl"):
        assert read_triplets(to_rows(good, name), dialect=name) == good
