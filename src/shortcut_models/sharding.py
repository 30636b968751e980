"""One mesh, one axis: where the batch and the state live.

`dp` keeps a copy of the state on every device; `fsdp` spreads each large array of it over them.
Either way the batch is spread, and XLA inserts the communication.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from shortcut_models.errors import InputError

AXIS = "data"
Sharding = Literal["dp", "fsdp"]


class Layout(NamedTuple):
    """The devices of a training, and where each array of its state lives."""

    mesh: Mesh
    shapes: Any
    """The state's arrays, as `jax.ShapeDtypeStruct`."""
    placed: Any
    """Their shardings."""

    def scope(self) -> AbstractContextManager[Any]:
        """Where the step is compiled: a network sees the mesh only if its parameters are spread over it.

        See `networks.layers.whole`.
        """
        spread = any(not where.is_fully_replicated for where in jax.tree.leaves(self.placed))
        return jax.set_mesh(self.mesh) if spread else nullcontext()


def make_layout(shapes: Any, mode: Sharding, stacked: Sequence[str] = (), mesh: Mesh | None = None) -> Layout:
    """Spread a state of these shapes over the devices, by default all, as `state_sharding` does."""
    mesh = mesh or make_mesh()
    return Layout(mesh, shapes, state_sharding(mesh, shapes, mode, stacked))


def abstract(shapes: Any, placed: Any) -> Any:
    """Shapes with their shardings."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, placed
    )


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices in a line; by default all of all processes."""
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
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


def state_sharding(mesh: Mesh | AbstractMesh, shapes: Any, mode: Sharding, stacked: Sequence[str] = ()) -> Any:
    """A sharding for every array of a state, given their shapes (from `jax.eval_shape`).

    `stacked` names the parts whose leading axis is walked by a scan: splitting it would serialise.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        read_by_all = getattr(path[0], "name", None) == "totals"  # Every process reads the sums of the metrics.
        if mode == "dp" or mesh.size == 1 or read_by_all:
            return replicated(mesh)
        first = int(any(getattr(part, "key", None) in stacked for part in path))
        axes = [axis for axis in range(first, leaf.ndim) if leaf.shape[axis] % mesh.size == 0]
        if not axes:
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


def spread(mesh: Mesh, rows: np.ndarray, most: int) -> Iterator[tuple[jax.Array, int]]:
    """Batches of about `most` rows spread over the devices of this process, and how many rows of each count.

    All have one size, a multiple of the devices, so that one compiled program serves them: the last is filled up.
    """
    size = -(-min(most, len(rows)) // mesh.size) * mesh.size
    for start in range(0, len(rows), size):
        part = rows[np.minimum(np.arange(start, start + size), len(rows) - 1)]
        yield jax.device_put(part, batch_sharding(mesh)), min(size, len(rows) - start)


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """Arrays that are spread over all processes, whole on a device of this one; the same arrays where there is one."""
    if jax.process_count() == 1:
        return tree
    gathered = jax.jit(lambda given: given, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), gathered)
