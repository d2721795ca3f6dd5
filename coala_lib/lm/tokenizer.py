"""Text to tokens: train the small BPE tokenizer, load any checkpoint's, and render conversations exactly once.

The template of the offline model writes every message followed by the marker of the next speaker. So a reply ends in
the student's marker: the end of the answer is visible to the features, and the same marker stops generation.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
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


def encode(tokenizer: PreTrainedTokenizerFast, prompt: Sequence[Message], response: Sequence[Message] = ()) -> Encoded:
    """Render and tokenize a prompt and a response, applying the chat template exactly once.

    A tokenizer without a template gets the messages joined by line breaks, behind its own BOS.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prompt: messages that end with the user's turn.
        response: one assistant message, or nothing for generation.

    Returns:
        An `Encoded` whose prompt part is the same for every response.

    Raises:
        ValueError: where the template does not render the prompt as a prefix of prompt + response.
    """
    if tokenizer.chat_template:
        # the template places every special token itself: adding them again would double the BOS
        head_text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        full_text = tokenizer.apply_chat_template([*prompt, *response], tokenize=False) if response else head_text
        if not full_text.startswith(head_text):
            raise ValueError("the chat template does not render the prompt as a prefix of prompt + response")
        head = tokenizer(head_text, add_special_tokens=False)["input_ids"]
        tail = tokenizer(full_text[len(head_text) :], add_special_tokens=False)["input_ids"] if response else []
    else:
        head = tokenizer("\n".join(message["content"] for message in prompt) + "\n")["input_ids"]
        tail = tokenizer("\n".join(m["content"] for m in response), add_special_tokens=False)["input_ids"]
    return Encoded(tuple(head + tail), len(head))
