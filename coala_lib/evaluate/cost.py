"""What COALA and its rivals cost on the same pairs: one counter, one framework, any shape of model.

A `Workload` fixes pairs, tokens, epochs and adapters; `METHODS` says what each rival runs; costs are counted by tracing
the project's own steps, or by the closed form that the tests hold equal to it. It stands above lm/ because it asks lm/
for steps, and above evidence/, whose counter and currency know no model.

Differs from the paper's Table 3: equal pairs, equal tokens and equal epochs for all, and the extraction of features is
part of COALA.
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp

from coala_lib.evidence.cost import Cost
from coala_lib.evidence.flops import count_flops
from coala_lib.lm import closed_form
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.lora import LoraConfig
from coala_lib.lm.lowering import decoding_step, feature_step, pair_batch, reference_step, response_batch, training_step
from coala_lib.lm.memory import extraction_bytes
from coala_lib.lm.policy import Policy
from coala_lib.lm.preference_training import preference_loss
from coala_lib.lm.shapes import lora_targets
from coala_lib.lm.train import finetuning
from coala_lib.lm.training_memory import training_bytes

HALF = jnp.dtype(jnp.bfloat16).itemsize


@dataclass(frozen=True)
class Workload:
    """The data and settings that all methods share.

    Attributes:
        pairs: preference pairs N.
        prompt, response: tokens of each.
        epochs: passes over the pairs of the methods that train a language model.
        at_once: pairs in memory at a time (the paper's micro batch, Table 11).
        accumulate: parts of a batch, so that one update covers `accumulate` times `at_once` pairs.
        rank: of the adapters (Table 10).
    """

    pairs: int = 65_606
    prompt: int = 128
    response: int = 128
    epochs: int = 1
    at_once: int = 2
    accumulate: int = 8
    rank: int = 16

    def __post_init__(self) -> None:
        if min(self.pairs, self.prompt, self.response, self.epochs, self.at_once, self.accumulate, self.rank) < 1:
            raise ValueError(f"every size of a workload is at least 1; got {self}")

    @property
    def length(self) -> int:
        """Tokens of a prompt with its response."""
        return self.prompt + self.response


@dataclass(frozen=True)
class Method:
    """A way to fine-tune a language model on pairs.

    Attributes:
        loss: of `preference.baselines`; "sft" reads the chosen responses only.
        full: train all weights, not adapters.
        remat: compute layers again in the backward pass.
        reference: when the reference model reads the pairs.
    """

    loss: str
    full: bool = False
    remat: bool = False
    reference: Literal["never", "once", "every epoch"] = "never"


METHODS = {
    "SFT, full": Method("sft", full=True),
    "SFT, LoRA": Method("sft"),
    "DPO, full": Method("dpo", full=True, reference="every epoch"),
    "DPO, LoRA": Method("dpo", reference="every epoch"),
    "DPO, LoRA, remat": Method("dpo", remat=True, reference="every epoch"),
    "DPO, LoRA, cached reference": Method("dpo", reference="once"),
    "ORPO, full": Method("orpo", full=True),
    "ORPO, LoRA": Method("orpo"),
    "SimPO, full": Method("simpo", full=True),
    "SimPO, LoRA": Method("simpo"),
}


def adapters(config: DecoderConfig, work: Workload, method: Method) -> LoraConfig | None:
    """The adapters of Table 10, or none."""
    return None if method.full else LoraConfig(work.rank, targets=lora_targets(config))


def _step_flops(config: DecoderConfig, work: Workload, method: Method, traced: bool) -> float:
    lora, rows = adapters(config, work, method), work.at_once * (1 if method.loss == "sft" else 2)
    if not traced:
        return closed_form.training_flops(config, rows, work.length, lora=lora, remat=method.remat)
    loss, batch = preference_loss(method.loss), pair_batch(work.at_once, work.length)
    if method.loss == "sft":
        loss, batch = finetuning, response_batch(rows, work.length)
    return count_flops(*training_step(config, loss, batch, lora=lora, remat=method.remat).parts)


def tuning_cost(config: DecoderConfig, work: Workload, method: Method, *, traced: bool = True) -> Cost:
    """Fine-tuning by a method, its reference passes included.

    Args:
        config: shape of the model.
        work: pairs, tokens, epochs, adapters.
        method: one of `METHODS`, or another.
        traced: count by tracing the step that runs; False takes the closed form.

    Returns:
        `Cost`: bytes moved are every weight once a pass, what is kept once each way, and the optimiser's memory; the
        peak is `training_memory`'s bound.

    Example:
        >>> from coala_lib.lm.shapes import SHAPES
        >>> names = "ORPO, full", "DPO, full"
        >>> orpo, dpo = (tuning_cost(SHAPES["gpt2"], Workload(), METHODS[name], traced=False) for name in names)
        >>> orpo.flops / dpo.flops
        0.75
    """
    rows = work.at_once * (1 if method.loss == "sft" else 2)
    memory = training_bytes(config, rows, work.length, lora=adapters(config, work, method), remat=method.remat)
    # `optimizer` is two moments. A part adds to the gradients: read and written, as many bytes. An update reads and
    # writes parameters and both moments: three times as many, once in `accumulate` parts.
    passes, updates = 2 + method.remat, 1 + 3 / work.accumulate
    moved = passes * memory.weights + 2 * (memory.kept + memory.logits) + updates * memory.optimizer
    steps = work.pairs / work.at_once
    total = Cost(_step_flops(config, work, method, traced), moved, memory.total).times(steps * work.epochs)
    if method.reference == "never":
        return total
    reading = extraction_bytes(config, rows, work.length)
    flops = closed_form.forward_flops(config, rows, work.length, logits=True)
    if traced:
        flops = count_flops(*reference_step(config, work.at_once, work.length).parts)
    once = Cost(flops, reading.weights + 2 * memory.logits, reading.total + memory.logits)
    return total + once.times(steps * (1 if method.reference == "once" else work.epochs))


def feature_cost(
    config: DecoderConfig, work: Workload, *, layer: int | None = None, shared: bool = False, traced: bool = True
) -> Cost:
    """Features of both responses of every pair, once: what COALA asks of the language model, whatever the epochs.

    Args:
        config: shape of the model.
        work: pairs and tokens.
        layer: hidden state to read, and to stop at; None for the last.
        shared: read each prompt once for both responses.
        traced: see `tuning_cost`.

    Returns:
        `Cost`; the weights of layers that do not run are neither moved nor held.
    """
    deep, pairs = layer or config.num_hidden_layers, work.at_once
    if traced:
        at = -1 if layer is None else layer
        step = feature_step(config, pairs, work.prompt, work.response, layer=at, shared=shared)
        flops = count_flops(*step.parts)
    elif shared:
        flops = closed_form.shared_flops(config, pairs, work.prompt, work.response, layer=layer)
    else:
        flops = closed_form.forward_flops(config, 2 * pairs, work.length, layer=layer)
    memory = extraction_bytes(replace(config, num_hidden_layers=deep), 2 * pairs, work.length, scan=False)
    return Cost(flops, memory.weights, memory.total).times(work.pairs / pairs)


def reply_cost(config: DecoderConfig, prompt: int, policy: Policy, *, traced: bool = True) -> Cost:
    """One guided reply; a policy of one candidate is plain sampling.

    Args:
        config: shape of the model.
        prompt: tokens.
        policy: how to write.
        traced: see `tuning_cost`.

    Returns:
        `Cost`; every token of a reply moves all weights and the keys and values of all candidates.
    """
    new, branches = policy.max_new_tokens, policy.n_candidates
    flops = closed_form.decoding_flops(config, prompt, new, branches)
    if traced:
        step = decoding_step(config, prompt, policy)
        flops = count_flops(*step.parts, trips=(new // policy.chunk, policy.chunk))
    reading = extraction_bytes(config, 1, prompt, scan=False)
    row = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * HALF
    cache = branches * (prompt + new) * row
    return Cost(flops, reading.weights + new * (reading.weights + cache), reading.total + cache)
