"""What each of JAX's primitives is in ONNX.

A rule takes the graph, the equation and its inputs, and returns the equation's results. `Tensor.shape` may be 1
where the equation's shape is longer; a rule that cannot leave it so asks for the whole.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from shortcut_models.errors import InputError
from shortcut_models.interop.onnx_graph import Dim, Graph, Shape, Tensor, constant, derived, is_static, plain
from shortcut_models.interop.onnx_patterns import simplified

Rule = Callable[[Graph, Any, list[Tensor]], list[Tensor]]
RULES: dict[str, Rule] = {}

ELEMENTWISE = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "le_to": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "lt_to": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
"""Primitives that are one operator."""
POINTWISE = (
    *ELEMENTWISE,
    "convert_element_type",
    "integer_pow",
    "log2",
    "ne",
    "rem",
    "round",
    "rsqrt",
    "select_n",
    "square",
)
"""Primitives of which each number depends on one of each input."""
SAME = ("copy", "copy_p", "optimization_barrier", "sharding_constraint", "stop_gradient")
"""Primitives that change nothing."""
REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_sum": "ReduceSum"}
LOGICAL = ("and", "not", "or")
"""Of integers they are bitwise, which ONNX calls otherwise."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of some primitives."""

    def register(found: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, found))
        return found

    return register


def refuse(equation: Any, why: str) -> InputError:
    """The error about an operation that has no counterpart here."""
    return InputError(f"this model cannot be exported to ONNX: its operation {equation.primitive} {why}.")


def together(inputs: Sequence[Tensor]) -> Shape:
    """The shape of tensors of one rank, and of scalars, broadcast against each other; an unknown length is not 1."""
    shapes = [x.shape for x in inputs if x.shape]
    return tuple(next((dim for dim in dims if not _is_one(dim)), 1) for dims in zip(*shapes, strict=True))


def _is_one(dim: Dim) -> bool:
    return is_static([dim]) and int(dim) == 1


def _dtype(equation: Any) -> np.dtype:
    return plain(equation.outvars[0].aval.dtype)


def _shape(equation: Any, which: int = 0) -> Shape:
    return equation.invars[which].aval.shape


