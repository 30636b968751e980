"""The noise that `sampling` draws between jumps, drawn by an ONNX graph: the same bits from the same seed.

ONNX's own RandomNormal has one seed for a file, and each runtime has numbers of its own. Words of 32 bits are kept in
int64, which onnxruntime adds and multiplies.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from shortcut_models.interop.onnx_graph import Graph, Shape, Tensor, constant
from shortcut_models.interop.onnx_rules import cast, together

WORD = 2**32
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
"""Threefry-2x32 with 20 rounds: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), section 4."""

INVERSE_ERF = (
    (2.81022636e-08, -0.000200214257),
    (3.43273939e-07, 0.000100950558),
    (-3.5233877e-06, 0.00134934322),
    (-4.39150654e-06, -0.00367342844),
    (0.00021858087, 0.00573950773),
    (-0.00125372503, -0.0076224613),
    (-0.00417768164, 0.00943887047),
    (0.246640727, 1.00167406),
    (1.50140941, 2.83297682),
)
"""Two polynomials, in w - 2.5 and in sqrt(w) - 3, where w = -log(1 - x^2) is below 5 or not: Giles, "Approximating the
erfinv function" (GPU Computing Gems, 2010), in single precision."""


class Words(NamedTuple):
    """Two words of 32 bits: a key, or what it makes of a number."""

    high: Tensor
    low: Tensor


def image_keys(graph: Graph, seed: Tensor) -> Words:
    """`sampling.image_keys` of images 0, 1, ... of the batch."""
    bounds = [constant(np.int64(0)), graph.reshape(graph.lengths((graph.batch,)), ()), constant(np.int64(1))]
    indices = graph.make("Range", bounds, (graph.batch,), np.int64)
    return _threefry(graph, Words(constant(np.int64(0)), seed), indices)


def normal(graph: Graph, keys: Words, number: Tensor, shape: Shape) -> Tensor:
    """`sampling.fresh_noise`: standard normal noise of a shape for each key, in the course of it number `number`."""
    size = math.prod(shape[1:])
    each = [graph.reshape(word, (graph.batch, 1)) for word in _threefry(graph, keys, number)]
    bits = _xor(graph, *_threefry(graph, Words(*each), constant(np.arange(size, dtype=np.int64)[None])))
    mantissa = cast(graph, _compute(graph, "Div", bits, 2**9), np.float32)
    # Evenly from [-1, 1), as jax.random.normal has it, without -1.
    least = np.nextafter(np.float32(-1), np.float32(0))
    even = _compute(graph, "Add", _compute(graph, "Mul", mantissa, 2.0**-22), float(least))
    even = _compute(graph, "Max", even, float(least))
    return graph.reshape(_compute(graph, "Mul", _inverse_erf(graph, even), math.sqrt(2)), shape)


def _threefry(graph: Graph, key: Words, number: Tensor) -> Words:
    """What the key makes of a number below 2^32."""
    keys = (*key, _xor(graph, _xor(graph, *key), constant(np.int64(PARITY))))
    high, low = key.high, _sum(graph, number, key.low)
    for turn in range(5):
        for distance in ROTATIONS[turn % 2]:
            high = _sum(graph, high, low)
            low = _xor(graph, high, _rotated(graph, low, distance))
        high = _sum(graph, high, keys[(turn + 1) % 3])
        low = _sum(graph, low, _compute(graph, "Add", keys[(turn + 2) % 3], turn + 1))
    return Words(high, low)


def _sum(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    return _compute(graph, "Mod", _compute(graph, "Add", a, b), WORD)


def _xor(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    return _compute(graph, "BitwiseXor", a, b)


def _rotated(graph: Graph, word: Tensor, distance: int) -> Tensor:
    """The bits of a word moved to the left, those that fall out added on the right."""
    moved = _compute(graph, "Mul", word, 2**distance)
    return _compute(graph, "Add", _compute(graph, "Mod", moved, WORD), _compute(graph, "Div", moved, WORD))


def _inverse_erf(graph: Graph, x: Tensor) -> Tensor:
    rest = _compute(graph, "Sub", constant(np.float32(1)), _compute(graph, "Mul", x, x))
    w = _apply(graph, "Neg", _apply(graph, "Log", rest))
    is_central = graph.make("Less", [w, constant(np.float32(5))], x.shape, bool)
    coefficients = zip(*INVERSE_ERF, strict=True)
    central = _polynomial(graph, next(coefficients), _compute(graph, "Sub", w, 2.5))
    tail = _polynomial(graph, next(coefficients), _compute(graph, "Sub", _apply(graph, "Sqrt", w), 3.0))
    return _compute(graph, "Mul", x, graph.make("Where", [is_central, central, tail], x.shape, x.dtype))


def _polynomial(graph: Graph, coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = constant(np.float32(coefficients[0]))
    for coefficient in coefficients[1:]:
        value = _compute(graph, "Add", _compute(graph, "Mul", x, value), coefficient)
    return value


def _apply(graph: Graph, kind: str, x: Tensor) -> Tensor:
    return graph.make(kind, [x], x.shape, x.dtype)


def _compute(graph: Graph, kind: str, a: Tensor, b: Any) -> Tensor:
    """An operation of two tensors, or of one and a number of its type."""
    b = b if isinstance(b, Tensor) else constant(np.asarray(b, a.dtype))
    return graph.make(kind, [a, b], together([a, b]), a.dtype)
