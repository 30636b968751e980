"""An ONNX graph in the making: nodes, constants, and shapes of which one length, the batch, is not known.

Written for operator set 20, which onnxruntime 1.17 and later run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from jaxtyping import Shaped
from onnx import helper

OPSET, IR_VERSION = 20, 9
LARGEST = 2_000_000_000
"""Bytes of weights that go into the file itself: a protocol buffer ends at 2 GiB. More lie in a file beside it."""

Dim = Any
"""A length: an int, or a symbolic multiple of the batch (jax.export)."""
Shape = tuple[Dim, ...]


class Tensor(NamedTuple):
    """A value of the graph, a constant if it has an array.

    Its shape may be 1 where what it stands for is longer: it is broadcast when something needs it so.
    """

    name: str
    """"" for a constant that nothing has used yet."""
    shape: Shape
    dtype: np.dtype
    array: Shaped[np.ndarray, "..."] | None = None


class Node(NamedTuple):
    """One operation."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


def constant(array: Any, name: str = "") -> Tensor:
    """A constant; with a name, the file calls it so."""
    array = np.asarray(array)
    array = array.astype(plain(array.dtype), copy=False)
    return Tensor(name, array.shape, array.dtype, array)


def plain(dtype: Any) -> np.dtype:
    """The type of numbers in the file: onnxruntime does not count in uint32."""
    return np.dtype(np.int64 if dtype == np.uint32 else dtype)


def is_static(shape: Sequence[Dim]) -> bool:
    """Whether all lengths are known."""
    return all(isinstance(dim, int | np.integer) for dim in shape)


@dataclass
class Graph:
    """Nodes in order, and what all graphs of a file share: constants, names, and the batch."""

    batch: Dim
    """The length that is not known."""
    rows: str = ""
    """Name of a tensor, int64 (1,), that holds it."""
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    known: dict[Any, str] = field(default_factory=dict)
    """Names of constants by what they hold."""
    count: list[int] = field(default_factory=lambda: [0])
    nodes: list[Node] = field(default_factory=list)
    makers: dict[str, Node] = field(default_factory=dict)
    """The node of this graph that makes a value."""

    def within(self) -> "Graph":
        """A graph for the body of a loop, which sees the values of this one."""
        return Graph(self.batch, self.rows, self.constants, self.known, self.count)

    def name(self, tensor: Tensor) -> str:
        """The tensor's name; a constant is added to the file."""
        if tensor.array is None or tensor.name in self.constants:
            return tensor.name
        if tensor.name:
            self.constants[tensor.name] = tensor.array
            return tensor.name
        key = (str(tensor.dtype), tensor.shape, tensor.array.tobytes())
        if key not in self.known:
            self.known[key] = self.fresh("constant")
            self.constants[self.known[key]] = tensor.array
        return self.known[key]

    def default(self, name: str, value: Any) -> Tensor:
        """An input that need not be given: a constant by that name, which is not computed with here."""
        self.constants[name] = np.asarray(value)
        return constant(value)._replace(name=name, array=None)

    def fresh(self, kind: str) -> str:
        """A name that is not taken."""
        self.count[0] += 1
        return f"{kind}_{self.count[0]}"

    def add(
        self,
        kind: str,
        inputs: Sequence[Tensor | str],
        outputs: int = 1,
        names: tuple[str, ...] = (),
        **attributes: Any,
    ) -> list[str]:
        """Add a node; returns the names of its results, which are made up if none are given."""
        given = tuple(x if isinstance(x, str) else self.name(x) for x in inputs)
        names = names or tuple(self.fresh(kind.lower()) for _ in range(outputs))
        made = Node(kind, given, names, attributes)
        self.nodes.append(made)
        self.makers |= dict.fromkeys(made.outputs, made)
        return list(made.outputs)

    def make(self, kind: str, inputs: Sequence[Tensor | str], shape: Shape, dtype: Any, **attributes: Any) -> Tensor:
        """Add a node with one result."""
        return Tensor(self.add(kind, inputs, **attributes)[0], tuple(shape), np.dtype(dtype))

    def lengths(self, shape: Sequence[Dim]) -> Tensor:
        """A shape as the int64 tensor that Reshape and Expand take."""
        if is_static(shape):
            return constant(np.array(shape, np.int64))
        parts = [self._length(dim) for dim in shape]
        return parts[0] if len(parts) == 1 else self.make("Concat", parts, (len(parts),), np.int64, axis=0)

    def _length(self, dim: Dim) -> Tensor:
        """A length as int64 (1,)."""
        if is_static([dim]):
            return constant(np.array([dim], np.int64))
        times = dim // self.batch
        assert is_static([times]) and times * self.batch == dim, f"{dim} is no multiple of the batch"
        rows = Tensor(self.rows, (1,), np.dtype(np.int64))
        return rows if times == 1 else self.make("Mul", [rows, constant([times])], (1,), np.int64)

    def whole(self, x: Tensor, shape: Shape) -> Tensor:
        """The tensor in the shape that it stands for, broadcast if it is not yet."""
        if x.shape == tuple(shape):
            return x
        if x.array is not None and is_static(shape):
            return constant(np.broadcast_to(x.array, shape))
        return self.make("Expand", [x, self.lengths(shape)], shape, x.dtype)

    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        """The same numbers in another shape."""
        if x.shape == tuple(shape):
            return x
        if x.array is not None:
            return constant(x.array.reshape(shape), derived(x, shape))
        open_ended = [-1 if not is_static([dim]) else dim for dim in shape]
        to = constant(np.array(open_ended, np.int64)) if open_ended.count(-1) < 2 else self.lengths(shape)
        return self.make("Reshape", [x, to], shape, x.dtype)

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """Axes in another order; one after another become one."""
        order = [int(axis) for axis in order]
        if order == sorted(order):
            return x
        shape = tuple(x.shape[axis] for axis in order)
        if x.array is not None:
            return constant(x.array.transpose(order), derived(x, order))
        maker = self.makers.get(x.name)
        if maker and maker.kind == "Transpose":
            before = [maker.attributes["perm"][axis] for axis in order]
            source = x._replace(name=maker.inputs[0], shape=tuple(shape[before.index(i)] for i in range(len(before))))
            return self.transpose(source, before)
        return self.make("Transpose", [x], shape, x.dtype, perm=order)


