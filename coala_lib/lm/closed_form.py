r"""The floating-point operations of a decoder, by hand: what a reader can check with a pencil.

One sequence of $T$ tokens through a layer with $w$ weights in its linear maps and $H$ heads of size $h$ takes
$2wT + 4T^2Hh$; the output matrix takes $2VdT$. Attention is counted as it is computed, over all $T^2$ pairs: a causal
kernel would do half of that part. A backward pass takes one more forward for the gradients of the inputs, and one
more for those of the weights where the weights move; attention's products have two moving factors in any case.

`lowering.py` traces the code itself; the tests hold both against each other.
"""

from dataclasses import replace

from coala_lib.lm.config import DecoderConfig
from coala_lib.lm.lora import LoraConfig
from coala_lib.lm.names import linear_modules

Sizes = dict[str, tuple[int, int]]
KEYS = ("qkv_proj", "k_proj", "v_proj")  # the maps that make keys and values: GPT-2's makes queries with them
FIRST = ("q_proj", *KEYS)  # the maps that read a layer's input


def linear_sizes(config: DecoderConfig) -> Sizes:
    """(in, out) of the linear maps of a layer, by our names.

    Example:
        >>> linear_sizes(DecoderConfig(32, 16, 48, 2, 2, 1, 64))["down_proj"]
        (48, 16)
    """
    d, inner, h = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_attention_heads * h, config.num_key_value_heads * h
    into = {"qkv_proj": (d, 3 * q)} if config.is_gpt2 else {"q_proj": (d, q), "k_proj": (d, kv), "v_proj": (d, kv)}
    gate = {} if config.is_gpt2 else {"gate_proj": (d, inner)}
    return into | {"o_proj": (q, d)} | gate | {"up_proj": (d, inner), "down_proj": (inner, d)}


def adapter_sizes(config: DecoderConfig, lora: LoraConfig) -> Sizes:
    """(in, out) of the adapted maps of a layer, by our names."""
    modules = linear_modules(replace(config, num_hidden_layers=1))
    adapted = {place[-1] for name, place in modules.items() if name.rpartition(".")[2] in lora.targets}
    return {name: size for name, size in linear_sizes(config).items() if name in adapted}


def trained_weights(config: DecoderConfig, lora: LoraConfig) -> int:
    """Number of weights that adapters add: r (in + out) for every adapted map of every layer.

    Example:
        >>> from coala_lib.lm.shapes import SHAPES, lora_targets
        >>> llama = SHAPES["Llama-3.1-8B"]
        >>> trained_weights(llama, LoraConfig(16, targets=lora_targets(llama)))
        41943040
    """
    return config.num_hidden_layers * lora.rank * sum(map(sum, adapter_sizes(config, lora).values()))


def _linear(sizes: Sizes, names: tuple[str, ...] | None = None) -> int:
    return sum(rows * columns for name, (rows, columns) in sizes.items() if names is None or name in names)


def attention_flops(config: DecoderConfig, queries: int, keys: int) -> float:
    """Scores and weighted sums of one layer, 4 T S H h."""
    return 4.0 * queries * keys * config.num_attention_heads * config.head_dim


def layer_flops(config: DecoderConfig, queries: int, keys: int) -> float:
    """One layer over `queries` tokens that look at `keys` slots, 2 w T + 4 T S H h."""
    return 2.0 * _linear(linear_sizes(config)) * queries + attention_flops(config, queries, keys)


def logits_flops(config: DecoderConfig, tokens: int) -> float:
    """The output matrix, 2 V d a token."""
    return 2.0 * config.vocab_size * config.hidden_size * tokens


def forward_flops(
    config: DecoderConfig, rows: int, length: int, *, layer: int | None = None, logits: bool = False
) -> float:
    """A forward pass over whole sequences.

    Args:
        config: shape of the model.
        rows, length: sequences, and tokens in each.
        layer: hidden state to stop at; None for the last.
        logits: whether the output matrix is applied. Features do not need it.

    Returns:
        Floating-point operations.
    """
    layers = config.num_hidden_layers if layer is None else layer
    return rows * (layers * layer_flops(config, length, length) + logits * logits_flops(config, length))


def shared_flops(
    config: DecoderConfig, lines: int, prompt: int, response: int, *, siblings: int = 2, layer: int | None = None
) -> float:
    """Features of responses that share a prompt, which is read once; without logits.

    Args:
        config: shape of the model.
        lines: prompts.
        prompt, response: tokens of each.
        siblings: responses a prompt.
        layer: hidden state to stop at; None for the last.

    Returns:
        Floating-point operations. The prompt's tokens look at the empty slots of the responses too; in the last layer
        nobody asks for more of them than keys and values.
    """
    layers, slots = config.num_hidden_layers if layer is None else layer, prompt + response
    reading, answering = layer_flops(config, prompt, slots), siblings * layer_flops(config, response, slots)
    keys = 2.0 * prompt * _linear(linear_sizes(config), KEYS)
    return lines * (layers * answering + (layers - 1) * reading + keys)


def training_flops(
    config: DecoderConfig,
    rows: int,
    length: int,
    *,
    lora: LoraConfig | None = None,
    remat: bool = False,
    scan: bool = True,
) -> float:
    """Forward and backward pass of a loss on log-probabilities, the optimiser's elementwise update left out.

    Args:
        config: shape of the model.
        rows, length: sequences, and predicted tokens in each.
        lora: adapters, where only they move; their targets must hold the maps that read a layer's input.
        remat: layers are computed again in the backward pass, but for the last map, whose output nobody needs.
        scan: layers stand in a loop. Without one, nothing flows back into the frozen embeddings under the first.

    Returns:
        Floating-point operations.
    """
    deep, sizes, tokens = config.num_hidden_layers, linear_sizes(config), rows * length
    layer = rows * layer_flops(config, length, length)
    logits = logits_flops(config, tokens)
    again = layer - 2 * tokens * _linear(sizes, ("down_proj",)) if remat else 0.0
    if lora is None:
        return 3 * (deep * layer + logits) + deep * again
    adapted = adapter_sizes(config, lora)
    ends = {name: lora.rank * (rows + columns) for name, (rows, columns) in adapted.items()}
    # both factors of attention's products move, though the maps under them do not
    moving = rows * attention_flops(config, length, length) + 6 * tokens * sum(ends.values())
    total = 2 * (deep * layer + logits) + deep * moving
    if remat:
        unused = lora.rank * sizes["down_proj"][1] if "down_proj" in adapted else 0
        total += deep * (again + 2 * tokens * (sum(ends.values()) - unused))
    if not scan:
        into = sum(lora.rank * adapted[name][0] for name in FIRST if name in adapted)
        total -= 2 * tokens * (_linear(sizes, FIRST) + into)
    return total


def decoding_flops(config: DecoderConfig, prompt: int, new: int, candidates: int = 1) -> float:
    """Write one reply: read the prompt, then `new` tokens for every candidate, each looking at all slots.

    Args:
        config: shape of the model.
        prompt, new: tokens.
        candidates: branches that grow together; 1 is plain sampling.

    Returns:
        Floating-point operations; a head that scores the branches adds nearly nothing.
    """
    slots = prompt + new
    read = config.num_hidden_layers * layer_flops(config, prompt, slots)
    step = config.num_hidden_layers * layer_flops(config, 1, slots) + logits_flops(config, 1)
    return read + candidates * new * step
