"""The one exception for what a user can mend, and the checks that numbers in settings share."""

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any


class InputError(ValueError):
    """Bad input, told in one sentence: the value, what was expected, what to do.

    The command line prints it without a traceback and exits with 2.
    """


def check_finite(section: str, choice: Any) -> None:
    """Raise InputError if a number of a dataclass is NaN or infinite, or is to be whole and is not.

    `section` is how the flag of a field begins, such as "objective.". Nested dataclasses check their own.
    """
    for field in dataclasses.fields(choice):
        value = getattr(choice, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{section}{field.name} is {value}, but must be a finite number.")
        if field.type is int and (not isinstance(value, int) or isinstance(value, bool)):
            raise InputError(f"{section}{field.name} is {value!r}, but must be a whole number, an int.")


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
