"""The papers' data sets from the Hub's cache or from local files, with what was read beside what the papers state.

Nothing here touches the network: `datasets.load_dataset` is replaced at its seam by local data, or runs on a cache
that this file writes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest

from coala_lib.corpora.export import write_triplets
from coala_lib.corpora.files import write_rows
from coala_lib.corpora.hub import load_conversations, load_pairs
from coala_lib.corpora.hub_sources import SOURCES
from coala_lib.corpora.imdb import review_pairs
from coala_lib.corpora.triplets import TripletError, validate

SHA = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).resolve().parents[3]


def say(role, content):
    return [{"role": role, "content": content}]


def dialogue(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


REVIEWS = [
    {"text": f"{'good' if i % 2 else 'bad'} film number {i}<br /><br />and " + f"so on {i} " * 10, "label": i % 2}
    for i in range(40)
]
ROWS = {
    "miria0/EduFeedback": [{"messages": dialogue(*"abcdef")}, {"messages": dialogue("Hi")}],
    "HuggingFaceH4/ultrafeedback_binarized": [
        {
            "prompt": "Why?",
            "prompt_id": "1f",
            "chosen": dialogue("Why?", "Because."),
            "rejected": dialogue("Why?", "So."),
            "score_chosen": 8.0,
            "score_rejected": 4.0,
        }
    ],
    "openbmb/UltraFeedback": [
        {
            "source": "flan",
            "instruction": "Why?",
            "completions": [{"response": "So.", "overall_score": 2.0}, {"response": "Because.", "overall_score": 9.0}],
        }
    ],
    "stanfordnlp/imdb": REVIEWS,
    "nvidia/HelpSteer": [{"prompt": "Why?", "response": f"r{k}", "helpfulness": k, "verbosity": 1} for k in range(4)],
    "stanfordnlp/SHP": [
        {"history": "Why?", "human_ref_A": "So.", "human_ref_B": "Because.", "labels": 0, "score_A": 2, "score_B": 9}
    ],
}


@pytest.fixture
def hub(monkeypatch):
    """The Hub as a dictionary of rows; keeps what was asked of it."""
    asked = []
    rows = dict(ROWS)

    def load_dataset(hub_id, *, split, revision, streaming):
        asked.append({"hub_id": hub_id, "split": split, "revision": revision, "streaming": streaming})
        data = datasets.Dataset.from_list(rows[hub_id])
        return data.to_iterable_dataset() if streaming else data

    def dataset_info(self, hub_id, revision):
        return SimpleNamespace(sha=revision if len(revision) == 40 else SHA)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    return SimpleNamespace(rows=rows, asked=asked)


def test_the_registry():
    assert set(SOURCES) == set(ROWS)
    for hub_id, source in SOURCES.items():
        assert source.hub_id == hub_id
        assert source.revision == "main" or (len(source.revision) == 40 and int(source.revision, 16))
    assert {hub_id: source.published for hub_id, source in SOURCES.items() if source.published} == {
        "miria0/EduFeedback": {"conversations": 26_621, "triplets": 65_606},
        "HuggingFaceH4/ultrafeedback_binarized": {"rows": 60_917},
        "openbmb/UltraFeedback": {"rows": 64_000},
        "stanfordnlp/imdb": {"triplets": 11_000},
    }


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("hub_id", "pairs"),
    [
        ("miria0/EduFeedback", [("b", "d"), ("d", "f")]),
        ("HuggingFaceH4/ultrafeedback_binarized", [("Because.", "So.")]),
        ("openbmb/UltraFeedback", [("Because.", "So.")]),
        ("nvidia/HelpSteer", [("r3", "r0")]),
        ("stanfordnlp/SHP", [("Because.", "So.")]),
    ],
)
def test_every_data_set(hub, hub_id, pairs, streaming):
    loaded = load_pairs(hub_id, streaming=streaming)
    validate(loaded.triplets)
    assert [(t["chosen"][0]["content"], t["rejected"][0]["content"]) for t in loaded.triplets] == pairs
    assert {t["source"] for t in loaded.triplets} == {"flan" if "openbmb" in hub_id else hub_id}
    source, found = SOURCES[hub_id], loaded.provenance
    commit = SHA if source.revision == "main" else source.revision
    assert hub.asked == [{"hub_id": hub_id, "split": source.split, "revision": commit, "streaming": streaming}]
    assert (found.hub_id, found.revision, found.commit, found.split) == (hub_id, source.revision, commit, source.split)
    assert (found.path, found.sha256, found.limited) == (None, None, False)
    assert found.counts["triplets"] == len(pairs)


def test_differences_from_the_papers_are_said(hub):
    assert load_pairs("miria0/EduFeedback").provenance.differences == (
        "miria0/EduFeedback: 2 conversations here, 26,621 in the paper (App. E.2), difference -26,619",
        "miria0/EduFeedback: 2 triplets here, 65,606 in the paper (App. E.2), difference -65,604",
    )
    assert load_pairs("HuggingFaceH4/ultrafeedback_binarized").provenance.differences == (
        "HuggingFaceH4/ultrafeedback_binarized: 1 rows here, 60,917 in the paper (App. E.2), difference -60,916",
    )
    assert load_pairs("stanfordnlp/SHP").provenance.differences == ()
    # a limit explains itself
    limited = load_pairs("miria0/EduFeedback", limit=1, revision="v2", split="test").provenance
    assert (limited.limited, limited.differences, limited.counts["conversations"]) == (True, (), 1)
    assert (limited.revision, limited.commit, limited.split) == ("v2", SHA, "test")


def test_no_difference_where_there_is_none(hub, monkeypatch):
    source = SOURCES["stanfordnlp/imdb"]
    monkeypatch.setitem(source.published, "triplets", 20)
    assert load_pairs("stanfordnlp/imdb").provenance.differences == ()


@pytest.mark.parametrize("hub_id", [name for name, source in SOURCES.items() if source.columns])
def test_a_schema_that_moved_is_said(hub, hub_id):
    needed = SOURCES[hub_id].columns[-1]
    hub.rows[hub_id] = [{("renamed" if k == needed else k): v for k, v in row.items()} for row in ROWS[hub_id]]
    with pytest.raises(
        TripletError, match=rf"{hub_id} at \w{{40}}: expected the columns .*, found .*renamed.*; the sch"
    ):
        load_pairs(hub_id)
    hub.rows[hub_id] = []
    with pytest.raises(TripletError, match="found no rows; the schema has moved"):
        load_pairs(hub_id)


def test_edufeedback_as_pairs(hub):
    hub.rows["miria0/EduFeedback"] = [{"prompt": "Why?", "chosen": "Because.", "rejected": "So."}]
    loaded = load_pairs("miria0/EduFeedback")
    assert loaded.report.dialect == "trl-standard"
    assert loaded.provenance.counts == {"rows": 1, "triplets": 1}


def test_conversations(hub):
    talks, provenance = load_conversations()
    assert [len(talk.messages) for talk in talks] == [6, 1]
    assert provenance.counts == {"conversations": 2}
    hub.rows["miria0/EduFeedback"] = [{"messages": dialogue("a")}, {"messages": None}]
    with pytest.raises(
        TripletError, match="miria0/EduFeedback: row 1: a conversation needs one of the columns messages"
    ):
        load_conversations()


def test_what_cannot_be_had(hub, monkeypatch):
    with pytest.raises(TripletError, match="'someone/else' is not among the papers' data sets: miria0/EduFeedback,"):
        load_pairs("someone/else")

    def broken(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", broken)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        TripletError, match=r"SHP at main, split 'train': cannot be had \(no route to host\); check the"
    ):
        load_pairs("stanfordnlp/SHP")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(TripletError, match="offline mode is on, and the cache may lack it") as error:
        load_pairs("stanfordnlp/SHP")
    assert "\n" not in str(error.value)


OFFLINE = """
import json, sys
import datasets
from datasets.arrow_writer import ArrowWriter
from coala_lib.corpora import load_pairs

