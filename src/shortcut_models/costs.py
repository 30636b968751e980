"""What a training run would take, before it starts: shapes, parameters, memory and arithmetic."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from shortcut_models import catalogue, sharding
from shortcut_models.config import Config
from shortcut_models.errors import InputError
from shortcut_models.objectives import Batch
from shortcut_models.state import State, shapes_of
from shortcut_models.terminal import Progress
from shortcut_models.train import make_step

DEVICES = (1, 8, 64)
"""Numbers of devices that a page tells the memory for."""


def describe(config: Config) -> str:
    """A page of text. Memory is exact for the state and, for the rest, what the compiler reserved here."""
    config = config.finished()
    shapes = shapes_of(config)
    layout = sharding.make_layout(shapes, config.sharding, config.model.stacked)
    sharding.check_batch(config.batch_size, config.accumulation, layout.mesh)
    flops = step_flops(config)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    items = " x ".join(map(str, config.model.shape))
    lines = [
        f"data         {catalogue.kind_of(catalogue.DATA, config.data)}: items {items}, "
        f"{config.model.num_classes} classes",
        f"objective    {catalogue.kind_of(catalogue.OBJECTIVES, config.objective)}",
        f"parameters   {parameters:,} ({parameters / 1e6:.1f}M) in {len(jax.tree.leaves(shapes.params))} arrays:",
        *(f"  {name:<28} {shape}" for name, shape in _shapes(shapes.params)),
        f"devices      {layout.mesh.size} ({jax.devices()[0].device_kind}), {config.sharding}",
        "memory       per device: of weights, averages and optimiser, and what a step takes besides",
        *(f"  {line}" for line in memory_table(config, shapes)),
        *(
            ["encoder      the VAE in front of every step is not in these numbers"]
            if getattr(config.data, "vae", "")
            else []
        ),
        f"arithmetic   {flops:.4g} FLOP per step, {flops / config.batch_size:.4g} per image "
        "(matrix products and convolutions)",
        f"length       {config.max_steps:,} steps x {config.batch_size} images = "
        f"{config.images:,} images, {config.max_steps * flops:.4g} FLOP",
    ]
    return "\n".join(lines)


def memory_table(config: Config, shapes: State, devices: Sequence[int] = DEVICES) -> list[str]:
    """Memory per device for each number of devices: a head, rows, and what the numbers are.

    The state's follows from its shapes, to the byte. The step's is what the compiler reserves here for one
    device's share of the batch; where that is too small for the objective, for the least share that will do.
    """
    lines = [f"{'devices':>7} {'images':>7} {'state, dp':>11} {'state, fsdp':>11} {'step':>11}"]
    for count in devices:
        states = [_size(state_bytes(config, shapes, mode, count)) for mode in ("dp", "fsdp")]
        images, rest = divmod(config.batch_size, count * config.accumulation)
        if rest:
            share, step = "-", f"(batch_size {config.batch_size} does not divide)"
        else:
            taken = _least(config, images)
            Progress.say(f"compiling a step of {taken} images ...")
            share, step = str(images), f"{'<= ' * (taken > images)}{_size(_step_bytes(config, shapes, taken))}"
        lines.append(f"{count:>7} {share:>7} {states[0]:>11} {states[1]:>11} {step:>11}")
    about = "the state is exact; the step is as compiled for this machine with one device's images"
    return [*lines, about, "and holds whole gradients, which fsdp spreads"]


def state_bytes(config: Config, shapes: State, mode: sharding.Sharding, devices: int) -> int:
    """Bytes of the state on each of so many devices, which need not be here."""
    mesh = jax.sharding.AbstractMesh((devices,), (sharding.AXIS,))
    return _bytes_per_device(shapes, sharding.state_sharding(mesh, shapes, mode, config.model.stacked))


def _least(config: Config, images: int) -> int:
    """So many images, or as many more as the objective needs at the least."""
    for count in range(images, config.batch_size):
        try:
            config.objective.check(count, config.images)
        except InputError:
            continue
        return count
    return config.batch_size


def _step_bytes(config: Config, shapes: State, images: int) -> int:
    """What the compiler reserves beside the state for a step on so many images and one device."""
    x1: Any = jax.ShapeDtypeStruct((images * config.accumulation, *config.model.shape), jnp.float32)
    label: Any = jax.ShapeDtypeStruct(x1.shape[:1], jnp.int32)
    batch = Batch(x1, label, x1 if config.data.paired else None)
    step = jax.jit(make_step(config), donate_argnums=0)
    compiled: Any = step.lower(shapes, batch, jax.ShapeDtypeStruct((), jnp.uint32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def step_flops(config: Config) -> int:
    """Floating-point operations of one training step, as `count_flops` counts them."""
    x1: Any = jax.ShapeDtypeStruct((config.batch_size, *config.model.shape), jnp.float32)
    # Noise that comes with the data costs no products, so it may stand here for every objective.
    label: Any = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    batch = Batch(x1, label, x1)
    jaxpr = jax.make_jaxpr(make_step(config))(shapes_of(config), batch, jax.ShapeDtypeStruct((), jnp.uint32))
    return count_flops(jaxpr.jaxpr)


def count_flops(jaxpr: Any) -> int:
    """Floating-point operations of all matrix products and convolutions, two per multiply-add.

    XLA's own count takes the body of a scan once; this multiplies it by the scan's length.
    """
    total = 0
    for equation in jaxpr.eqns:
        out = equation.outvars[0].aval if equation.outvars else None
        if equation.primitive.name == "dot_general" and out is not None:
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out.size * prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated" and out is not None:
            kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
            total += 2 * out.size * kernel.size // kernel.shape[numbers.rhs_spec[0]]
        inner = [count_flops(sub) for sub in _inner(equation)]
        if equation.primitive.name == "scan":
            total += equation.params["length"] * sum(inner)
        elif equation.primitive.name == "cond":
            total += max(inner)
        else:
            total += sum(inner)
    return total


def _inner(equation: Any) -> list[Any]:
    """The programs inside an operation."""
    values = [v for value in equation.params.values() for v in (value if isinstance(value, tuple | list) else [value])]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


def _bytes_per_device(shapes: Any, placed: Any) -> int:
    def local(leaf: Any, where: jax.sharding.NamedSharding) -> int:
        return prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(local, shapes, placed)))


def _shapes(params: Any) -> list[tuple[str, str]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(".".join(str(part.key) for part in path), " x ".join(map(str, leaf.shape))) for path, leaf in leaves]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
