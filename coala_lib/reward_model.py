"""A head and its backbone joined: rewards of texts, the best of several replies, and guided generation.

The head alone scores features. Here the features are read off the very model, layer and pooling that the head was
trained on; anything else is refused, because its rewards would be noise that looks like numbers.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coala_lib.lm.checkpoint import fingerprint, load_decoder
from coala_lib.lm.decoder import Decoder
from coala_lib.lm.features import sweep_features
from coala_lib.lm.guided import generate
from coala_lib.lm.policy import Policy
from coala_lib.lm.pooling import Reading
from coala_lib.lm.pretrained import fetch
from coala_lib.lm.tokenizer import encode, load_tokenizer
from coala_lib.preference import CoalaHead

Text = str | Sequence[Mapping[str, str]]
COMPARED = ("model", "tokenizer", "layer", "pooling", "first", "dimension")


class MismatchError(ValueError):
    """Features that are not those of the head; the message names what differs."""


def identity(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Fingerprints of a checkpoint folder, as `write_features` wants them: `model` and `tokenizer`."""
    weights = sorted(file.name for file in Path(folder).glob("model*.safetensors")) or ["model.safetensors"]
    return {
        "model": fingerprint(folder, "config.json", *weights),
        "tokenizer": fingerprint(folder, "tokenizer.json"),
    }


def check_features(head: CoalaHead, features: Mapping) -> None:
    """Refuse features that differ from those a head was trained on.

    Args:
        head: loaded, with what its features are.
        features: the same of the features at hand, such as `asdict(manifest)`; what it leaves out is not compared.

    Raises:
        MismatchError: naming what differs, or a head that does not say.
    """
    wanted = getattr(head, "features_", {})
    if not wanted:
        raise MismatchError("the head does not say what its features are; save it with features=asdict(manifest)")
    compared = [name for name in COMPARED if name in wanted and name in features]
    differs = [
        f"{name} {features[name]} here, {wanted[name]} there" for name in compared if features[name] != wanted[name]
    ]
    if differs:
        raise MismatchError(f"these are not the features that the head was trained on: {'; '.join(differs)}")


def messages(text: Text, role: str) -> list[dict[str, str]]:
    """A string as one message of that role; messages as they are.

    Example:
        >>> messages("Why?", "user")
        [{'role': 'user', 'content': 'Why?'}]
    """
    return [{"role": role, "content": text}] if isinstance(text, str) else [dict(message) for message in text]


@dataclass(frozen=True)
class RewardModel:
    """A head with the backbone it was trained on.

    Attributes:
        head: a fitted or loaded `CoalaHead`.
        decoder, tokenizer: the backbone.
        reading: which features.
        dtype: that the training features were stored in.
    """

    head: CoalaHead
    decoder: Decoder
    tokenizer: Any  # only lm/ knows transformers
    reading: Reading
    dtype: str = "float32"

    @classmethod
    def load(
        cls, head: str | os.PathLike[str], model: str | os.PathLike[str], revision: str | None = None
    ) -> "RewardModel":
        """Read a saved head and its backbone.

        Args:
            head: folder of the head.
            model, revision: folder or Hub id of the backbone, see `lm.pretrained.fetch`.

        Returns:
            The pair.

        Raises:
            MismatchError: before any weight of the model is read, where it is not the head's backbone.
        """
        loaded, folder = CoalaHead.load(head), fetch(model, revision)
        check_features(loaded, identity(folder))
        kept = loaded.features_
        reading = Reading(kept["layer"], kept["pooling"], kept.get("first"))
        return cls(loaded, load_decoder(folder), load_tokenizer(folder), reading, kept.get("dtype", "float32"))

    def score_texts(self, prompts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """Rewards of texts; they do not depend on what else is scored.

        Args:
            prompts: n strings (one user message each) or lists of messages.
            responses: n strings or lists of one assistant message.

        Returns:
            (n,) rewards.

        Raises:
            ValueError: where the two differ in number, or naming the row that the model cannot read.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"prompts and responses must pair up; got {len(prompts)} and {len(responses)}")
        rows = [
            encode(self.tokenizer, messages(prompt, "user"), messages(response, "assistant"))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        features = sweep_features(self.decoder, rows, [self.reading])[self.reading]
        return self.head.decision_function(features.astype(np.dtype(self.dtype)).astype(np.float32))

    def rank(self, prompt: Text, responses: Sequence[Text]) -> np.ndarray:
        """(k,) indices of the responses, best first."""
        return np.argsort(-self.score_texts([prompt] * len(responses), responses), kind="stable")

    def reply(self, prompts: Sequence[Text], policy: Policy | None = None, seed: int = 0) -> list[str]:
        """One reply a prompt, guided by the head; see `lm.guided.generate`."""
        rows = [encode(self.tokenizer, messages(prompt, "user")) for prompt in prompts]
        stop = self.tokenizer.eos_token_id
        score: jax.tree_util.Partial = self.head.scorer()
        out = generate(self.decoder, rows, policy or Policy(), stop, score, seed, reading=self.reading)
        return [self.tokenizer.decode(ids) for ids in out.tokens]
