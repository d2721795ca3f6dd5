"""Low-rank adapters (LoRA): every chosen linear map W becomes W + (alpha / r) A B with A (in, r) and B (r, out).

W stays frozen; A starts as PEFT draws it and B at zero, so that an adapted model starts as the model itself.
Adapters are kept in float32 beside weights of any dtype, and merge into them when training has ended.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from coala_lib.lm.decoder import Decoder
from coala_lib.lm.names import Place, linear_modules

Adapter = nnx.LoRAParam  # the type of A and B: what `train` and optax take as trainable


@dataclass(frozen=True)
class LoraConfig:
    """Which maps are adapted, and how much.

    Attributes:
        rank: r.
        alpha: the update is scaled by alpha / r.
        targets: Hugging Face's names of the linear maps, as in PEFT: "q_proj" ... "down_proj", or GPT-2's "c_attn",
            "c_proj", "c_fc".

    Raises:
        ValueError: for a rank below 1 or no target.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise ValueError(f"an adapter needs a rank of at least 1 and a target; got {self.rank}, {self.targets}")

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank


class LoraLinear(nnx.Module):
    """A frozen linear map with its adapter: base(x) + scale · (x A) B.

    Args:
        base: the map; its weights may be stacked over layers.
        a, b: (..., in, r) and (..., r, out), stacked as the weights are.
        scale: alpha / r.
    """

    def __init__(self, base: nnx.Linear, a: Float[Array, "... d r"], b: Float[Array, "... r k"], scale: float) -> None:
        self.base, self.a, self.b, self.scale = base, Adapter(a), Adapter(b), scale

    def __call__(self, x: Float[Array, "B T d"]) -> Float[Array, "B T k"]:
        a, b = (factor[...].astype(x.dtype) for factor in (self.a, self.b))
        return self.base(x) + (x @ a @ b) * jnp.asarray(self.scale, x.dtype)

    def merged(self) -> nnx.Linear:
        """The map with its adapter added to the weights."""
        new = nnx.merge(*nnx.split(self.base))
        kernel = new.kernel[...]
        wide = kernel.astype(jnp.float32) + self.scale * (self.a[...] @ self.b[...])
        new.kernel = nnx.Param(wide.astype(kernel.dtype))
        return new


def target_modules(decoder: Decoder, targets: tuple[str, ...]) -> dict[str, Place]:
    """Hugging Face's names of the adapted maps -> where they stand in the decoder.

    Raises:
        ValueError: naming a target that is no linear map of the model.
    """
    linear = linear_modules(decoder.config)
    kinds = {name.rpartition(".")[2] for name in linear}
    if unknown := sorted(set(targets) - kinds):
        raise ValueError(f"the model has no linear map {unknown[0]!r}; it has {', '.join(sorted(kinds))}")
    return {name: place for name, place in linear.items() if name.rpartition(".")[2] in targets}


def add_lora(decoder: Decoder, config: LoraConfig, key: PRNGKeyArray) -> Decoder:
    """The model with a fresh adapter on every target.

    Args:
        decoder: frozen model; not changed, and its weights are shared.
        config: which maps, rank and alpha.
        key: draws A uniformly from ±1/√in, as PEFT does; B is zero.

    Returns:
        A decoder that computes the same, and whose `Adapter` parameters can be trained.

    Raises:
        ValueError: for an unknown target, or a model that has adapters already.

    Example:
        >>> from coala_lib.lm.config import DecoderConfig
        >>> decoder = Decoder(DecoderConfig(32, 16, 32, 2, 2, 1, 64), nnx.Rngs(0))
        >>> adapted = add_lora(decoder, LoraConfig(rank=2), jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(adapted, Adapter)))
        224
    """
    homes = dict.fromkeys(
        (None if decoder.scan else place[1], place[2]) for place in target_modules(decoder, config.targets).values()
    )
    new = nnx.merge(*nnx.split(decoder))
    if jax.tree.leaves(nnx.state(new, Adapter)):
        raise ValueError("the model has adapters already; merge them first")
    for number, (layer, name) in enumerate(homes):
        block = new.layers if layer is None else new.layers[layer]
        base = getattr(block, name)
        *stack, rows, columns = base.kernel[...].shape
        bound = rows**-0.5
        a = jax.random.uniform(jax.random.fold_in(key, number), (*stack, rows, config.rank), jnp.float32, -bound, bound)
        setattr(block, name, LoraLinear(base, a, jnp.zeros((*stack, config.rank, columns)), config.scale))
    new.lora = config
    return new


def merge_lora(decoder: Decoder) -> Decoder:
    """The model with its adapters added to the weights: as fast as before, and ready for `save_decoder`.

    Example:
        >>> from coala_lib.lm.config import DecoderConfig
        >>> decoder = Decoder(DecoderConfig(32, 16, 32, 2, 2, 1, 64), nnx.Rngs(0))
        >>> merged = merge_lora(add_lora(decoder, LoraConfig(), jax.random.key(0)))
        >>> bool((merged.layers[0].q_proj.kernel[...] == decoder.layers[0].q_proj.kernel[...]).all())
        True
    """
    new = nnx.merge(*nnx.split(decoder))
    for block in [new.layers] if new.scan else new.layers:
        for name, child in list(vars(block).items()):
            if isinstance(child, LoraLinear):
                setattr(block, name, child.merged())
    new.lora = None
    return new
