"""Colourful 32x32 pictures of the characters 0-9, A-Z and a-z, drawn as they are asked for: no download, no end.

Image i is a pure function of i: its random draws are those of a counter-based generator at i. The
characters come from the fonts that matplotlib carries: DejaVu, STIX and Computer Modern.

Each character is rendered once per font, four times as fine as it will be shown, and blurred by
about one pixel of the picture. A picture then needs one look-up per pixel, through a rotation, a
scale and a shift, and is smooth without any supersampling.

`python benchmarks/draw_glyphs.py` draws the first 128 and counts images per second.
"""

import math
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from shortcut_models.data.base import Data
from shortcut_models.errors import InputError

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# By name, so that another matplotlib either draws the same images or says what it lacks. Left out are
# the fonts of symbols, and cmmi10, whose digits are old-style ones below the line.
FONTS = tuple(
    f"{name}.ttf"
    for name in (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
        *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
        *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
        *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
        *("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10"),
    )
)
SIDE = 32
LENGTH = len(CHARACTERS) * 2**24
"""Images in each split: about a billion, which fits the 32 bits of a shuffled index."""

FINE = 4  # Samples of a cached mask along one pixel of the picture.
BLUR = 0.35  # Standard deviation in pixels; a square pixel's own is 0.29.
CAPITAL = 17  # Height of H in pixels, in every font.
BASELINE = 23  # Where the characters stand, in pixels from the top.

# Small enough that O, o and 0, or S and s, mostly differ in size and in height above the baseline.
ROTATION = math.radians(12)
SCALE = 0.12
SHIFT = 1.5

DARK, LIGHT = (0.05, 0.35), (0.65, 0.95)
"""Ranges of brightness, 0 to 1; a character has one, its background the other."""
BRIGHTNESS = (0.299, 0.587, 0.114)  # Of red, green and blue: ITU-R BT.601.

_KEY = 0x676C79706873  # "glyphs"; another key is another data set.
_DRAWS = 20  # Random numbers per image, rounded up to Philox's blocks of four.
_GRID = ((np.arange(SIDE) + 0.5) / SIDE - 0.5).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Glyphs(Data):
    """RGB images (32, 32, 3) of 62 characters: label i is `CHARACTERS[i]`, and index i has label i % 62.

    The test split consists of other draws of the same fonts. The draws are the same on every
    platform; pixels may differ by a few levels between versions of the font renderer.
    """

    def open(self, split: str = "train") -> "GlyphSource":
        """Open a split; raises InputError if matplotlib carries too few fonts."""
        self.check_split(split)
        return GlyphSource(LENGTH * self.splits.index(split))

    @property
    def splits(self) -> tuple[str, ...]:
        """Draws of their own for training and for test."""
        return ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return (SIDE, SIDE, 3)

    @property
    def num_classes(self) -> int:
        """One class a character."""
        return len(CHARACTERS)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The characters themselves."""
        return tuple(CHARACTERS)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Over 8x8 averaged pixels, and by a classifier of our own."""
        return ("frechet-pixels8x8", "frechet-glyphnet1", "agreement-glyphnet1")

    def identity(self) -> str:
        """A constant: another set of fonts or another key would be another data set."""
        return "glyphs-1"


class GlyphSource:
    """Draws number `first`, `first` + 1, ..., LENGTH of them, made as they are asked for."""

    def __init__(self, first: int) -> None:
        import matplotlib as mpl  # Slow to import, and needed here only.

        self._masks = render(Path(mpl.get_data_path()) / "fonts" / "ttf")
        self._first = first

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict[str, Any]:
        # A negative index would reach into the other split.
        if not 0 <= index < LENGTH:
            raise IndexError(f"index {index} is outside 0 to {LENGTH - 1}.")
        label = index % len(CHARACTERS)
        return {"image": draw(self._masks[label], uniform(self._first + index)), "label": label}


def uniform(number: int) -> list[float]:
    """Twenty numbers in [0, 1): a pure function of `number`, which is at least 0.

    Philox4x64-10 (Salmon et al., 2011) with `number` as the high word of its counter. The raw words
    are used because NumPy promises to keep them, which it does not promise of its distributions.
    """
    words = np.random.Philox(key=_KEY, counter=number << 192).random_raw(_DRAWS)
    return ((words >> np.uint64(11)) * 2.0**-53).tolist()


