"""Which part of every weight stands on which device: rules for a mesh with axes "data" and "model".

"data" spreads every matrix over the devices that share the batch (fully sharded data parallel);
"model" cuts the maps out of the residual stream by columns and those back into it by rows (tensor parallel).
XLA inserts the communication. Either axis may be absent; an axis that does not divide a size is left out there.
"""

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from coala_lib.lm.decoder import Decoder

OUT_OF = {"q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "lm_head"}
BACK = {"o_proj", "down_proj"}


def _axes(path: tuple[str | int, ...]) -> tuple[str | None, ...]:
    """Mesh axes of the trailing dimensions of a weight."""
    home, kind = set(path), path[-1]
    if kind == "embedding":
        return ("model" if "embed" in home else None), "data"
    if home & OUT_OF:
        return {"kernel": ("data", "model"), "bias": ("model",), "a": ("data", None), "b": (None, "model")}[kind]
    if home & BACK:
        return {"kernel": ("model", "data"), "bias": (None,), "a": ("model", None), "b": (None, "data")}[kind]
    return (None,)


def partition_spec(path: tuple[str | int, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How one weight is cut.

    Args:
        path: where it stands in the decoder's parameters.
        shape: its shape; a leading axis of stacked layers is never cut.
        mesh: the devices.

    Returns:
        An axis of the mesh, or None, for each dimension.

    Example:
        >>> mesh = Mesh(jax.devices()[:1], ("model",))
        >>> list(partition_spec(("layers", 0, "o_proj", "kernel"), (32, 32), mesh))
        ['model', None]
    """
    axes = _axes(path)
    full = (None,) * (len(shape) - len(axes)) + axes
    fits = (axis in mesh.axis_names and size % mesh.shape[axis] == 0 for axis, size in zip(full, shape, strict=True))
    return PartitionSpec(*(axis if fit else None for axis, fit in zip(full, fits, strict=True)))


def sharding_of(path: tuple[str | int, ...], shape: tuple[int, ...], mesh: Mesh | None) -> NamedSharding | None:
    """Where one weight goes; None without a mesh."""
    if mesh is None:
        return None
    # the compiler chooses how values flow between the weights, also on a mesh made for explicit shardings
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), partition_spec(path, shape, mesh))


def shard_decoder(decoder: Decoder, mesh: Mesh) -> Decoder:
    """The same model spread over the devices of a mesh.

    Example:
        >>> from coala_lib.lm.config import DecoderConfig
        >>> decoder = Decoder(DecoderConfig(32, 16, 32, 1, 2, 1, 64), nnx.Rngs(0))
        >>> spread = shard_decoder(decoder, Mesh(jax.devices()[:1], ("data",)))
        >>> list(spread.embed.embedding[...].sharding.spec)
        [None, 'data']
    """
    graph, state = nnx.split(decoder)
    placed = (
        (path, leaf.replace(jax.device_put(leaf.get_value(), sharding_of(path, leaf.get_value().shape, mesh))))
        for path, leaf in nnx.to_flat_state(state)
    )
    return nnx.merge(graph, nnx.from_flat_state(placed))
