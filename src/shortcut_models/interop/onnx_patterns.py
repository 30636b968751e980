"""Operators that stand for many of JAX's operations, which onnxruntime then computes in one pass over memory."""

import math
from typing import Any

import numpy as np

from shortcut_models.interop.onnx_graph import Graph, Tensor

Pattern = Any
"""A number, a constant; a string, anything, the same wherever the string is; (kind, operands...), an operator."""

_CUBE: Pattern = ("Mul", ("Mul", math.sqrt(2 / math.pi), "x"), ("Add", 1.0, ("Mul", 0.044715, ("Mul", "x", "x"))))
GELU: Pattern = ("Mul", "x", ("Mul", 0.5, ("Add", 1.0, ("Tanh", _CUBE))))
"""`networks.layers.gelu`: a tenth of the time of a DiT, operation by operation."""


def simplified(graph: Graph, x: Tensor) -> Tensor:
    """The same value by one operator, if it was made by a known pattern; what made it is then left out."""
    found: dict[str, str] = {}
    if matches(graph, GELU, x.name, found):
        return graph.make("Gelu", [found["x"]], x.shape, x.dtype, approximate="tanh")
    return x


def matches(graph: Graph, pattern: Pattern, name: str, found: dict[str, str]) -> bool:
    """Whether a value was made as the pattern says; `found` gets the names of its strings."""
    if isinstance(pattern, str):
        return found.setdefault(pattern, name) == name
    if isinstance(pattern, float):
        array = graph.constants.get(name)
        return array is not None and array.size == 1 and bool(np.isclose(array.item(), pattern, rtol=1e-6))
    kind, *operands = pattern
    maker = graph.makers.get(name)
    if maker is None or maker.kind != kind:
        return False
    for order in (maker.inputs, maker.inputs[::-1]) if kind in ("Add", "Mul") else (maker.inputs,):
        tried = dict(found)
        if all(matches(graph, part, given, tried) for part, given in zip(operands, order, strict=True)):
            found |= tried
            return True
    return False
