"""Bytes from the network's range."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from shortcut_models.data.pixels import to_network, to_uint8


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ">f2", ">f4"])
def test_bytes_are_rounded_from_the_values_and_not_by_their_type(dtype: Any) -> None:
    values = np.linspace(-1.1, 1.1, 5001).astype(dtype)
    exact = np.asarray(values, np.float64)
    found = to_uint8(values)
    assert found.dtype == np.uint8
    # In float32, as on the device, a value can be rounded across a half.
    assert np.abs(found - np.clip((exact + 1) * 127.5, 0, 255)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_come_back_as_they_were(dtype: Any) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(to_uint8(to_network(levels).astype(dtype)), levels)
