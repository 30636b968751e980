"""The one exception for what a user can mend, and the checks that numbers in settings share."""

import dataclasses
import math
import numbers
import operator
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


class InputError(ValueError):
    """Bad input, told in one sentence: the value, what was expected, what to do.

    The command line prints it without a traceback and exits with 2.
    """


class NotHereError(InputError):
    """A file of published weights is needed, and none of the places where it is looked for has it."""


SMALLEST, LARGEST, MOST = 1.2e-38, 3.4e38, 2**31 - 1
"""What float32 keeps apart from 0 and from infinity, and what int32 holds: devices compute in these."""


def check_values(section: str, choice: Any, wide: tuple[str, ...] = ()) -> None:
    """Raise InputError for a word that a dataclass's field does not offer, or a number that no device can take.

    `section` is how the flag of a field begins, such as "objective."; `wide` are whole numbers that no device counts.
    Nested dataclasses check their own.
    """
    for field in dataclasses.fields(choice):
        value, kinds = getattr(choice, field.name), _kinds(field.type)
        said = f"{section}{field.name} is {value!r}, but must be"
        if typing.get_origin(field.type) is Literal and value not in (words := typing.get_args(field.type)):
            raise InputError(f"{said} {' or '.join(map(str, words))}.")
        if value is None and types.NoneType in kinds:
            continue
        if bool in kinds and not isinstance(value, bool):
            raise InputError(f"{said} True or False.")
        if int in kinds:
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"{said} a whole number, an int.")
            if abs(value) > MOST and field.name not in wide:
                raise InputError(f"{said} at most {MOST}.")
        if float in kinds:
            _check_float(said, value)
        if dataclasses.is_dataclass(field.type) and not isinstance(value, kinds):
            raise InputError(f"{said} of class {kinds[0].__name__}.")


def _kinds(given: Any) -> tuple[type, ...]:
    """The types that a field may have: itself, or those of a union; none of a word or a row of values."""
    if isinstance(given, types.UnionType):
        return typing.get_args(given)
    return (given,) if isinstance(given, type) else ()


def _check_float(said: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{said} a finite number.")
    if value and not SMALLEST <= abs(float(value)) <= LARGEST:
        raise InputError(f"{said} 0 or between {SMALLEST:g} and {LARGEST:g} in size: devices compute in float32.")


def check_at_least(section: str, choice: Any, least: Mapping[str, float]) -> None:
    """Raise InputError if one of the named fields is below its bound."""
    for name, bound in least.items():
        value = getattr(choice, name)
        if value < bound:
            raise InputError(f"{section}{name} is {value}, but must be at least {bound}.")


def check_above_zero(section: str, choice: Any, *names: str) -> None:
    """Raise InputError unless each of the named fields is above 0; None stands for none and passes."""
    for name in names:
        value = getattr(choice, name)
        if value is not None and value <= 0:
            raise InputError(f"{section}{name} is {value}, but must be above 0.")


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise InputError unless it is a whole number, Python's or NumPy's, within its bounds."""
    try:
        # Truth is no number: NumPy's is called bool, or bool_ in old versions, which also take it for an index.
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        bound = f"from {least} up" if most is None else f"between {least} and {most}"
        shown = repr(value) if isinstance(value, str) else value
        raise InputError(f"{name} is {shown}, but must be a whole number {bound}.")
