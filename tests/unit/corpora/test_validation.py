"""Hostile files each give one clear sentence, and no row is ever dropped silently."""

import gzip
import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_lib.corpora.export import to_rows
from coala_lib.corpora.triplets import TripletError
from coala_lib.corpora.validation import check_file, read_jsonl, read_triplets, sift


def say(role, content):
    return [{"role": role, "content": content}]


GOOD = {"prompt": say("user", "Why?"), "chosen": say("assistant", "Because."), "rejected": say("assistant", "So.")}
LINE = json.dumps(GOOD).encode() + b"\n"


def line(**changes):
    return json.dumps(GOOD | changes).encode() + b"\n"


def parquet(found, rows=None):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(found).slice(0, rows), sink)
    return sink.getvalue().to_pybytes()


DEEP = b"[" * 100_000 + b"]" * 100_000
PARQUET = parquet([GOOD] * 50)

# what is wrong with the file as a whole: (its name, its bytes, what the sentence says)
FILES = {
    "empty": ("a.jsonl", b"", "is empty; give at least one row"),
    "only white space": ("a.jsonl", b" \n\n\t\n", "holds no rows; give at least one"),
    "only a BOM": ("a.jsonl", b"\xef\xbb\xbf", "holds no rows; give at least one"),
    "unknown ending": ("a.csv", b"prompt,chosen,rejected\n", "has an ending nobody reads; the endings are .jsonl,"),
    "no ending": ("pairs", LINE, "has an ending nobody reads"),
    "parquet called JSONL": ("a.jsonl", PARQUET, "holds parquet data and does not fit its ending"),
    "JSONL called parquet": ("a.parquet", LINE, "holds no parquet data and does not fit its ending"),
    "gzip called JSONL": ("a.jsonl", gzip.compress(LINE), "is gzipped and does not fit its ending"),
    "JSONL called gzip": ("a.jsonl.gz", LINE, "is not gzipped and does not fit its ending"),
    "half a gzip": ("a.jsonl.gz", gzip.compress(os.urandom(1000) + LINE)[:500], "the gzipped data are damaged"),
    "UTF-16": ("a.jsonl", LINE.decode().encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "an array in JSONL": ("a.jsonl", b"[" + LINE + b"]", "holds a JSON array"),
    "JSON lines in JSON": ("a.json", LINE * 2, "not a JSON object .Extra data at .*a .json file holds one array"),
    "one object in JSON": ("a.json", LINE, "holds no array of objects"),
    "half a JSON array": ("a.json", b"[" + LINE, "a .json file holds one array of objects"),
    "deep JSON": ("a.json", DEEP, "it is nested too deeply"),
    "an empty array": ("a.json", b"[]", "holds no rows; give at least one"),
    "truncated parquet": ("a.parquet", PARQUET[:-200], "cannot be read as parquet .*; fetch or write the file again"),
    "garbled parquet": ("a.parquet", PARQUET[:4] + b"?" * 400 + PARQUET[404:], "cannot be read as parquet"),
    "parquet of other columns": (
        "a.parquet",
        parquet([{"text": "a", "label": 1}]),
        "columns label, text fit no dialect",
    ),
    "parquet of no rows": ("a.parquet", parquet([GOOD], rows=0), "holds no rows; give at least one"),
    "columns of no dialect": (
        "a.jsonl",
        b'{"query": "a"}\n',
        "columns query fit no dialect; rename them with columns=",
    ),
    "no columns": ("a.jsonl", b"{}\n", "columns none fit no dialect"),
    "columns of two dialects": (
        "a.jsonl",
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "response": "d", "helpfulness": 1}\n',
        "fit several dialects .trl-standard, helpsteer.; name one with dialect=",
    ),
}
# what is wrong with the second row: (the line, its field, what the sentence says)
ROWS = {
    "half a JSON": (LINE[:35] + b"\n", "", "not a JSON object .Unterminated string starting at character 29.; write"),
    "no JSON": (b"prompt: Why?\n", "", "not a JSON object"),
    "a number": (b"42\n", "", "not a JSON object; write one object a line"),
    "a list": (b'["a", "b"]\n', "", "not a JSON object; write one object a line"),
    "null": (b"null\n", "", "not a JSON object; write one object a line"),
    "a blank line": (b"\n", "", "is a blank line; remove it"),
    "carriage returns": (LINE.strip() + b"\r" + LINE, "", "not a JSON object: lines end in carriage returns"),
    "not UTF-8": (LINE.replace(b"Why?", b"Wh\xff?"), "", r"not UTF-8 \(byte 0xff at .*; save the file as UTF-8"),
    "a raw NUL": (LINE.replace(b"Why?", b"Wh\0?"), "", "not a JSON object .Invalid control character"),
    "a written NUL": (line(prompt=say("user", "Wh\0?")), "prompt", "holds a NUL character"),
    "half a character": (LINE.replace(b"Why?", rb"\ud83d"), "prompt", "holds half of a surrogate pair"),
    "a key twice": (b'{"prompt": "a", "prompt": "b"}\n', "prompt", "stands twice in one object; keep one"),
    "NaN": (b'{"prompt": NaN}\n', "", "not JSON: it holds NaN; write null or a number"),
    "a number without end": (b'{"n": ' + b"9" * 5000 + b"}\n", "", "not a JSON object .Exceeds the limit"),
    "deep nesting": (b'{"prompt": ' + DEEP + b"}\n", "", "it is nested too deeply; flatten it"),
    "another schema": (
        b'{"question": "a", "chosen": "b", "rejected": "c"}\n',
        "",
        "has the columns chosen, question, rej",
    ),
    "a null prompt": (line(prompt=None), "prompt", "is missing or no list of messages"),
    "a text for messages": (line(chosen="Because."), "chosen", "is missing or no list of messages"),
    "texts for messages": (line(chosen=["Because."]), "chosen", "needs messages with 'role' and text 'content'"),
    "a number for a text": (
        line(chosen=say("assistant", 7)),
        "chosen",
        "needs messages with 'role' and text 'content'",
    ),
    "no messages": (line(prompt=[]), "prompt", "is missing or no list of messages"),
    "white space": (line(rejected=say("assistant", " \n\t")), "rejected", "holds an empty message"),
    "an unknown role": (
        line(prompt=say("wizard", "Why?")),
        "prompt",
        "has the role 'wizard'; the roles are system, user",
    ),
    "a list for a role": (line(prompt=say([], "Why?")), "prompt", "has the role .*; the roles are"),
    "no question": (line(prompt=say("assistant", "Hm.")), "prompt", "must end with a 'user' message"),
    "equal sides": (line(rejected=GOOD["chosen"]), "", "'chosen' and 'rejected' are the same text; remove the row"),
    "ten megabytes": (
        line(chosen=say("assistant", "x" * 10_485_760)),
        "chosen",
        "holds a message of 10,485,760 characters",
    ),
    "a number as text": (line(turn_index="1"), "turn_index", "is '1', not an integer"),
    "a score as text": (line(score_chosen="9"), "score_chosen", "is '9', not a number"),
    "scores the other way": (line(score_chosen=1, score_rejected=2), "score_chosen", "is 1, below the 2 of 'rejected'"),
}


