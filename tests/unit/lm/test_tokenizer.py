"""Rendering conversations: the template once, no double BOS, and a prompt that is a prefix."""

import pytest
from tokenizers.normalizers import Prepend
from tokenizers.processors import TemplateProcessing

from coala_lib.lm.tokenizer import ASSISTANT, END, PAD, USER, encode, load_tokenizer, train_tokenizer

PROMPT = [
    {"role": "user", "content": "What is a group?"},
    {"role": "assistant", "content": "It is a path with no end."},
    {"role": "user", "content": "Where does it come from?"},
]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("It comes from old maps.", "No."))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([m["content"] for m in [*PROMPT, *GOOD, *BAD]] * 5, vocab_size=400)


def test_the_template_is_applied_once(tokenizer):
    ids = encode(tokenizer, PROMPT, GOOD).ids
    expected = (
        f"{USER}What is a group?{ASSISTANT}It is a path with no end.{USER}Where does it come from?{ASSISTANT}"
        f"It comes from old maps.{USER}"
    )
    assert tokenizer.decode(ids) == expected
    user, assistant = tokenizer.convert_tokens_to_ids([USER, ASSISTANT])
    assert ids[0] == user
    assert ids[1] != user
    assert (ids.count(user), ids.count(assistant)) == (3, 2)


def test_no_second_bos_where_the_tokenizer_adds_its_own(tokenizer):
    eager = train_tokenizer([m["content"] for m in [*PROMPT, *GOOD, *BAD]] * 5, vocab_size=400)
    eager.backend_tokenizer.post_processor = TemplateProcessing(single=f"{USER} $A", special_tokens=[(USER, 1)])
    assert eager("Hi")["input_ids"][0] == 1  # it would, if it were let
    assert encode(eager, PROMPT, GOOD) == encode(tokenizer, PROMPT, GOOD)


@pytest.mark.parametrize("response", [GOOD, BAD])
def test_the_prompt_is_a_prefix_and_the_same_for_every_response(tokenizer, response):
    prompt, both = encode(tokenizer, PROMPT), encode(tokenizer, PROMPT, response)
    assert prompt.n_prompt == len(prompt.ids) == both.n_prompt
    assert both.ids[: both.n_prompt] == prompt.ids
    text = tokenizer.decode(both.ids[both.n_prompt :])
    assert text == response[0]["content"] + USER
    assert tokenizer.eos_token == USER  # so generation stops where the features end


def test_markers_and_bytes(tokenizer):
    assert tokenizer.convert_tokens_to_ids([PAD, USER, ASSISTANT, END]) == [0, 1, 2, 3]
    assert tokenizer.pad_token == PAD
    odd = "naïve — 数学\n\t"
    assert tokenizer.decode(tokenizer(odd, add_special_tokens=False)["input_ids"]) == odd


def test_saved_tokenizer_reads_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert encode(load_tokenizer(tmp_path), PROMPT, GOOD) == encode(tokenizer, PROMPT, GOOD)


def test_no_tokenizer_no_guess(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.json; give the folder"):
        load_tokenizer(tmp_path)


def test_without_a_template_one_bos(models):
    tokenizer = load_tokenizer(models / "stories260K")
    assert tokenizer.chat_template is None
    both = encode(tokenizer, PROMPT, GOOD)
    assert both.ids[0] == tokenizer.bos_token_id
    assert both.ids.count(tokenizer.bos_token_id) == 1
    assert (
        both.ids[: both.n_prompt]
        == encode(tokenizer, PROMPT).ids
        == encode(tokenizer, PROMPT, BAD).ids[: both.n_prompt]
    )
    assert "It comes from old maps." in tokenizer.decode(both.ids[both.n_prompt :])


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    broken = train_tokenizer(["a b c"] * 5, vocab_size=300)
    broken.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="does not render the prompt as a prefix"):
        encode(broken, PROMPT, GOOD)


def test_a_response_does_not_start_a_new_text():
    """A tokenizer that writes a mark before every text must not write one between prompt and response."""
    eager = train_tokenizer([m["content"] for m in [*PROMPT, *GOOD]] * 5, vocab_size=400)
    eager.chat_template = None
    eager.backend_tokenizer.post_processor = TemplateProcessing(single=f"{USER} $A", special_tokens=[(USER, 1)])
    eager.backend_tokenizer.normalizer = Prepend("_")
    both = encode(eager, PROMPT, GOOD)
    assert eager.decode(both.ids).count("_") == 1
    assert both.ids[: both.n_prompt] == encode(eager, PROMPT).ids


def test_a_merge_across_the_border_is_not_made():
    """Where the last letters of the prompt would melt into the response, the prompt stays as it is alone."""
    glued = train_tokenizer(["ab"] * 50, vocab_size=300)
    glued.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    prompt, response = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
    assert len(glued("ab")["input_ids"]) == 1
    both = encode(glued, prompt, response)
    assert (len(both.ids), both.n_prompt) == (2, 1)
    assert both.ids[:1] == encode(glued, prompt).ids


def test_a_template_that_refuses_gives_one_sentence(tokenizer):
    strict = train_tokenizer(["a b c"] * 5, vocab_size=300)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match="the chat template refuses the conversation: roles must alternate"):
        encode(strict, PROMPT, GOOD)