cache, sha, row = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
folder = f"{cache}/datasets/stanfordnlp___shp/default/0.0.0/{sha}"
import os; os.makedirs(folder)
with ArrowWriter(path=f"{folder}/shp-train.arrow", features=datasets.Dataset.from_list([row]).features) as writer:
    writer.write(row)
    features = writer._features
    writer.finalize()
split = {"name": "train", "num_examples": 1, "num_bytes": 1, "dataset_name": "shp"}
datasets.DatasetInfo(
    features=features, builder_name="json", dataset_name="shp", config_name="default", version="0.0.0",
    splits={"train": split}, download_checksums={f"hf://datasets/stanfordnlp/SHP@{sha}/train.json": {}},
).write_to_directory(folder)
for options in ({}, {"streaming": True}, {"revision": "f" * 40}):
    loaded = load_pairs("stanfordnlp/SHP", **options)
    print(json.dumps([loaded.provenance.commit, loaded.provenance.differences, len(loaded.triplets)]))
"""


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_the_offline_cache_is_honoured_and_says_which_commit_it_holds(tmp_path, switch):
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path), SHA, json.dumps(ROWS["stanfordnlp/SHP"][0])],
        env=os.environ | {"HF_HOME": str(tmp_path), switch: "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, streamed, other = (json.loads(line) for line in done.stdout.splitlines())
    assert plain == streamed == [SHA, [], 1]
    # offline, `datasets` hands out what it has; the wish for another commit is not passed off as granted
    assert other == [SHA, [f"stanfordnlp/SHP: commit {SHA} read from the cache, {'f' * 40} was asked for"], 1]


# --- local files


def test_local_files_of_the_same_shape(tmp_path):
    for hub_id in (
        "HuggingFaceH4/ultrafeedback_binarized",
        "openbmb/UltraFeedback",
        "nvidia/HelpSteer",
        "stanfordnlp/SHP",
    ):
        for ending in (".jsonl", ".parquet"):
            path = tmp_path / f"copy{ending}"
            write_rows(path, ROWS[hub_id])
            loaded = load_pairs(hub_id, path=path)
            assert len(loaded.triplets) == 1
            assert loaded.report.dialect == (SOURCES[hub_id].dialect)
            assert loaded.provenance.commit is None
            assert loaded.provenance.path == str(path)
    # another dialect is told from its columns
    write_triplets(tmp_path / "other.jsonl", loaded.triplets, "axolotl")
    assert load_pairs("stanfordnlp/SHP", path=tmp_path / "other.jsonl").report.dialect == "axolotl"


def test_bad_lines_of_a_local_file_go_to_the_quarantine(tmp_path):
    path, aside = tmp_path / "copy.jsonl", tmp_path / "bad.jsonl"
    path.write_text(json.dumps(ROWS["stanfordnlp/SHP"][0]) + "\n{half\n")
    loaded = load_pairs("stanfordnlp/SHP", path=path, quarantine=aside)
    assert (len(loaded.triplets), len(loaded.report.problems)) == (1, 1)
    assert json.loads(aside.read_text())["raw"] == "{half\n"
    assert load_pairs("stanfordnlp/SHP", path=path, limit=1).report.ok


def test_real_copies(shared_data, without_annotations):
    loaded = load_pairs("stanfordnlp/imdb", path=shared_data / "imdb" / "imdb_subset.parquet")
    assert loaded.provenance.counts == {"reviews": 11_000, "triplets": 5_500}
    assert loaded.provenance.sha256 == "e7fd5db1cae31280bc8d31e44e575034fd99945af94493f13b0b605091bb874c"
    assert loaded.provenance.differences == (
        "stanfordnlp/imdb: 5,500 triplets here, 11,000 in the paper (App. E.2), difference -5,500",
    )
    path = shared_data / "ultrafeedback" / "ultrafeedback_binarized_sample.parquet"
    loaded = load_pairs("HuggingFaceH4/ultrafeedback_binarized", path=path)
    assert loaded.provenance.counts == {"rows": 1200, "triplets": 1193}
    loaded = load_pairs("miria0/EduFeedback", path=shared_data / "tutoring" / "dialogues.parquet")
    assert loaded.provenance.counts == {"conversations": 1734, "triplets": 3125}


# --- reviews


def words(triplet, side):
    return triplet[side][0]["content"].split()


def test_prefix_pairs():
    pairs, left_out = review_pairs(
        [*REVIEWS, {"text": "short", "label": 1}, {"text": None, "label": 0}], n_pairs=15, seed=3
    )
    assert left_out == {
        "no text or no label 0 or 1": 1,
        "not longer than 8 words": 1,
        "no partner, or beyond n_pairs": 10,
    }
    validate(pairs)
    assert len({pair["conversation_id"] for pair in pairs}) == 15
    for pair in pairs:
        asked = words(pair, "prompt")
        assert 2 <= len(asked) <= 8
        _, good, bad = pair["conversation_id"].split("-")
        whole = [REVIEWS[int(number)]["text"].replace("<br />", " ").split() for number in (good, bad)]
        assert asked + words(pair, "chosen") == whole[0]
        assert words(pair, "rejected") == whole[1][len(asked) :]
        assert (whole[0][0], whole[1][0]) == ("good", "bad")
    used = [number for pair in pairs for number in pair["conversation_id"].split("-")[1:]]
    assert len(set(used)) == 30
    assert {len(words(pair, "prompt")) for pair in review_pairs(REVIEWS * 20)[0]} == set(range(2, 9))


def test_sentiment_pairs_are_right_by_their_prompt():
    pairs, _ = review_pairs(REVIEWS * 10, recipe="sentiment")
    assert len(pairs) == 200
    wanted = [pair["prompt"][0]["content"] for pair in pairs]
    assert 70 < wanted.count("Write a positive film review.") < 130
    for pair, asked in zip(pairs, wanted, strict=True):
        good, bad = ("good", "bad") if "positive" in asked else ("bad", "good")
        assert (words(pair, "chosen")[0], words(pair, "rejected")[0]) == (good, bad)


def test_reviews_are_seeded():
    assert review_pairs(REVIEWS, seed=1) == review_pairs(REVIEWS, seed=1) != review_pairs(REVIEWS, seed=2)
    assert len(review_pairs(REVIEWS)[0]) == 20


def test_reviews_that_make_no_pair(without_annotations):
    with pytest.raises(TripletError, match="reviews of both labels are needed"):
        review_pairs(REVIEWS[::2])
    with pytest.raises(TripletError, match="recipe is 'prefix' or 'sentiment'; got 'stars'"):
        review_pairs(REVIEWS, recipe="stars")
