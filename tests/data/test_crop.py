"""Cropping and resizing: against a slow derivation, and in test_tfds against the original's own output."""

import numpy as np
import pytest

from shortcut_models.data.crop import square


def triangle(length: int, target: int) -> np.ndarray:
    """Weights (target, length) of the triangle filter that `tf.image.resize(antialias=True)` applies."""
    scale = max(length / target, 1)
    centres = (np.arange(target) + 0.5) * length / target - 0.5
    weights = np.maximum(1 - np.abs(np.arange(length) - centres[:, None]) / scale, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(97, 50), (50, 97), (40, 41), (9, 12), (1, 1), (1, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_middle_is_cropped_and_then_resized_by_a_triangle_filter(height: int, width: int, channels: int) -> None:
    image = picture(height, width, channels)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[top : top + side, left : left + side].astype(float)
    weights = triangle(side, 24)
    expected = np.einsum("ij,jkc,lk->ilc", weights, middle, weights)
    found = square(image, 24)
    assert (found.shape, found.dtype) == ((24, 24, channels), np.uint8)
    np.testing.assert_allclose(found, expected, atol=1.01)  # Rounded after each direction.


def test_what_has_its_size_is_left_alone() -> None:
    image = picture(16, 16)
    np.testing.assert_array_equal(square(image, 16), image)
    np.testing.assert_array_equal(square(picture(16, 19), 16), picture(16, 19)[:, 1:17])  # 1.5 is rounded down.


def test_adm_halves_by_averaging_resizes_and_crops_last() -> None:
    image = picture(80, 64)
    halves = image.reshape(40, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    quarters = halves.reshape(20, 2, 16, 2, 3).mean(axis=(1, 3))
    # 16 is reached without any other filter; of 20 rows the middle ones are kept.
    np.testing.assert_allclose(square(image, 16, "adm"), quarters[2:18], atol=2.1)  # Each pass is rounded.
    odd = picture(37, 51)
    assert square(odd, 16, "adm").shape == (16, 16, 3)
    assert np.abs(square(odd, 16, "adm").astype(int) - square(odd, 16)).max() > 10
    # A flat image stays what it is, whatever the filter.
    assert np.unique(square(np.full((50, 33, 3), 77, np.uint8), 24, "adm")).tolist() == [77]
