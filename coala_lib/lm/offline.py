"""The book's own language model, made from nothing by one seeded command: `coala pretrain`.

World -> tokenizer -> about 0.9M parameters trained on generated conversations -> a checkpoint in Hugging Face's
layout with a model card and its loss trajectory. It is committed, so that the book runs offline in minutes.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from flax import nnx

from coala_lib._device import describe_device
from coala_lib._files import replacing
from coala_lib.corpora.edu import Conversation, conversations, make_world
from coala_lib.lm.checkpoint import load_decoder, save_decoder
from coala_lib.lm.decoder import Decoder, DecoderConfig
from coala_lib.lm.rows import packed
from coala_lib.lm.tokenizer import END, PreTrainedTokenizerFast, load_tokenizer, train_tokenizer
from coala_lib.lm.train import TrainConfig, next_token_loss, train

WORLD_SEED, TEXT_SEED, HELD_OUT_SEED = 0, 1, 2
ERROR_RATE = 0.3  # tutors of the pretraining text err this often and are told so: that is how text carries relevance
N_TOKENIZER_TALKS, N_HELD_OUT_ROWS = 4000, 64


@dataclass(frozen=True)
class OfflineConfig:
    """Shape and training of the offline model (our choice; the paper has no such model)."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    vocab_size: int = 2048
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=4000, batch=16, context=192))


def text(seed: int) -> Iterator[Conversation]:
    """The endless stream of pretraining conversations of one seed."""
    return conversations(make_world(WORLD_SEED), n=10**9, seed=seed, error_rate=ERROR_RATE)


def make_tokenizer(config: OfflineConfig) -> PreTrainedTokenizerFast:
    """The tokenizer, trained on the first conversations of the pretraining text."""
    talks = zip(range(N_TOKENIZER_TALKS), text(TEXT_SEED), strict=False)
    return train_tokenizer((m["content"] for _, talk in talks for m in talk.messages), config.vocab_size)


def make_rows(tokenizer: PreTrainedTokenizerFast, seed: int, context: int) -> Iterator[np.ndarray]:
    """Packed token rows of the pretraining text, each conversation closed by the end marker."""
    end = tokenizer.convert_tokens_to_ids(END)
    documents = (
        [*tokenizer.apply_chat_template(list(talk.messages), tokenize=True)["input_ids"], end] for talk in text(seed)
    )
    return packed(documents, context)


def make_decoder(tokenizer: PreTrainedTokenizerFast, config: OfflineConfig) -> Decoder:
    """The untrained model, drawn from the training seed."""
    shape = DecoderConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        max_position_embeddings=config.train.context,
    )
    return Decoder(shape, nnx.Rngs(config.train.seed))


def held_out_loss(folder: str | os.PathLike[str], context: int) -> float:
    """Loss in nats per token of a written checkpoint on conversations it was not trained on."""
    decoder, tokenizer = load_decoder(folder), load_tokenizer(folder)
    rows = make_rows(tokenizer, HELD_OUT_SEED, context)
    batch = np.stack([row for _, row in zip(range(N_HELD_OUT_ROWS), rows, strict=False)])
    return float(nnx.jit(next_token_loss)(decoder, batch))


CARD = """---
license: apache-2.0
language: en
library_name: coala-lib
---
# edu-lm: the offline model of the convex alignment book

A Llama-layout decoder with {parameters:,} parameters, trained from random weights on generated student-tutor
conversations (`coala_lib.corpora.edu`, world seed {world_seed}, text seed {text_seed}, tutor errors {error_rate}).
It knows nothing else and is of no use outside the book.

| | |
|---|---|
| made by | `{command}` |
| tokens | {tokens:,} |
| held-out loss | {loss:.3f} nats per token (float16 weights, {rows} rows of text seed {held_out_seed}) |
| device | {device} |
| wall-clock | {minutes:.0f} min, other work on the machine not excluded |
| weights | float16 safetensors |

The loss of every step stands in `training.json`; a test retrains the first steps and compares.
"""


def pretrain(
    folder: str | os.PathLike[str], config: OfflineConfig | None = None, command: str = "coala pretrain"
) -> float:
    """Train the offline model and write checkpoint, tokenizer, trajectory and model card.

    Args:
        folder: where to write; made where absent, its checkpoint replaced only when training has ended.
        config: shape and training; the default made the committed model.
        command: the command line, for the card.

    Returns:
        The held-out loss in nats per token.
    """
    folder, config, started = Path(folder), config or OfflineConfig(), time.time()
    folder.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is refused before the training
    tokenizer = make_tokenizer(config)
    decoder = make_decoder(tokenizer, config)
    rows = make_rows(tokenizer, TEXT_SEED, config.train.context)
    decoder, losses = train(decoder, rows, config.train)
    tokenizer.save_pretrained(folder)
    save_decoder(decoder, folder)
    loss = held_out_loss(folder, config.train.context)
    with replacing(folder / "training.json") as temporary:
        trajectory = {"config": asdict(config), "device": describe_device(), "held_out_loss": loss}
        temporary.write_text(json.dumps(trajectory | {"losses": [round(x, 5) for x in losses]}) + "\n")
    facts = {
        "parameters": sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(decoder)).leaves),
        "tokens": config.train.steps * config.train.batch * config.train.context,
        "minutes": (time.time() - started) / 60,
    }
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(
            CARD.format(
                **facts,
                command=command,
                loss=loss,
                device=describe_device(),
                world_seed=WORLD_SEED,
                text_seed=TEXT_SEED,
                error_rate=ERROR_RATE,
                rows=N_HELD_OUT_ROWS,
                held_out_seed=HELD_OUT_SEED,
            )
        )
    return loss
