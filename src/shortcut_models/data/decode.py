"""From the bytes of an image file to its pixels, or to the reason why it has none.

Files go by their content, never by their suffix. What the original's loader ignores is ignored here too: EXIF
orientation (but not TIFF's own tag, which Pillow applies), colour profiles, gamma, all frames but the first.
Nothing here depends on the thread or changes Pillow's settings.
"""

import io
import struct
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, features

Alpha = Literal["drop", "white", "black"]

MAX_PIXELS = 89_478_485
"""Images that claim more are left out: Pillow's own bound, a quarter of a gibibyte as RGB."""

MAX_BYTES = 1 << 30
"""Larger files are left out unread: an image within that bound needs fewer bytes, even as raw pixels of 16 bits."""

REASONS = ("empty", "format", "corrupt", "too_large", "mode", "no_class_folder", "missing", "unreadable")
"""Why an image can be left out."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_NO_FORMAT = "not one of the accepted formats, or not an image"
_EXIF = b"Exif\0\0"
_ORIENTATION = 274


class BadImage(Exception):  # noqa: N818
    """An image that is left out: one of `REASONS`, and a few words more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_bytes(size: int) -> None:
    """Raise BadImage for a file of so many bytes if no image needs them."""
    if size > MAX_BYTES:
        raise BadImage("too_large", f"{size} bytes")


class Decoded(NamedTuple):
    """Pixels, or what else a record holds, and what was done or ignored to get them."""

    image: Shaped[np.ndarray, "height width channels"]
    notes: tuple[str, ...]


def decode(data: bytes, alpha: Alpha = "drop") -> Decoded:
    """RGB pixels of an image file; raises BadImage if it has none.

    `alpha` says what becomes of transparency: dropped, so that colours hidden by it appear (as in
    TensorFlow, torchvision and EDM2), or laid on white or black.
    """
    if not data:
        raise BadImage("empty", "zero bytes")
    orientation = None
    if data[:2] == b"\xff\xd8" and (place := data.find(_EXIF, 0, 1 << 16)) >= 0:
        orientation = _orientation(data[place:])
        # Pillow would parse it for a resolution, and warn of the broken ones: it is given another name.
        data = data[:place] + b"Exix" + data[place + 4 :]
    image = _open(data)
    if image.width * image.height > MAX_PIXELS:
        raise BadImage("too_large", f"{image.width}x{image.height} pixels claimed")
    try:
        image.load()
        frames = getattr(image, "is_animated", False)
    except Exception as error:  # Decoders raise what they like: OSError, ValueError, SyntaxError, struct.error ...
        raise BadImage("corrupt", f"pixels: {type(error).__name__}") from error
    notes = ["first_frame"] if frames else []
    orientation = orientation or _orientation(image.info.get("exif") or b"")
    if orientation not in (None, 1):
        notes.append("exif_orientation_ignored")
    if "icc_profile" in image.info:
        notes.append("icc_ignored")
    pixels, more = _to_rgb(image, alpha)
    return Decoded(pixels, (*notes, *more))


def _open(data: bytes) -> Image.Image:
    """The image, its header read: `Image.open` without its bound on size, which has two levels and warns at one."""
    Image.init()
    head = data[:16]
    for name in _FORMATS:
        if name == "AVIF" and not features.check("avif"):
            continue
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(head) is not True:
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # Pillow's own way to say that it is another format.
        except Exception as error:
            raise BadImage("corrupt", f"header: {type(error).__name__}") from error
    raise BadImage("format", _NO_FORMAT)


def _to_rgb(image: Image.Image, alpha: Alpha) -> tuple[UInt8[np.ndarray, "height width 3"], list[str]]:
    mode, notes = image.mode, []
    if mode.startswith("I;16"):
        # `convert` would clip to white.
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2), ["high_byte_of_16"]
    if mode not in ("1", "L", "P", "RGB", "RGBX", "LA", "PA", "La", "RGBA", "RGBa", "CMYK", "YCbCr"):
        raise BadImage("mode", f"mode {mode}")
    if mode == "P":
        notes.append("palette")
    elif mode in ("1", "L"):
        notes.append("gray_replicated")
    elif mode == "CMYK":
        notes.append("cmyk_to_rgb")
    has_alpha = mode in ("LA", "PA", "La", "RGBA", "RGBa")
    keyed = not has_alpha and "transparency" in image.info and mode in ("1", "L", "P", "RGB")
    if has_alpha or mode == "P" or (keyed and alpha != "drop"):
        # By way of RGBA also for palettes, whose tables of transparency Pillow would warn of.
        image = image.convert("RGBA")
    if has_alpha or (keyed and (mode == "P" or alpha != "drop")):
        notes.append("alpha_dropped" if alpha == "drop" else f"alpha_on_{alpha}")
        if alpha != "drop":
            below = Image.new("RGBA", image.size, alpha)
            image = Image.alpha_composite(below, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), notes


def _orientation(exif: bytes) -> int | None:
    """The orientation that an EXIF block states, if it can be read."""
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if (tag, kind) == (_ORIENTATION, 3):
                return value
    except struct.error:
        pass
    return None
