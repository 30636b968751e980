"""A model's sampler as an ONNX graph: from noise and label to samples, with one copy of the weights."""

from typing import Any

import jax
import numpy as np
import onnx
from jax import export

from shortcut_models.interop import onnx_noise
from shortcut_models.interop.exporting import Sampler, named
from shortcut_models.interop.onnx_graph import Graph, Port, Tensor, assemble, constant
from shortcut_models.interop.onnx_lowering import lower
from shortcut_models.interop.onnx_rules import cast

BATCH = "n"
"""What the batch is called in the shapes of inputs and outputs."""
FLOAT, WHOLE, TRUTH = np.dtype(np.float32), np.dtype(np.int64), np.dtype(bool)


def build(asked: Sampler) -> tuple[Graph, onnx.GraphProto]:
    """The graph, and all of it but its constants; raises InputError for an operation that ONNX lacks."""
    (batch,) = export.symbolic_shape(BATCH)
    graph = Graph(batch)
    noise = Tensor("noise", (batch, *asked.model.network.shape), FLOAT)
    label = Tensor("label", (batch,), WHOLE)
    inputs = [_port(noise), _port(label)]
    keys = None
    graph.rows = graph.add("Shape", [label], start=0, end=1)[0]
    # One row of either would be spread over many of the other.
    rows = graph.make("Shape", [noise], (1,), WHOLE, start=0, end=1)
    as_many = graph.make("Equal", [rows, Tensor(graph.rows, (1,), WHOLE)], (1,), TRUTH)
    zero = cast(graph, _zero_if(graph, graph.reshape(as_many, ())), FLOAT)
    checked = graph.make("Add", [noise, zero], noise.shape, FLOAT)
    if asked.renoises:
        seed = graph.default("seed", np.int64(0))
        inputs.append(_port(seed))
        keys = onnx_noise.image_keys(graph, _checked_seed(graph, seed))
    x = _sample(graph, asked, checked, _checked(graph, label, asked.labels), keys)
    if asked.codec is not None:
        (x,) = lower(graph, asked.decode, (_constants(asked.codec, "decoder."), x))
    name = "image" if len(noise.shape) == 4 else "points"
    graph.add("Identity", [x], names=(name,))
    return graph, assemble(graph, "sampler", inputs, [_port(x._replace(name=name))])


def _sample(graph: Graph, asked: Sampler, noise: Tensor, label: Tensor, keys: onnx_noise.Words | None) -> Tensor:
    """The samples: one jump as it is, several as a loop over one."""
    params = _constants(asked.model.params)
    if asked.steps == 1:
        (x,) = lower(graph, asked.jump, (params, label, constant(np.int32(0)), noise, None))
        return graph.whole(x, noise.shape)
    index, go_on, x = Tensor("index", (), WHOLE), Tensor("go_on", (), TRUTH), noise._replace(name="x")
    body = graph.within()
    number = body.make("Add", [index, constant(np.int64(1))], (), WHOLE)
    fresh = None if keys is None else onnx_noise.normal(body, keys, number, noise.shape)
    (after,) = lower(body, asked.jump, (params, label, cast(body, index, np.int32), x, fresh))
    after = body.whole(after, noise.shape)
    still = body.make("Identity", [go_on], (), TRUTH)
    proto = assemble(body, "jump", [_port(given) for given in (index, go_on, x)], [_port(still), _port(after)])
    start = [constant(np.array(asked.steps, WHOLE)), constant(np.array(True)), noise]
    return graph.make("Loop", start, noise.shape, FLOAT, body=proto)


def _checked(graph: Graph, label: Tensor, count: int) -> Tensor:
    """The label as int32, looked up in a list of all, so that onnxruntime refuses others.

    It would count negative ones from the end, a cast takes 2^32 for 0, and a network may take any for none.
    """
    if not count:
        return cast(graph, label, np.int32)
    below = graph.make("Less", [label, constant(np.int64(0))], label.shape, TRUTH)
    index = graph.make("Where", [below, constant(np.int64(count)), label], label.shape, WHOLE)
    return graph.make("Gather", [constant(np.arange(count, dtype=np.int32)), index], label.shape, np.int32, axis=0)


def _checked_seed(graph: Graph, seed: Tensor) -> Tensor:
    """The seed, if it is a word of 32 bits; onnxruntime refuses others."""
    word = graph.make("Mod", [seed, constant(np.int64(onnx_noise.WORD))], (), WHOLE)
    return graph.make("Add", [word, _zero_if(graph, graph.make("Equal", [word, seed], (), TRUTH))], (), WHOLE)


def _zero_if(graph: Graph, right: Tensor) -> Tensor:
    """0, by a look into a list that onnxruntime refuses, as out of bounds, where something is not right."""
    is_wrong = cast(graph, graph.make("Not", [right], (), TRUTH), WHOLE)
    return graph.make("Gather", [constant(np.zeros(1, WHOLE)), is_wrong], (), WHOLE, axis=0)


def _constants(tree: Any, before: str = "") -> Any:
    """A pytree's leaves as constants that the file names by their paths."""
    leaves = [constant(leaf, before + name) for name, leaf in named(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _port(x: Tensor) -> Port:
    return Port(x.name, tuple(int(dim) if isinstance(dim, int | np.integer) else str(dim) for dim in x.shape), x.dtype)
