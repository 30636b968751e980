"""Each odd file has the fate that was written down for it, and no other."""

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shortcut_models.data.decode import MAX_PIXELS, REASONS, BadImage, decode

NASTY = Path(__file__).parents[1] / "golden" / "nasty"
FATES: dict[str, Any] = json.loads((NASTY / "nasty.json").read_text())


@pytest.mark.parametrize("name", FATES["files"])
def test_every_odd_file_has_its_fate(name: str) -> None:
    expected = FATES["files"][name]
    data = (NASTY / name).read_bytes()
    if expected["fate"] == "left_out":
        with pytest.raises(BadImage) as found:
            decode(data)
        assert (found.value.reason, found.value.detail) == (expected["reason"], expected["detail"])
        return
    image, notes = decode(data)
    assert (list(image.shape), image.dtype) == (expected["shape"], np.uint8)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), expected["mean_rgb"], atol=FATES["tolerance_mean_rgb"])
    assert sorted(notes) == sorted(expected["notes"])


def test_the_bounds_are_those_of_the_list() -> None:
    assert FATES["max_pixels"] == MAX_PIXELS
    assert tuple(FATES["reasons"]) == REASONS


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_transparency_is_laid_on_white_or_black_where_asked() -> None:
    red = Image.new("RGBA", (4, 2), (200, 40, 0, 0))
    red.putpixel((0, 0), (200, 40, 0, 255))
    red.putpixel((1, 0), (200, 40, 0, 51))  # A fifth.
    data = encode(red)
    assert decode(data).image.tolist() == [[[200, 40, 0]] * 4] * 2
    for alpha, below in (("white", 255), ("black", 0)):
        image, notes = decode(data, alpha)
        assert notes == (f"alpha_on_{alpha}",)
        assert image[0, 0].tolist() == [200, 40, 0]
        assert image[1, 3].tolist() == [below] * 3
        np.testing.assert_allclose(image[0, 1], 0.2 * np.array([200, 40, 0]) + 0.8 * below, atol=1)


def test_a_colour_or_palette_that_stands_for_transparency_counts_as_transparent() -> None:
    plain = encode(Image.new("RGB", (2, 2), (10, 20, 30)), transparency=(10, 20, 30))
    assert decode(plain).image[0, 0].tolist() == [10, 20, 30]
    assert decode(plain, "white").image[0, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 90, 80, 70])
    assert decode(encode(palette, transparency=1), "white").image[0, 0].tolist() == [255, 255, 255]
    assert decode(encode(palette, transparency=0), "white").image[0, 0].tolist() == [90, 80, 70]
    # What is opaque is the same for all three.
    opaque = encode(Image.new("RGB", (2, 2), (1, 2, 3)))
    assert {decode(opaque, alpha).image.tobytes() for alpha in ("drop", "white", "black")} == {bytes([1, 2, 3] * 4)}


def test_no_odd_file_warns_or_changes_pillow() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in FATES["files"]:
            with contextlib.suppress(BadImage):
                decode((NASTY / name).read_bytes())
    assert before == Image.MAX_IMAGE_PIXELS