def assert_one_sentence(error, name):
    assert type(error) is TripletError
    text = str(error)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert "\r" not in text
    assert len(text) < 2000


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read(case, tmp_path):
    name, content, message = FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_triplets, check_file):
        with pytest.raises(TripletError, match=message) as caught:
            read(path)
        assert_one_sentence(caught.value, path)


def test_no_file_and_a_folder(tmp_path):
    for read in (read_triplets, check_file):
        with pytest.raises(FileNotFoundError, match=r"gone.jsonl: there is no such file"):
            read(tmp_path / "gone.jsonl")
        with pytest.raises(TripletError, match=r"is a folder; give one file \(.jsonl,") as caught:
            read(tmp_path)
        assert_one_sentence(caught.value, tmp_path)


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row(case, tmp_path):
    content, field, message = ROWS[case]
    path, aside = tmp_path / "pairs.jsonl", tmp_path / "bad.jsonl"
    path.write_bytes(LINE + content + LINE)
    with pytest.raises(TripletError, match=message) as caught:
        read_triplets(path)
    assert_one_sentence(caught.value, path)
    assert f": row 1: {f'field {field!r}' if field else ''}" in str(caught.value)

    good, report = sift(path, quarantine=aside)
    assert (len(good), report.rows, report.triplets, report.ok) == (2, 3, 2, False)
    assert [t["conversation_id"] for t in good] == ["0", "2"]
    (problem,) = report.problems
    assert (problem.row, problem.field) == (1, field)
    (row,) = [json.loads(text) for text in aside.read_text().splitlines()]
    assert (row["row"], row["field"], row["reason"]) == (1, field, problem.what)
    if case not in ("not UTF-8", "a blank line"):  # the quarantine keeps the line as it was
        assert row["raw"].encode() == content


