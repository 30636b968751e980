"""What a training run would take, before it starts: shapes, parameters, memory and arithmetic."""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from shortcut_models import catalogue, sharding
from shortcut_models.config import Config
from shortcut_models.objectives import Batch
from shortcut_models.state import shapes_of
from shortcut_models.train import compile_step, make_step


def describe(config: Config) -> str:
    """A page of text. Memory is exact for the state and, for the rest, what the compiler reserved here."""
    config = config.finished()
    shapes = shapes_of(config)
    layout = sharding.make_layout(shapes, config.sharding, config.model.stacked)
    sharding.check_batch(config.batch_size, config.accumulation, layout.mesh)
    flops = step_flops(config)
    memory = compile_step(config, layout).memory_analysis()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    state = _bytes_per_device(shapes, layout.placed)
    items = " x ".join(map(str, config.model.shape))
    lines = [
        f"data         {catalogue.kind_of(catalogue.DATA, config.data)}: items {items}, "
        f"{config.model.num_classes} classes",
        f"objective    {catalogue.kind_of(catalogue.OBJECTIVES, config.objective)}",
        f"parameters   {parameters:,} ({parameters / 1e6:.1f}M) in {len(jax.tree.leaves(shapes.params))} arrays:",
        *(f"  {name:<28} {shape}" for name, shape in _shapes(shapes.params)),
        f"devices      {layout.mesh.size} ({jax.devices()[0].device_kind}), {config.sharding}",
        f"memory       {_size(state)} per device for weights, averages and optimiser",
        f"             {_size(memory.temp_size_in_bytes)} more while a step runs, as compiled here",
        f"arithmetic   {flops:.4g} FLOP per step, {flops / config.batch_size:.4g} per image "
        "(matrix products and convolutions)",
        f"length       {config.max_steps:,} steps x {config.batch_size} images = "
        f"{config.images:,} images, {config.max_steps * flops:.4g} FLOP",
    ]
    return "\n".join(lines)


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
