"""From an image of any size to a square one: the original's way, and ADM's.

The original crops the middle square and resizes it by `tf.image.resize(antialias=True)`, a triangle
filter. Pillow's BILINEAR on bytes differs from it by at most one level, its rounding included.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Crop = Literal["center", "adm"]
Pixels = UInt8[np.ndarray, "_ _ channels"]


def square(image: Pixels, size: int, crop: Crop = "center") -> Pixels:
    """The middle of an image as (size, size, channels).

    "center" crops first and then resizes, as the original does. "adm" halves by averaging while it
    can, resizes by a cubic filter and crops last (Dhariwal & Nichol, arXiv 2105.05233, whose code
    DiT, SiT and EDM2 follow): for comparison with their numbers.
    """
    return _adm(image, size) if crop == "adm" else _center(image, size)


def _center(image: Pixels, size: int) -> Pixels:
    height, width = image.shape[:2]
    side = min(height, width)
    # Resizing a box of the whole image is another thing: the filter would see pixels beyond the box.
    middle = _middle(image, side)
    return middle if side == size else _resize(middle, size, size, Image.Resampling.BILINEAR)


def _adm(image: Pixels, size: int) -> Pixels:
    while min(image.shape[:2]) >= 2 * size:
        image = _resize(image, image.shape[0] // 2, image.shape[1] // 2, Image.Resampling.BOX)
    scale = size / min(image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    return _middle(_resize(image, height, width, Image.Resampling.BICUBIC), size)


def _middle(image: Pixels, side: int) -> Pixels:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _resize(image: Pixels, height: int, width: int, how: Image.Resampling) -> Pixels:
    gray = image.shape[2] == 1
    resized = Image.fromarray(np.ascontiguousarray(image[..., 0] if gray else image)).resize((width, height), how)
    pixels = np.asarray(resized)
    return pixels[..., None] if gray else pixels