def derived(x: Tensor, by: Sequence[int]) -> str:
    """A name for what is made of a constant by a shape, an order of axes or an index."""
    return f"{x.name}.{'x'.join(map(str, by))}" if x.name else ""


class Port(NamedTuple):
    """An input or output of a graph."""

    name: str
    shape: tuple[int | str, ...]
    """A length that is not known has a name."""
    dtype: np.dtype


def assemble(graph: Graph, name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> onnx.GraphProto:
    """The graph as ONNX has it, without constants and without nodes that nothing uses."""
    needed, kept = {port.name for port in outputs}, []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
            bodies = [value for value in node.attributes.values() if isinstance(value, onnx.GraphProto)]
            needed |= {used for body in bodies for inner in body.node for used in inner.input}
            kept.append(helper.make_node(node.kind, node.inputs, node.outputs, **node.attributes))
    return helper.make_graph(kept[::-1], name, [_info(port) for port in inputs], [_info(port) for port in outputs])


def write(path: Path, proto: onnx.GraphProto, graph: Graph, about: dict[str, str], beside: Path | None = None) -> None:
    """Write a graph with its constants, those of more than 1 kB in a file beside it if there is to be one."""
    used = {name for part in _all_graphs(proto) for node in part.node for name in node.input}
    used |= {port.name for port in proto.output}
    constants = {name: array for name, array in graph.constants.items() if name in used}
    if beside is None:
        proto.initializer.extend(_tensor(name, array) for name, array in constants.items())
    else:
        with beside.open("wb") as file:
            for name, array in constants.items():
                proto.initializer.append(_outside(name, array, file) if array.nbytes > 1024 else _tensor(name, array))
    model = helper.make_model(
        proto,
        producer_name="shortcut-models",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, about)
    with path.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))


def size(graph: Graph) -> int:
    """Bytes of all constants."""
    return sum(array.nbytes for array in graph.constants.values())


def _all_graphs(proto: onnx.GraphProto) -> list[onnx.GraphProto]:
    bodies = [attribute.g for node in proto.node for attribute in node.attribute if attribute.HasField("g")]
    return [proto, *(inner for body in bodies for inner in _all_graphs(body))]


def _info(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), port.shape)


def _tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.TensorProto(name=name, dims=array.shape, data_type=kind, raw_data=array.tobytes())


def _outside(name: str, array: np.ndarray, file: Any) -> onnx.TensorProto:
    """A constant whose bytes are appended to a file that lies beside the model."""
    file.write(bytes(-file.tell() % 4096))  # Aligned, so that it can be mapped.
    offset = file.tell()
    file.write(array.tobytes())
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    found = onnx.TensorProto(name=name, dims=array.shape, data_type=kind, data_location=onnx.TensorProto.EXTERNAL)
    where = {"location": Path(file.name).name, "offset": str(offset), "length": str(array.nbytes)}
    found.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in where.items())
    return found
