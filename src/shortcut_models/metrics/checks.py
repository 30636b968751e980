"""What vectors must be before numbers are made of them."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from shortcut_models.errors import InputError

Given = Any
"""An array (n, width) of real numbers, or lists of them: it is checked here, and told in words."""

LARGEST = 1e30
"""Sums over the cubes of products of larger numbers are no longer finite in float64."""


def check_rows(name: str, given: Given, least: int, columns: str = "features") -> Shaped[np.ndarray, "count width"]:
    """As an array (n, columns); raises InputError unless it is one, of finite numbers, with n at least `least`."""
    try:
        rows = np.asarray(given)
    except ValueError as error:  # Lists of several lengths.
        raise InputError(f"{name} is no array ({error}): give ({columns}) of one number for each row.") from None
    if rows.dtype.kind not in "fiub":
        raise InputError(f"{name} has the type {rows.dtype}, but must hold real numbers.")
    if rows.ndim != 2 or len(rows) < least or not rows.shape[1]:
        raise InputError(f"{name} has shape {rows.shape}, but must be (n, {columns}) with n at least {least}.")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} holds NaN or infinite numbers: find out which sample gave them.")
    if max(abs(float(rows.max())), abs(float(rows.min()))) > LARGEST:
        raise InputError(f"{name} holds numbers beyond {LARGEST:g}, which no sums are exact for: divide them.")
    return rows


def check_vectors(
    fake: Given, real: Given, least: int
) -> tuple[Float[np.ndarray, "count features"], Float[np.ndarray, "others features"]]:
    """Both as float64; raises InputError unless they are vectors of one length, at least so many of each."""
    fake, real = check_rows("fake", fake, least), check_rows("real", real, least)
    if fake.shape[1] != real.shape[1]:
        raise InputError(
            f"vectors of {fake.shape[1]} features cannot be compared with vectors of {real.shape[1]}: "
            "take both from the same network."
        )
    return np.asarray(fake, np.float64), np.asarray(real, np.float64)
