"""What the compiled training step sends between eight (faked) devices, to the byte."""

import dataclasses
from typing import Any

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import Collective, bytes_by_kind, collectives
from shortcut_models import sharding
from shortcut_models.config import Config
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.state import shapes_of
from shortcut_models.train import compile_step

SCALARS = 256  # Room for the metrics' sums and the gradient's norm: some dozen float32.


def size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def compiled(config: Config, move: Any = lambda placed, _: placed) -> tuple[list[Collective], Any]:
    layout = sharding.make_layout(shapes_of(config), config.sharding, config.model.stacked)
    layout = layout._replace(placed=move(layout.placed, layout.mesh))
    return collectives(compile_step(config, layout).as_text()), layout.shapes.params


def assert_planned_for_fsdp(found: list[Collective], params: Any) -> None:
    """A block at a time is gathered, once forwards and once backwards; the gradient is reduced once."""
    total = bytes_by_kind(found)
    blocks = size(params["blocks"])
    # The first and last layers are kept from the forward pass.
    assert total.pop("all-gather") == size(params) + blocks
    # XLA's CPU backend reduces whole and takes its part; on GPUs and TPUs it makes a reduce-scatter of that.
    reduced = total.pop("all-reduce", 0) + total.pop("reduce-scatter", 0)
    assert size(params) <= reduced <= size(params) + SCALARS
    assert not total
    one_block = max(leaf.size // len(leaf) * 4 for leaf in jax.tree.leaves(params["blocks"]))
    rest = max(leaf.size * 4 for leaf in jax.tree.leaves({**params, "blocks": {}}))
    assert max(one.size for one in found if one.kind == "all-gather") <= max(one_block, rest)


@pytest.fixture(scope="module")
def flow(tiny: Config) -> Config:
    model = dataclasses.replace(tiny.model, depth=8, hidden_size=32)
    return dataclasses.replace(tiny, model=model, objective=FlowMatching())


@pytest.mark.parametrize("remat", [False, True])
def test_dp_sends_the_gradient_and_nothing_else(flow: Config, remat: bool) -> None:
    found, params = compiled(dataclasses.replace(flow, model=dataclasses.replace(flow.model, remat=remat)))
    total = bytes_by_kind(found)
    assert size(params) <= total.pop("all-reduce") <= size(params) + SCALARS
    assert not total


def test_fsdp_gathers_a_block_at_a_time_and_reduces_the_gradient_once(flow: Config) -> None:
    assert_planned_for_fsdp(*compiled(dataclasses.replace(flow, sharding="fsdp")))


@pytest.mark.parametrize("remat", [False, True])
def test_bfloat16_blocks_are_gathered_in_bfloat16(flow: Config, remat: bool) -> None:
    model = dataclasses.replace(flow.model, dtype="bfloat16", remat=remat)
    with jax.numpy_dtype_promotion("standard"):  # JAX's own attention promotes.
        found, params = compiled(dataclasses.replace(flow, model=model, sharding="fsdp"))
    blocks = size(params["blocks"])
    assert bytes_by_kind(found)["all-gather"] == size(params) - blocks + 2 * blocks // 2


def test_every_further_call_of_the_network_gathers_once_more(tiny: Config) -> None:
    # 64 images: the quarter that learns jumps is then two rows for each device, and none has to move.
    found, params = compiled(dataclasses.replace(tiny, sharding="fsdp", batch_size=64))
    total = bytes_by_kind(found)
    # Shortcut targets: two calls of another average's blocks, whose other layers are gathered once for both.
    assert total.pop("all-gather") == 2 * size(params) + 2 * size(params["blocks"])
    reduced = total.pop("all-reduce", 0) + total.pop("reduce-scatter", 0)
    assert size(params) <= reduced <= size(params) + SCALARS
    assert not total


def test_a_stray_gather_of_the_whole_model_is_found(flow: Config) -> None:
    def split_the_depth(placed: Any, mesh: jax.sharding.Mesh) -> Any:
        blocks = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(sharding.AXIS)), placed.params["blocks"])
        return placed._replace(params={**placed.params, "blocks": blocks})

    found, params = compiled(dataclasses.replace(flow, sharding="fsdp"), split_the_depth)
    with pytest.raises(AssertionError):
        assert_planned_for_fsdp(found, params)


PROGRAM = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %part = bf16[2,3]{1,0} parameter(0)
  %all-gather-start = (bf16[2,3]{1,0}, bf16[16,3]{1,0}) all-gather-start(%part), dimensions={0}
  %all-gather-done = bf16[16,3]{1,0} all-gather-done(%all-gather-start)
  ROOT %turned = (s32[], f32[8]) tuple(%i, %x)
}

ENTRY %main (x: f32[64]) -> f32[8] {
  %x = f32[64]{0} parameter(0)
  %reduce-scatter = f32[8]{0} reduce-scatter(%x), to_apply=%add, metadata={op_name="jit(f)/psum"}
  %loop = (s32[], f32[8]) while(%start), condition=%end, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %all-reduce = (f32[8]{0}, /*index=1*/s32[]) all-reduce(%a, %b), to_apply=%add
}
"""


def test_a_program_is_read_with_its_loops_and_asynchronous_parts() -> None:
    found = collectives(PROGRAM)
    assert found[0] == Collective("reduce-scatter", 64 * 4, 1, "jit(f)/psum")
    assert found[1] == Collective("all-gather", 16 * 3 * 2, 5, "")
    assert bytes_by_kind(found) == {"reduce-scatter": 256, "all-gather": 480, "all-reduce": 36}


def test_a_loop_without_a_known_end_is_refused() -> None:
    with pytest.raises(ValueError, match="all-gather in a loop whose number of turns is unknown"):
        collectives(PROGRAM.replace("known_trip_count", "other"))
