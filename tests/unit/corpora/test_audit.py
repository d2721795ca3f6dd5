"""The audit: its probes, its planted faults, and what it says about both."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from coala_lib.corpora import alternate, conversations, make_world, split
from coala_lib.corpora.audit import audit, both_sides, holm, near_copies
from coala_lib.corpora.edu import Style
from coala_lib.corpora.edu_facts import FAREWELLS, GREETINGS
from coala_lib.corpora.faults import copy_across, flip_labels, number_turns, pad_chosen
from coala_lib.corpora.probes import BLIND, LEXICONS, overlap, prompt_swap, right, text

WORLD = make_world(0)


def talks_of(n, seed=1, **style):
    return list(conversations(WORLD, n=n, seed=seed, style=Style(**style)))


def accuracy(probe, rows, seed=0):
    return right(probe(*split(rows, 0.5, seed))).mean()


@pytest.fixture(scope="module")
def talks():
    return talks_of(400)


@pytest.fixture(scope="module")
def rows(talks):
    return alternate(talks, source="edu")


def row(prompt, chosen, rejected, talk="a", turn=0):
    said = {
        field: [{"role": role, "content": content}]
        for field, role, content in (
            ("prompt", "user", prompt),
            ("chosen", "assistant", chosen),
            ("rejected", "assistant", rejected),
        )
    }
    return said | {"conversation_id": talk, "turn_index": turn, "source": "test"}


# --- what the Alternating Strategy does to scorers of replies


def test_blind_margins_telescope(talks, rows):
    """Over a conversation, what a scorer of replies gains is its score of the first reply less that of the last."""
    counter = CountVectorizer().fit([text(r, "chosen") for r in rows])
    weights = np.random.default_rng(0).normal(size=len(counter.vocabulary_))

    def score(reply):
        return float((counter.transform([reply]) @ weights)[0])

    for talk in talks[:50]:
        own = [r for r in rows if r["conversation_id"] == talk.conversation_id]
        summed = sum(score(text(r, "chosen")) - score(text(r, "rejected")) for r in own)
        first, last = talk.messages[1]["content"], talk.messages[-1]["content"]
        assert summed == pytest.approx(score(first) - score(last), abs=1e-9)


def test_replies_on_both_sides(talks, rows):
    # all but the last triplet of each conversation; a repeated reply is the only exception
    expected = 1 - len({r["conversation_id"] for r in rows}) / len(rows)
    assert both_sides(rows).mean() == pytest.approx(expected, abs=0.01)
    assert not both_sides(flip_labels(rows, 1.0, seed=0)[:1]).any()


# --- probes


@pytest.mark.parametrize("name", [*BLIND])
def test_blind_probes_never_read_the_prompt(rows, name):
    train, test = split(rows, 0.5, 0)
    swapped = [r | {"prompt": [{"role": "user", "content": "Go on."}]} for r in test]
    np.testing.assert_array_equal(BLIND[name](train, test), BLIND[name](train, swapped))


@pytest.mark.parametrize("name", [*BLIND, "overlap"])
def test_turning_every_pair_round_turns_every_margin(rows, name):
    train, test = split(rows, 0.5, 0)
    probe = BLIND.get(name, overlap)
    turned = probe(train, flip_labels(test, 1.0, seed=0))
    np.testing.assert_allclose(turned, -probe(train, test), atol=1e-9)


def test_the_overlap_probe_reads_the_prompt(rows):
    train, test = split(rows, 0.5, 0)
    assert right(overlap(train, test)).mean() > 0.6
    assert right(overlap(train, prompt_swap(test, 0))).mean() == pytest.approx(0.5, abs=0.06)


def test_the_turn_probe_reads_turn_numbers():
    talks = talks_of(300, rounds=(4, 4))
    assert accuracy(BLIND["turn"], alternate(number_turns(talks, 1.0, 0), source="edu")) == 1.0
    assert accuracy(BLIND["turn"], alternate(talks, source="edu")) == pytest.approx(0.5, abs=0.06)


def test_memory_needs_the_very_text():
    train = [row("q", "good", "bad"), row("q", "good", "worse", "b")]
    test = [row("q", "good", "bad", "c"), row("q", "Good", "bad.", "d"), row("q", "bad", "good", "e")]
    assert right(BLIND["memory"](train, test)).tolist() == [1.0, 0.5, 0.0]


def test_the_lexicon_knows_the_manners_of_the_world():
    greetings, closings = LEXICONS
    assert all(greetings.search(said) for said in GREETINGS)
    assert all(closings.search(said) for said in FAREWELLS)
    assert not any(lexicon.search("This hides a chimney.") for lexicon in LEXICONS)


def test_swapped_prompts_come_from_other_conversations(rows):
    prompts = {}
    for r in rows:
        prompts.setdefault(text(r, "prompt"), set()).add(r["conversation_id"])
    swapped = prompt_swap(rows, seed=3)
    assert all(prompts[text(r, "prompt")] - {r["conversation_id"]} for r in swapped)
    assert [r["chosen"] for r in swapped] == [r["chosen"] for r in rows]
    assert swapped == prompt_swap(rows, seed=3) != prompt_swap(rows, seed=4)
    with pytest.raises(ValueError, match="between conversations only"):
        prompt_swap(rows[:1], seed=0)


# --- copies


def test_near_copies():
    left = ["Where does the valley come from?", "Thanks. Where does the valley come from?", "A hill."]
    found = near_copies(left, ["where does the VALLEY come from", "a river"], cosine=0.95)
    assert found.tolist() == [True, False, False]
    assert near_copies(left, left[1:2], cosine=0.6).tolist() == [True, True, False]


def test_copies_under_new_names_are_found(rows):
    train, test = split(rows, 0.5, 0)
    clean, leaky = (audit(train, copy_across(train, test, share, seed=0)) for share in (0.0, 0.2))
    assert clean.artefacts == ()
    assert {"prompts across the split", "near-duplicate prompts across the split"} <= set(leaky.artefacts)
    # copies carry names of their own
    assert leaky["conversations across the split"].value == 0


def test_a_split_by_rows_is_found_twice(rows):
    """The conversations stand on both sides, and memory of replies is worse than a coin."""
    report = audit(rows[::2], rows[1::2])
    assert {"conversations across the split", "memory"} <= set(report.artefacts)
    assert report["memory"].high < 0.5


# --- the table


def test_holm():
    assert holm([0.2]).tolist() == [0.2]
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.5]), [0.04, 0.06, 0.06, 0.5])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_three_verdicts(rows):
    findings = audit(pad_chosen(rows, 0.5, seed=0), slack=0.1).findings
    verdicts = {finding.name: finding.verdict for finding in findings}
    assert verdicts["length"] == verdicts["words"] == "artefact"
    assert verdicts["greetings"] == "clean"
    few = audit(rows[:40])
    assert few["length"].verdict == "cannot tell: too few rows"
    for finding in findings:
        assert finding.low <= finding.value <= finding.high
        assert 0 <= finding.p <= 1


def test_an_audit_is_repeatable(rows):
    assert audit(rows, seed=5) == audit(rows, seed=5)
    assert audit(rows, seed=5) != audit(rows, seed=6)


def test_turns_are_asked_for_only_where_they_can_be_learned(rows):
    first_turns = [r for r in rows if r["turn_index"] == 0]
    assert "turn" not in {finding.name for finding in audit(first_turns).findings}


def test_label_noise_is_not_a_shortcut(rows):
    assert audit(flip_labels(rows, 0.3, seed=0)).artefacts == ()


@pytest.mark.parametrize("name", ["alpha", "tolerance", "slack"])
def test_options_out_of_range(rows, name):
    with pytest.raises(ValueError, match=f"{name} is a share"):
        audit(rows, **{name: 1.5})


# --- planted faults


def test_no_share_no_fault(talks, rows):
    train, test = rows[::2], rows[1::2]
    assert flip_labels(rows, 0.0, 0) == pad_chosen(rows, 0.0, 0) == rows
    assert number_turns(talks, 0.0, 0) == talks
    assert copy_across(train, test, 0.0, 0) == test


def test_a_larger_share_flips_a_superset(rows):
    few, many = (
        {k for k, (a, b) in enumerate(zip(rows, flip_labels(rows, share, 7), strict=True)) if a != b}
        for share in (0.1, 0.4)
    )
    assert few < many
    assert len(many) / len(rows) == pytest.approx(0.4, abs=0.06)
    assert flip_labels(flip_labels(rows, 0.4, 7), 0.4, 7) == rows


def test_a_share_is_a_share(rows):
    with pytest.raises(ValueError, match=r"share of rows to change is in \[0, 1\]; got 1.1"):
        flip_labels(rows, 1.1, seed=0)
