"""One mesh, one axis: where the batch and the state live.

`dp` keeps a copy of the state on every device; `fsdp` spreads each large array of it over them.
Either way the batch is spread, and XLA inserts the communication.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from shortcut_models.errors import InputError

AXIS = "data"
Sharding = Literal["dp", "fsdp"]


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices in a line; by default all of all processes."""
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Raise InputError, with the arithmetic, unless every device gets whole images at every turn."""
    parts = mesh.size * accumulation
    if batch_size % parts:
        raise InputError(
            f"batch_size {batch_size} is not a multiple of {mesh.size} device(s) x {accumulation} accumulation "
            f"turn(s) = {parts}: use {max(batch_size // parts, 1) * parts} or {-(-batch_size // parts) * parts}."
        )


def state_sharding(mesh: Mesh, shapes: Any, mode: Sharding) -> Any:
    """A sharding for every array of a state, given their shapes (from `jax.eval_shape`)."""

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if mode == "dp" or mesh.size == 1:
            return replicated(mesh)
        # The leading axis of "blocks" is the depth, which the scan walks: splitting it would serialise.
        stacked = any(getattr(part, "key", None) == "blocks" for part in path)
        axes = [axis for axis in range(int(stacked), leaf.ndim) if leaf.shape[axis] % mesh.size == 0]
        if leaf.ndim < 1 + stacked or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[AXIS if i == longest else None for i in range(leaf.ndim)]))

    return jax.tree_util.tree_map_with_path(place, shapes)


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " local"]:
    """The rows of a global batch that live on this process's devices, in order."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    slices = sorted({index[0].indices(batch_size)[:2] for index in indices.values() if index})
    return np.concatenate([np.arange(start, stop) for start, stop in slices])


def place_batch(mesh: Mesh, local: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Join the rows that each process read into global arrays, spread over the devices."""
    return {k: jax.make_array_from_process_local_data(batch_sharding(mesh), v) for k, v in local.items()}