def test_a_bad_first_row_is_blamed_too(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"oops\n" + LINE)
    assert check_file(path).problems[0].row == 0
    path.write_bytes(b"oops\n")
    with pytest.raises(TripletError, match="row 0: not a JSON object"):
        read_triplets(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + LINE),
        ("crlf.jsonl", LINE.replace(b"\n", b"\r\n")),
        ("no-end.jsonl", LINE.strip()),
        ("blank-end.jsonl", LINE + b"\n \n"),
        ("array.json", b"[" + LINE + b"]"),
        ("bom.json", b"\xef\xbb\xbf[" + LINE + b"]"),
        ("packed.jsonl.gz", gzip.compress(LINE)),
        ("PACKED.JSON.GZ", gzip.compress(b"[" + LINE + b"]")),
        ("columns.parquet", parquet([GOOD])),
        ("numbers.jsonl", line(conversation_id=0)),
    ],
)
def test_odd_but_sound(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    expected = GOOD | {"conversation_id": "0", "turn_index": 0, "source": name}
    assert read_triplets(tmp_path / name) == [expected]
    assert check_file(tmp_path / name).ok
    assert read_jsonl(tmp_path / name) == [expected]


def test_the_report_counts(tmp_path):
    rows = [
        GOOD | {"score_chosen": 4, "score_rejected": 4},
        GOOD | {"chosen": say("assistant", " because. ")},
        GOOD | {"chosen": GOOD["rejected"], "rejected": GOOD["chosen"]},
        GOOD | {"prompt": None},
        GOOD | {"prompt": say("user", "")},
        GOOD | {"prompt": say("user", "How?")},
        GOOD | {"prompt": say("user", "\t")},
    ]
    _, report = sift(rows)
    assert (report.source, report.dialect, report.rows, report.triplets) == ("rows", "trl", 7, 4)
    assert (report.prompts, report.duplicates, report.contradictions, report.ties) == (2, 1, 1, 1)
    empty = ("prompt", "holds an empty message; remove or mend the row")
    assert report.counts == {empty: 2, ("prompt", "is missing or no list of messages; see TRL's schema"): 1}
    assert next(iter(report.counts)) == empty
    assert report.lines() == [
        "rows: 7 rows read as 'trl', 4 good triplets, 3 bad rows",
        "2 x field 'prompt' holds an empty message; remove or mend the row (first: row 4)",
        "1 x field 'prompt' is missing or no list of messages; see TRL's schema (first: row 3)",
        "2 different prompts, 1 repeated triplets, 1 contradictions, 1 ties, 0 with the prompt in both replies, "
        "0 with marks of a chat template",
    ]


def test_prompts_repeated_and_templates_applied_twice_are_counted():
    echo = GOOD | {side: say("assistant", f"Why? {side}") for side in ("chosen", "rejected")}
    half = GOOD | {"chosen": echo["chosen"]}
    marked = GOOD | {"prompt": say("user", "<|im_start|>user\nWhy?<|im_end|>")}
    _, report = sift([GOOD, echo, half, marked, GOOD | {"chosen": say("assistant", "Because. [/INST]")}])
    assert (report.ok, report.echoes, report.templated) == (True, 1, 2)


def test_a_sound_source_leaves_an_empty_quarantine(tmp_path):
    aside = tmp_path / "bad.jsonl"
    aside.write_text("from an earlier run\n")
    assert sift([GOOD], quarantine=aside)[1].ok
    assert aside.read_text() == ""


def test_max_chars_is_a_choice():
    with pytest.raises(TripletError, match="row 0: field 'chosen' holds a message of 8 characters; the limit is 7"):
        read_triplets([GOOD], max_chars=7)
    assert read_triplets([GOOD], max_chars=8)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
anything = st.one_of(
    json_like,
    st.fixed_dictionaries({"prompt": json_like, "chosen": json_like, "rejected": json_like}),
    st.just(GOOD),
    st.dictionaries(st.sampled_from(["role", "content", "chosen", "prompt"]), json_like),
)


@given(st.lists(anything, min_size=1, max_size=8))
@settings(max_examples=60)
def test_every_row_ends_in_one_place(rows):
    """Whatever the rows hold: good, bad or left out, and they add up; or one sentence."""
    rows = [GOOD, *rows]
    good, report = sift(rows)
    assert report.rows == len(rows) == len(good) + len(report.problems) + sum(report.left_out.values())
    assert [p.row for p in report.problems] == sorted({p.row for p in report.problems})
    kept = Counter(t["conversation_id"] for t in good)
    assert max(kept.values()) == 1 or any("conversation_id" in row for row in rows if isinstance(row, dict))
    assert read_triplets(to_rows(good)) == good


def test_real_pairs(shared_data, without_annotations):
    _, report = sift(shared_data / "hh_rlhf" / "hh_rlhf_test.parquet")
    unusable = pq.read_table(shared_data / "hh_rlhf" / "hh_rlhf_test.parquet", columns=["usable"])["usable"].to_pylist()
    bad = {problem.row for problem in report.problems}
    assert (report.rows, report.triplets, len(bad)) == (8552, 8502, 50)
    # all that its README calls unusable, and three more: an empty turn, and two replies that run into the next question
    assert bad >= {row for row, usable in enumerate(unusable) if not usable}
    report = check_file(shared_data / "ultrafeedback" / "ultrafeedback_binarized_sample.parquet")
    assert sorted(report.counts.values()) == [1, 1, 5]
    assert (report.rows, report.triplets, report.ties) == (1200, 1193, 134)
