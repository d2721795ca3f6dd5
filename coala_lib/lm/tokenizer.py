"""Text to tokens: train the small BPE tokenizer, load any checkpoint's, and render conversations exactly once.

The template of the offline model writes every message followed by the marker of the next speaker. So a reply ends in
the student's marker: the end of the answer is visible to the features, and the same marker stops generation.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from coala_lib.corpora.triplets import Message

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
TEMPLATE = (
    "{{ '<|user|>' }}{% for message in messages %}{{ message['content'] }}"
    "{{ '<|assistant|>' if message['role'] == 'user' else '<|user|>' }}{% endfor %}"
)


@dataclass(frozen=True)
class Encoded:
    """A prompt with one response, as token ids.

    Attributes:
        ids: all tokens, prompt then response.
        n_prompt: how many of them are the prompt; the rest is the response with the marker that ends it.
    """

    ids: tuple[int, ...]
    n_prompt: int


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level BPE with this module's four markers and chat template.

    Args:
        texts: plain messages.
        vocab_size: upper bound on the vocabulary; small worlds need fewer tokens.

    Returns:
        A Hugging Face tokenizer that pads with `<|pad|>` and ends a reply with `<|user|>`.
    """
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, bos_token=USER, eos_token=USER, additional_special_tokens=[ASSISTANT, END]
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


def load_tokenizer(folder: str | os.PathLike[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint folder.

    Raises:
        FileNotFoundError: where the folder holds no `tokenizer.json`.
    """
    if not (Path(folder) / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{folder} holds no tokenizer.json; give the folder of a Hugging Face checkpoint")
    return AutoTokenizer.from_pretrained(folder)


def _render(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], generate: bool) -> str:
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generate)
    except TemplateError as error:  # templates refuse roles and orders they do not know
        raise ValueError(f"the chat template refuses the conversation: {error}") from None


def encode(tokenizer: PreTrainedTokenizerFast, prompt: Sequence[Message], response: Sequence[Message] = ()) -> Encoded:
    """Render and tokenize a prompt and a response, applying the chat template exactly once.

    The template places every special token itself, and none is added to what it wrote: no second BOS.
    A tokenizer without a template gets the messages joined by line breaks, behind its own BOS.
    Prompt and response are tokenized together where that leaves the prompt's tokens as they are alone, so that no
    word of the response starts a new text; otherwise apart, because the prompt must be the same for every response.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prompt: messages that end with the user's turn.
        response: one assistant message, or nothing for generation.

    Returns:
        An `Encoded` whose prompt part is the same for every response.

    Raises:
        ValueError: where the template refuses the roles or their order, or does not render the prompt as a prefix of
            prompt + response.
    """
    if tokenizer.chat_template:
        before, special = _render(tokenizer, prompt, True), False
        both = _render(tokenizer, [*prompt, *response], False) if response else before
        if not both.startswith(before):
            raise ValueError("the chat template does not render the prompt as a prefix of prompt + response")
    else:
        before, special = "".join(f"{message['content']}\n" for message in prompt), True
        both = before + "\n".join(message["content"] for message in response)
    head, whole = (tokenizer(text, add_special_tokens=special)["input_ids"] for text in (before, both))
    if whole[: len(head)] != head:
        whole = head + tokenizer(both[len(before) :], add_special_tokens=False)["input_ids"]
    return Encoded(tuple(whole), len(head))