@rule(*ELEMENTWISE)
def _elementwise(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    name = equation.primitive.name
    if name in LOGICAL and inputs[0].dtype != bool:
        raise refuse(equation, f"is of {inputs[0].dtype}, where only truth values can be")
    return [simplified(graph, graph.make(ELEMENTWISE[name], inputs, together(inputs), _dtype(equation)))]


@rule(*SAME)
def _same(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    del graph, equation
    return inputs


@rule("ne")
def _not_equal(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    del equation
    shape = together(inputs)
    return [graph.make("Not", [graph.make("Equal", inputs, shape, bool)], shape, bool)]


@rule("rsqrt")
def _reciprocal_root(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    del equation
    (x,) = inputs
    return [graph.make("Reciprocal", [graph.make("Sqrt", [x], x.shape, x.dtype)], x.shape, x.dtype)]


@rule("square")
def _square(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    del equation
    (x,) = inputs
    return [graph.make("Mul", [x, x], x.shape, x.dtype)]


@rule("log2")
def _binary_logarithm(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    del equation
    (x,) = inputs
    natural = graph.make("Log", [x], x.shape, x.dtype)
    return [graph.make("Div", [natural, constant(np.array(math.log(2), x.dtype))], x.shape, x.dtype)]


@rule("integer_pow")
def _power(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    (x,) = inputs
    return [graph.make("Pow", [x, constant(np.array(equation.params["y"], x.dtype))], x.shape, x.dtype)]


@rule("rem")
def _remainder(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return [graph.make("Mod", inputs, together(inputs), _dtype(equation), fmod=1)]


@rule("round")
def _round(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    if equation.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise refuse(equation, "rounds halves away from zero, which ONNX does not")
    (x,) = inputs
    return [graph.make("Round", inputs, x.shape, x.dtype)]


@rule("clamp")
def _clamp(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    del equation
    low, x, high = inputs
    return [graph.make("Min", [graph.make("Max", [x, low], x.shape, x.dtype), high], x.shape, x.dtype)]


@rule("select_n")
def _select(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    which, *cases = inputs
    if which.dtype != bool or len(cases) != 2:
        raise refuse(equation, f"chooses among {len(cases)} cases, where two can be")
    return [graph.make("Where", [which, cases[1], cases[0]], together(inputs), _dtype(equation))]


@rule("convert_element_type")
def _convert(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    (x,) = inputs
    to = _dtype(equation)
    if to.name not in ("bool", "float32", "int32", "int64"):
        raise refuse(equation, f"computes in {to.name}, where onnxruntime needs float32")
    return [x if to == x.dtype else cast(graph, x, to)]


def cast(graph: Graph, x: Tensor, to: Any) -> Tensor:
    """The numbers in another type."""
    from onnx import helper

    return graph.make("Cast", [x], x.shape, to, to=helper.np_dtype_to_tensor_dtype(np.dtype(to)))


@rule("broadcast_in_dim")
def _broadcast(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    x, kept = inputs[0], equation.params["broadcast_dimensions"]
    rank = len(equation.params["shape"])
    return [insert_axes(graph, x, [axis for axis in range(rank) if axis not in kept])]


@rule("expand_dims")
def _expand_dims(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return [insert_axes(graph, inputs[0], equation.params["dimensions"])]


def insert_axes(graph: Graph, x: Tensor, axes: Sequence[int]) -> Tensor:
    """The tensor with axes of length 1 where the result shall have them."""
    if not len(axes):
        return x
    shape = list(x.shape)
    for axis in sorted(axes):
        shape.insert(axis, 1)
    if x.array is not None:
        return constant(x.array.reshape(shape), derived(x, shape))
    return graph.make("Unsqueeze", [x, constant(np.array(axes, np.int64))], tuple(shape), x.dtype)


@rule("squeeze")
def _squeeze(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    x, axes = inputs[0], equation.params["dimensions"]
    shape = tuple(dim for axis, dim in enumerate(x.shape) if axis not in axes)
    if not axes:
        return [x]
    return [graph.make("Squeeze", [x, constant(np.array(axes, np.int64))], shape, x.dtype)]


@rule("reshape")
def _reshape(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return [graph.reshape(graph.whole(inputs[0], _shape(equation)), equation.params["new_sizes"])]


@rule("transpose")
def _transpose(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return [graph.transpose(inputs[0], equation.params["permutation"])]


@rule("concatenate")
def _concatenate(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    parts = [graph.whole(x, _shape(equation, i)) for i, x in enumerate(inputs)]
    shape = equation.outvars[0].aval.shape
    return [graph.make("Concat", parts, shape, _dtype(equation), axis=equation.params["dimension"])]


@rule("stack")
def _stack(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    parts = [graph.whole(x, _shape(equation, i)) for i, x in enumerate(inputs)]
    return [stack(graph, parts, equation.params["axis"])]


def stack(graph: Graph, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors of one shape along a new axis."""
    shape = (*parts[0].shape[:axis], len(parts), *parts[0].shape[axis:])
    return graph.make("Concat", [insert_axes(graph, x, [axis]) for x in parts], shape, parts[0].dtype, axis=axis)


@rule("split")
def _split(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    x, sizes, axis = graph.whole(inputs[0], _shape(equation)), equation.params["sizes"], equation.params["axis"]
    names = graph.add("Split", [x, graph.lengths(sizes)], len(sizes), axis=axis)
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    return [Tensor(name, shape, x.dtype) for name, shape in zip(names, shapes, strict=True)]


@rule("slice")
def _slice(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    x, given = graph.whole(inputs[0], _shape(equation)), equation.params
    steps = given["strides"] or [1] * len(x.shape)
    limits = zip(given["start_indices"], given["limit_indices"], steps, strict=True)
    cut = [(axis, *limit) for axis, limit in enumerate(limits) if limit != (0, x.shape[axis], 1)]
    if not is_static([number for row in cut for number in row]):
        raise refuse(equation, "cuts the batch in parts")
    return [_sliced(graph, x, cut, equation.outvars[0].aval.shape)]


@rule("dynamic_slice")
def _dynamic_slice(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """A window that starts where an index says, or as far back as it must to lie within."""
    x, sizes = graph.whole(inputs[0], _shape(equation)), equation.params["slice_sizes"]
    for axis, (start, size) in enumerate(zip(inputs[1:], sizes, strict=True)):
        if size == x.shape[axis]:
            continue
        last = constant(np.array(x.shape[axis] - size, start.dtype))
        (start,) = _clamp(graph, equation, [constant(np.array(0, start.dtype)), start, last])
        begin = graph.reshape(cast(graph, start, np.int64), (1,))
        end = graph.make("Add", [begin, constant(np.array([size], np.int64))], (1,), np.int64)
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        x = graph.make("Slice", [x, begin, end, constant(np.array([axis], np.int64))], shape, x.dtype)
    return [x]


@rule("dim_as_value")
def _length(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """A length that is a multiple of the batch, as a number."""
    del inputs
    length = graph.lengths((equation.params["dim"],))
    return [cast(graph, graph.reshape(length, ()), _dtype(equation))]


@rule("rev")
def _reverse(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    x = graph.whole(inputs[0], _shape(equation))
    return [_sliced(graph, x, [(axis, -1, -(2**31), -1) for axis in equation.params["dimensions"]], x.shape)]


def _sliced(graph: Graph, x: Tensor, cut: Sequence[tuple[int, ...]], shape: Shape) -> Tensor:
    """Part of a tensor, by rows of axis, start, end, step."""
    if not cut:
        return x
    axes, starts, ends, steps = (constant(np.array(column, np.int64)) for column in zip(*cut, strict=True))
    return graph.make("Slice", [x, starts, ends, axes, steps], shape, x.dtype)


@rule(*REDUCTIONS)
def _reduce(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    axes = [int(axis) for axis in equation.params["axes"]]
    shape = _shape(equation)
    # Only what is reduced has to be there in full.
    x = graph.whole(inputs[0], tuple(shape[i] if i in axes else dim for i, dim in enumerate(inputs[0].shape)))
    left = tuple(dim for i, dim in enumerate(x.shape) if i not in axes)
    kind = REDUCTIONS[equation.primitive.name]
    return [graph.make(kind, [x, constant(np.array(axes, np.int64))], left, x.dtype, keepdims=0)]


@rule("gather")
def _gather(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Whole slices by their index along one axis, as `table[index]` and `x[:, :, i]` are."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, index = (graph.whole(x, _shape(equation, i)) for i, x in enumerate(inputs))
    axis = numbers.start_index_map[0]
    expected = tuple(1 if i == axis else dim for i, dim in enumerate(operand.shape))
    if len(numbers.start_index_map) > 1 or tuple(sizes) != expected or numbers.operand_batching_dims:
        raise refuse(equation, "takes other than whole slices along one axis")
    # The last axis of the indices, of length 1, takes the place of the indexed one, or goes with it.
    places = len(index.shape) - 1
    if collapsed := axis in numbers.collapsed_slice_dims:
        index = graph.reshape(index, index.shape[:-1])
    if equation.params["mode"] == lax.GatherScatterMode.CLIP:
        last = constant(np.array(operand.shape[axis] - 1, index.dtype))
        (index,) = _clamp(graph, equation, [constant(np.array(0, index.dtype)), index, last])
    shape = (*operand.shape[:axis], *index.shape, *operand.shape[axis + 1 :])
    found = graph.make("Gather", [operand, index], shape, operand.dtype, axis=axis)
    indexed = iter(range(axis, axis + places))
    sliced = iter([*range(axis), *range(axis + places, len(shape))])
    assert collapsed or len(shape) == len(operand.shape) + places
    return [graph.transpose(found, [next(sliced if i in numbers.offset_dims else indexed) for i in range(len(shape))])]


@rule("dot_general")
def _product(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """As one MatMul of (batch..., rows, summed) and (batch..., summed, columns)."""
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    sides = [
        _Side(graph, x, _shape(equation, i), batch, summed)
        for i, (x, batch, summed) in enumerate([(inputs[0], left_batch, left_sum), (inputs[1], right_batch, right_sum)])
    ]
    # The order that leaves large operands as they lie: what sums over its last axis stands first.
    swapped = sides[1].sums_last and not sides[0].sums_last
    first, second = sides[::-1] if swapped else sides
    batch = first.batch
    product = graph.make(
        "MatMul",
        [first.matrix(graph, summed_last=True), second.matrix(graph, summed_last=False)],
        (*batch, _times(first.free), _times(second.free)),
        _dtype(equation),
    )
    product = graph.reshape(product, (*batch, *first.free, *second.free))
    if swapped:
        start, middle, end = len(batch), len(batch) + len(first.free), len(product.shape)
        product = graph.transpose(product, [*range(start), *range(middle, end), *range(start, middle)])
    return [product]


class _Side:
    """One operand of a product: its axes that are shared, its own, and those that are summed over."""

    def __init__(self, graph: Graph, x: Tensor, shape: Shape, batch: Sequence[int], summed: Sequence[int]) -> None:
        own = [axis for axis in range(len(shape)) if axis not in (*batch, *summed)]
        self.x = graph.whole(x, tuple(dim if i in own else shape[i] for i, dim in enumerate(x.shape)))
        self.axes = list(batch), own, list(summed)
        self.batch, self.free, self.summed = (tuple(self.x.shape[i] for i in axes) for axes in self.axes)
        self.sums_last = list(summed) == [len(shape) - 1]

    def matrix(self, graph: Graph, summed_last: bool) -> Tensor:
        batch, own, summed = self.axes
        order = [*batch, *own, *summed] if summed_last else [*batch, *summed, *own]
        sizes = (_times(self.free), _times(self.summed))
        return graph.reshape(graph.transpose(self.x, order), (*self.batch, *(sizes if summed_last else sizes[::-1])))


def _times(shape: Shape) -> Dim:
    return math.prod(shape)


@rule("conv_general_dilated")
def _convolution(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    given, numbers = equation.params, equation.params["dimension_numbers"]
    if set(given["lhs_dilation"]) != {1} or given["batch_group_count"] != 1 or min(map(min, given["padding"])) < 0:
        raise refuse(equation, "dilates its input, groups the batch or pads by less than nothing")
    x, kernel = (graph.whole(x, _shape(equation, i)) for i, x in enumerate(inputs))
    x, kernel = graph.transpose(x, numbers.lhs_spec), graph.transpose(kernel, numbers.rhs_spec)
    shape = equation.outvars[0].aval.shape
    found = graph.make(
        "Conv",
        [x, kernel],
        tuple(shape[axis] for axis in numbers.out_spec),
        _dtype(equation),
        strides=list(given["window_strides"]),
        dilations=list(given["rhs_dilation"]),
        pads=[low for low, _ in given["padding"]] + [high for _, high in given["padding"]],
        group=given["feature_group_count"],
    )
    return [graph.transpose(found, [numbers.out_spec.index(axis) for axis in range(len(shape))])]
