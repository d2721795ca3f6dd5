"""What one optimiser step needs, in bytes, by hand: beside the weights stand what the forward pass keeps for the
backward pass, gradients, the optimiser's memory and the logits.

Two bounds: `certain` is what the loop over layers must store, `total` adds all that can be alive beside it. What is
kept is what JAX keeps for a backward pass, scores of attention included: no fused kernel is assumed. The tests hold
both bounds against the compiler's plan on a CPU; on a GPU they are bounds that nobody here has measured.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax.typing import DTypeLike

from coala_lib.lm.closed_form import adapter_sizes, linear_sizes, trained_weights
from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.lora import LoraConfig
from coala_lib.lm.lowering import Abstract
from coala_lib.lm.memory import n_parameters

WIDE = 4  # bytes of float32: norms, scores, logits and adapters


@dataclass(frozen=True)
class TrainingBytes:
    """Where the memory of one step goes.

    Attributes:
        weights: all parameters, adapters included.
        optimizer: two moments of every trained parameter.
        gradients: of the trained parameters.
        renewed: new parameters and moments, which a step returns beside the old ones.
        kept: what the forward pass keeps of every layer.
        layer: what the backward pass of one layer has at hand: its inner values, gradients of half as many, which
            are freed as they are used, and its weights, cut out of the stack.
        logits: of every token in float32, their gradient, and one copy for the products.
    """

    weights: int
    optimizer: int
    gradients: int
    renewed: int
    kept: int
    layer: int
    logits: int

    @property
    def total(self) -> int:
        """Bound on the peak: logits are gone before the layers' backward pass begins."""
        standing = self.weights + self.optimizer + self.gradients + self.renewed
        return standing + self.kept + max(self.layer, self.logits)

    @property
    def certain(self) -> int:
        """What no compiler can do without: weights, the optimiser's memory, and what the layers' loop stores."""
        return self.weights + self.optimizer + self.kept


def kept_per_token(config: DecoderConfig, length: int, size: int, lora: LoraConfig | None = None) -> int:
    """Bytes that the backward pass of one layer reads of each token.

    Args:
        config: shape of the model.
        length: tokens a row: each has a score for every other.
        size: bytes of a number of the residual stream.
        lora: adapters, which keep r numbers each.

    Returns:
        Bytes: queries, keys and values; softmax weights in float32 and in the stream's dtype; norms and the residual
        stream; the MLP's inner values.
    """
    heads, kv, d = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    attention = (heads + 2 * kv) * config.head_dim * size + heads * length * (WIDE + size)
    wide, narrow = (6, 3) if config.is_gpt2 else (4, 5)  # layer norm keeps two more wide copies than RMS norm
    stream = d * (wide * WIDE + narrow * size)
    ranks = 0 if lora is None else lora.rank * len(adapter_sizes(config, lora)) * size
    return attention + stream + 6 * config.intermediate_size * size + ranks


def training_bytes(
    config: DecoderConfig,
    rows: int,
    length: int,
    *,
    lora: LoraConfig | None = None,
    remat: bool = False,
    dtype: DTypeLike = jnp.bfloat16,
) -> TrainingBytes:
    """Memory of one step of a loss on log-probabilities, layers in a loop (`Decoder(scan=True)`).

    Args:
        config: shape of the model.
        rows, length: sequences at a time, two a pair, and tokens in each.
        lora: adapters, where only they move.
        remat: keep the layers' inputs only, and compute the rest again.
        dtype: of the weights and of the residual stream; adapters are float32.

    Returns:
        `TrainingBytes`. DPO with adapters needs no second model: the reference is the model without them.

    Example:
        >>> from coala_lib.lm.shapes import SHAPES, lora_targets
        >>> llama = SHAPES["Llama-3.1-8B"]
        >>> adapters = LoraConfig(16, targets=lora_targets(llama))
        >>> [round(training_bytes(llama, 4, 512, lora=adapters, remat=remat).total / 1e9) for remat in (False, True)]
        [45, 20]
    """
    size, tokens, deep = jnp.dtype(dtype).itemsize, rows * length, config.num_hidden_layers
    all_weights = n_parameters(config)
    adapters = 0 if lora is None else trained_weights(config, lora)
    moving = all_weights * size if lora is None else adapters * WIDE
    inner = tokens * kept_per_token(config, length, size, lora)
    linear = sum(math.prod(shape) for shape in linear_sizes(config).values())
    return TrainingBytes(
        weights=all_weights * size + adapters * WIDE,
        optimizer=2 * moving,
        gradients=moving,
        renewed=3 * moving,
        kept=deep * (tokens * config.hidden_size * size if remat else inner),
        layer=3 * inner // 2 + linear * size,
        logits=tokens * config.vocab_size * (2 * WIDE + size),
    )


def planned_bytes(step: Abstract) -> dict[str, int]:
    """Compile a step for the present device and read the compiler's plan: bytes of arguments, outputs, and between.

    On a CPU bfloat16 products are computed in float32, so the plan says little about a GPU; give float32 there.
    """
    plan = step.lower().compile().memory_analysis()
    return {
        "arguments": plan.argument_size_in_bytes,
        "outputs": plan.output_size_in_bytes - plan.alias_size_in_bytes,
        "temporary": plan.temp_size_in_bytes,
    }
