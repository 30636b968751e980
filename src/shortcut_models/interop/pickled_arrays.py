"""NumPy's and JAX's arrays out of a pickle's description of them, without NumPy's own reconstruction.

NumPy pickles an array as `_reconstruct(...)` with a state (version, shape, dtype, is_fortran, bytes), or
since protocol 5 as `_frombuffer(bytes, dtype, shape, order)`; a scalar as `scalar(dtype, bytes)`
(numpy/_core/src/multiarray/methods.c, `array_reduce`). JAX wraps the same in `_reconstruct_array`
(jax/_src/array.py, `ArrayImpl.__reduce__`).
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from shortcut_models.interop.pickle_reader import Damaged, Grammar, Made, shown

_CORES = ("numpy.core", "numpy._core")
_OPTAX = [
    *("optax._src.base.EmptyState", "optax._src.transform.EmptyState"),
    *(f"optax._src.transform.ScaleBy{name}State" for name in ("Adam", "Schedule")),
]
ARRAYS = Grammar(
    calls=frozenset(
        [
            *("numpy.dtype", "jax._src.array._reconstruct_array"),
            *(f"{core}.multiarray.{name}" for core in _CORES for name in ("_reconstruct", "scalar")),
            *(f"{core}.numeric._frombuffer" for core in _CORES),
        ]
    ),
    makes=frozenset(_OPTAX),
    states=frozenset(["numpy.dtype", *(f"{core}.multiarray._reconstruct" for core in _CORES)]),
    mentions=frozenset(["numpy.ndarray"]),
)
"""Every name that arrays, and optax's states of them, may use."""
DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
MOST_AXES = 8
LONGEST_AXIS = 1 << 40


@dataclass(frozen=True)
class Stored:
    """An array that still lies in the file: everything about it is checked, nothing is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    raw: memoryview

    def read(self) -> np.ndarray:
        """A copy in memory, in the machine's byte order and C order."""
        array = np.frombuffer(self.raw, self.dtype).reshape(self.shape, order="F" if self.is_fortran else "C")
        return array.astype(self.dtype.newbyteorder("="), order="C")


def stored(kept: Any) -> Stored:
    """The array that was described; raises `Damaged` for anything else, or if its parts do not fit together."""
    match kept:
        case Made(by="numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct"):
            return _from_state(kept.state)
        case Made(by="jax._src.array._reconstruct_array", args=(_, _, state, *_)):
            return _from_state(state)
        case Made(by="numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer", args=(raw, dtype, shape, o)):
            return _checked(shape, dtype, o == "F", raw)
        case Made(by="numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", args=(dtype, raw)):
            return _checked((), dtype, False, raw)
    raise Damaged(f"it has {shown(getattr(kept, 'by', kept))} where an array should be")


def check_shape(shape: Any) -> tuple[int, ...]:
    """A tuple of whole sizes; raises `Damaged` for anything else, and for sizes that no array has."""
    if type(shape) is not tuple or len(shape) > MOST_AXES:
        raise Damaged(f"it has an array whose shape is no tuple of up to {MOST_AXES} sizes")
    if not all(type(size) is int and 0 <= size < LONGEST_AXIS for size in shape):
        raise Damaged(f"it has an array with a size that is no whole number from 0 to {LONGEST_AXIS:,}")
    return shape


def check_total(arrays: int, there: int) -> None:
    """Raise `Damaged` if arrays promise more bytes than the file has, as those that share one buffer can."""
    if arrays > there:
        raise Damaged(f"its arrays have {arrays:,} bytes together, but the file only {there:,}")


def _from_state(state: Any) -> Stored:
    match state:
        case (_, shape, dtype, is_fortran, raw):
            return _checked(shape, dtype, is_fortran is True, raw)
    raise Damaged("it has an array whose parts are not those that NumPy writes")


def _checked(shape: Any, dtype: Any, is_fortran: bool, raw: Any) -> Stored:
    numbers, shape = _dtype(dtype), check_shape(shape)
    if type(raw) is not memoryview:
        raise Damaged(f"it has an array made of a {type(raw).__name__} instead of bytes")
    if prod(shape) * numbers.itemsize != len(raw):
        raise Damaged(
            f"it has an array of shape {shape} with {len(raw):,} bytes instead of {prod(shape) * numbers.itemsize:,}"
        )
    return Stored(shape, numbers, is_fortran, raw)


def _dtype(kept: Any) -> np.dtype:
    match kept:
        # State: version, byte order, then a subtype, names and fields, which numbers do not have.
        case Made(by="numpy.dtype", args=(str(code), *_), state=(_, "<" | ">" | "=" | "|" as order, *rest)):
            if code in DTYPES and all(part is None for part in rest[:3]):
                return np.dtype(code).newbyteorder(order)
            raise Damaged(f"it has an array of dtype {shown(code)} instead of numbers")
    raise Damaged("it has an array without a dtype that NumPy writes")