def draw(masks: list[Image.Image], u: list[float]) -> UInt8[np.ndarray, "32 32 3"]:
    """One image from a character's masks, one per font, and the twenty numbers that decide the rest."""
    mask = masks[int(u[0] * len(masks))].transform(
        (SIDE, SIDE), Image.Transform.AFFINE, _affine(*u[1:5]), Image.Resampling.BILINEAR
    )
    cover = np.frombuffer(mask.tobytes(), np.uint8).reshape(SIDE, SIDE) * np.float32(1 / 255)
    ink, paper = (DARK, LIGHT) if u[5] < 0.5 else (LIGHT, DARK)
    start = _colour(paper, *u[8:12])
    end = _colour(paper, *u[12:16]) if u[6] < 0.5 else start
    # From `start` at one corner to `end` at the opposite: a ramp along the rows plus one along the columns.
    angle = 2 * math.pi * u[7]
    slope = (end - start) / np.float32(abs(math.cos(angle)) + abs(math.sin(angle)))
    across = (start + end) * np.float32(0.5) + np.float32(math.cos(angle)) * slope * _GRID
    down = np.float32(math.sin(angle)) * slope * _GRID
    # Channels come first until the end, for NumPy's inner loops to be long.
    picture = across[:, None, :] + down[:, :, None]
    picture += (_colour(ink, *u[16:20])[..., None] - picture) * cover
    levels = (picture * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _affine(turn: float, size: float, right: float, down: float) -> tuple[float, ...]:
    """From a position in the picture to one in the mask: undo the shift, then scale and rotation about the centre."""
    angle, scale = ROTATION * (2 * turn - 1), 1 + SCALE * (2 * size - 1)
    a, b = FINE / scale * math.cos(angle), FINE / scale * math.sin(angle)
    x, y = (SIDE / 2 + SHIFT * (2 * shift - 1) for shift in (right, down))
    middle = FINE * SIDE / 2
    return a, b, middle - a * x - b * y, -b, a, middle + b * x - a * y


def _colour(bounds: tuple[float, float], level: float, *rgb: float) -> Float[np.ndarray, "3 1"]:
    """A colour whose brightness is `level` of the way between the bounds, and as strong as `rgb` where it can be."""
    brightness = bounds[0] + (bounds[1] - bounds[0]) * level
    own = sum(weight * value for weight, value in zip(BRIGHTNESS, rgb, strict=True))
    lowest, highest = min(rgb) - own, max(rgb) - own
    # Moving along the greys may leave the cube of colours: pull towards grey until all of it is inside.
    strength = min(1, (1 - brightness) / max(highest, 1e-9), brightness / max(-lowest, 1e-9))
    return np.array([[brightness + strength * (value - own)] for value in rgb], np.float32)


@cache
def render(folder: Path) -> list[list[Image.Image]]:
    """For each character its masks in all fonts: 8-bit coverage, FINE samples per pixel, blurred.

    All fonts stand on the same line with capitals of the same height; across, the ink is centred.
    Takes under a second, once; raises InputError if a font is missing in `folder`.
    """
    fonts = [_open_font(folder / name) for name in FONTS]
    return [[_render_one(font, character) for font in fonts] for character in CHARACTERS]


def _open_font(path: Path) -> ImageFont.FreeTypeFont:
    if not path.exists():
        raise InputError(
            f"font {path.name} is not in {path.parent}, but the glyphs are drawn with it: install a matplotlib "
            f"that carries it, such as 3.11."
        )
    # The layout engine is named because the default depends on what else is installed.
    tall = ImageFont.truetype(path, 1000, layout_engine=ImageFont.Layout.BASIC)
    height = -tall.getbbox("H", anchor="ls")[1]
    return tall.font_variant(size=1000 * CAPITAL * FINE / height)


def _render_one(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    mask = Image.new("L", (FINE * SIDE, FINE * SIDE))
    left, _, right, _ = font.getbbox(character, anchor="ls")
    ImageDraw.Draw(mask).text(
        ((FINE * SIDE - left - right) / 2, FINE * BASELINE), character, fill=255, font=font, anchor="ls"
    )
    return mask.filter(ImageFilter.GaussianBlur(FINE * BLUR))
