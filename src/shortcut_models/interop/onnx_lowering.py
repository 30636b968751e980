"""From a function in JAX to the nodes of an ONNX graph: its equations one by one, loops of known length unrolled."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from shortcut_models.interop.onnx_graph import Graph, Tensor, constant, derived, is_static
from shortcut_models.interop.onnx_rules import POINTWISE, RULES, refuse, stack

INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Where equations that call a function have it."""
UNFOLDED = ("broadcast_in_dim", "dim_as_value", "reshape", "transpose")
"""What is no constant, and rules that keep constants small, or their names."""


def lower(graph: Graph, function: Callable[..., Any], arguments: Any) -> list[Tensor]:
    """Add what a function computes to the graph; `arguments` are pytrees of Tensors. Returns its results, flat.

    Constants are computed here and now. Raises InputError for an operation that has no counterpart in ONNX.
    """
    leaves, tree = jax.tree.flatten(arguments, is_leaf=_is_tensor)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    traced = jax.make_jaxpr(function)(*jax.tree.unflatten(tree, shapes))
    return _equations(graph, traced.jaxpr, [constant(array) for array in traced.consts], leaves)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _equations(graph: Graph, jaxpr: Any, consts: Sequence[Tensor], arguments: Sequence[Tensor]) -> list[Tensor]:
    values = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Tensor:
        return constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        results = _equation(graph, equation, [read(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    name = equation.primitive.name
    if name == "scan":
        return _unroll(graph, equation, inputs)
    for inner in (equation.params[key] for key in INNER if key in equation.params):
        return _equations(graph, *_inside(inner), inputs)
    if expand := getattr(equation.params.get("_prim"), "expand", None):  # Newer JAX has some that say what they do.
        shapes = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in equation.invars]
        return _equations(graph, *_inside(jax.make_jaxpr(expand)(*shapes)), inputs)
    static = name in POINTWISE or all(is_static(out.aval.shape) for out in equation.outvars)
    if name not in UNFOLDED and static and all(x.array is not None for x in inputs):
        return _fold(equation, inputs)
    if name not in RULES:
        raise refuse(equation, "has no counterpart there")
    return RULES[name](graph, equation, inputs)


def _fold(equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Compute an equation of constants."""
    arrays = [np.asarray(x.array, atom.aval.dtype) for x, atom in zip(inputs, equation.invars, strict=True)]
    if equation.primitive.name in POINTWISE:
        arrays = np.broadcast_arrays(*arrays)
    else:
        arrays = [np.broadcast_to(a, atom.aval.shape) for a, atom in zip(arrays, equation.invars, strict=True)]
    found = equation.primitive.bind(*arrays, **equation.params)
    return [constant(array) for array in (found if equation.primitive.multiple_results else [found])]


def _unroll(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """A scan, turn by turn: constants that it walks along become one constant a turn."""
    given, (body, closed) = equation.params, _inside(equation.params["jaxpr"])
    # What is walked along has an axis more outside than in the body; how JAX notes which is which has changed.
    walked = _longer(equation.invars, body.invars)
    carried = len(body.outvars) - _longer(equation.outvars, body.outvars)
    fixed, state, rows = (
        inputs[: len(inputs) - walked - carried],
        inputs[len(inputs) - walked - carried : len(inputs) - walked],
        inputs[len(inputs) - walked :],
    )
    collected: list[list[Tensor]] = []
    turns = range(given["length"])
    for turn in reversed(turns) if given["reverse"] else turns:
        results = _equations(graph, body, closed, [*fixed, *state, *(_turn(graph, x, turn) for x in rows)])
        state = results[:carried]
        collected.append(results[carried:])
    if given["reverse"]:
        collected.reverse()
    shapes = [out.aval.shape[1:] for out in equation.outvars[carried:]]
    columns = zip(zip(*collected, strict=True), shapes, strict=True)
    return [*state, *(stack(graph, [graph.whole(x, shape) for x in column], 0) for column, shape in columns)]


def _inside(inner: Any) -> tuple[Any, list[Tensor]]:
    """The equations of a function that is called, and the constants that it brings."""
    return getattr(inner, "jaxpr", inner), [constant(array) for array in getattr(inner, "consts", ())]


def _longer(outer: Sequence[Any], inner: Sequence[Any]) -> int:
    """How many of a loop's inputs or results have an axis more outside than in its body."""
    return sum(len(a.aval.shape) > len(b.aval.shape) for a, b in zip(outer, inner, strict=True))


def _turn(graph: Graph, x: Tensor, turn: int) -> Tensor:
    """What a scan sees of one of its inputs in a turn."""
    if x.array is not None:
        return constant(x.array[turn], derived(x, [turn]))
    return graph.make("Gather", [x, constant(np.array(turn))], x.shape[1:], x.dtype, axis=0)
