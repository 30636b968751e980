"""Operations counted by hand, and what a run is said to take."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from shortcut_models.costs import count_flops, memory_table, state_bytes
from shortcut_models.networks.dit import DiT
from shortcut_models.presets import get_preset
from shortcut_models.state import shapes_of


def flops(function: Any, *shapes: tuple[int, ...]) -> int:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_matrix_product_is_two_operations_per_multiply_add() -> None:
    assert flops(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert flops(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (7, 3, 4), (7, 5, 4)) == 7 * 2 * 3 * 4 * 5
    assert flops(lambda a, b: jnp.einsum("ij,ij->", a, b), (3, 4), (3, 4)) == 2 * 3 * 4
    assert flops(lambda a, b: a + jnp.exp(b), (3, 4), (3, 4)) == 0


def test_the_body_of_a_scan_counts_once_per_turn() -> None:
    def outer(a: jax.Array, b: jax.Array) -> jax.Array:
        def inner(c: jax.Array, _: None) -> tuple[jax.Array, None]:
            return lax.scan(lambda e, _: (e @ b, None), c, length=3)[0] @ b, None

        return lax.scan(inner, a, length=5)[0]

    assert flops(outer, (2, 4), (4, 4)) == 5 * (3 + 1) * 2 * 2 * 4 * 4


def test_programs_inside_operations_are_counted() -> None:
    product = 2 * 2 * 4 * 4
    assert flops(jax.jit(lambda a, b: a @ b), (2, 4), (4, 4)) == product
    assert flops(jax.vmap(lambda a, b: a @ b), (6, 2, 4), (6, 4, 4)) == 6 * product
    # Of two branches the dearer one.
    branch = lambda a, b: lax.cond(a[0, 0] > 0, lambda: a @ b @ b, lambda: a @ b)  # noqa: E731
    assert flops(branch, (2, 4), (4, 4)) == 2 * product
    # Backwards there is a product for each operand, and recomputing adds the forward one once more.
    gradient = jax.grad(lambda a, b: jnp.sum(jnp.sin(a @ b)), argnums=(0, 1))
    assert flops(gradient, (2, 4), (4, 4)) == 3 * product
    again = jax.grad(jax.checkpoint(lambda a, b: jnp.sum(jnp.sin(a @ b))), argnums=(0, 1))
    assert flops(again, (2, 4), (4, 4)) == 4 * product


@pytest.mark.parametrize(("groups", "stride", "side"), [(1, 1, 8), (1, 2, 4), (4, 1, 8)])
def test_a_convolution_counts_its_kernel_for_every_output(groups: int, stride: int, side: int) -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    per_output = 3 * 3 * (4 // groups)
    assert flops(convolve, (2, 8, 8, 4), (3, 3, 4 // groups, 12)) == 2 * (2 * side * side * 12) * per_output


def test_the_forward_pass_of_a_dit_is_that_of_a_hand_formula() -> None:
    net = DiT(image_size=8, channels=3, num_classes=4, patch_size=2, hidden_size=32, depth=3, num_heads=2, mlp_ratio=2)
    batch, tokens, patch, width, hidden = 5, 16, 12, 32, 64
    embeddings = 2 * (256 * width + width * width)
    block = 6 * width**2 + tokens * (3 * width**2 + 2 * tokens * width + width**2 + 2 * width * hidden)
    ends = 2 * tokens * patch * width + 2 * width**2
    expected = 2 * batch * (embeddings + 3 * block + ends)

    params = jax.eval_shape(net.init, jax.random.key(0))
    x, t = jax.ShapeDtypeStruct((batch, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    label = jax.ShapeDtypeStruct((batch,), jnp.int32)
    assert count_flops(jax.make_jaxpr(net.apply)(params, x, t, t, label).jaxpr) == expected


def test_the_memory_of_devices_that_are_not_here_follows_from_shapes() -> None:
    config = get_preset("points")
    config = replace(config, model=replace(config.model, hidden_size=64, depth=1))
    shapes = shapes_of(config)
    leaves = [(leaf.shape, leaf.size * leaf.dtype.itemsize) for leaf in jax.tree.leaves(shapes)]
    whole = sum(size for _, size in leaves)
    assert [state_bytes(config, shapes, "dp", count) for count in (1, 8, 64)] == [whole] * 3
    spread = {
        count: sum(size // (count if any(side % count == 0 for side in shape) else 1) for shape, size in leaves)
        for count in (8, 64)
    }
    assert {count: state_bytes(config, shapes, "fsdp", count) for count in (8, 64)} == spread
    assert spread[64] < spread[8] < whole


@pytest.mark.slow
def test_a_step_is_compiled_for_one_device_s_share() -> None:
    config = replace(get_preset("points"), batch_size=32)
    head, one, eight, many, *about = (line.split() for line in memory_table(config, shapes_of(config)))
    assert head[:2] == ["devices", "images"]
    assert (one[:2], eight[:2], many[:2]) == (["1", "32"], ["8", "4"], ["64", "-"])
    assert "does not divide" in " ".join(many)
    assert one[2:6] == one[4:6] + one[2:4]  # On one device fsdp spreads nothing.
    assert float(eight[6]) < float(one[6]) or eight[7] != one[7]
    assert "fsdp" in about[-1]
    share = replace(config, batch_size=64)
    assert "<=" in memory_table(share, shapes_of(share), [64])[1]
