"""How an image comes to Inception: what FID's programs do differently, and why their numbers differ.

| protocol | takes | to 299x299 by | then |
| --- | --- | --- | --- |
| paper | floats in about [-1, 1], unclipped | bilinear, pixels' centres, no antialias | clip to [-1, 1] |
| adm | bytes | bilinear as in TensorFlow 1: source = i * in / out | (x - 128) / 128 |
| clean | bytes | bicubic as in Pillow, antialiased when it shrinks | clip to [0, 255], then (x - 128) / 128 |

paper: kvfrans/shortcut-models; adm: openai/guided-diffusion, and with it torch-fidelity and EDM2; clean: Parmar et
al. (arXiv 2104.11222). No protocol rounds after its resize. A resize along one axis is a matrix: a row for each of
the new places with the weights of the old ones.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError

SIDE = 299

Name = Literal["paper", "adm", "clean"]


@dataclass(frozen=True)
class Protocol:
    """One row of the table above."""

    name: str
    takes: Literal["bytes", "floats"]
    resize: Literal["centres", "corner", "bicubic"]
    clip: tuple[float, float] | None
    scaled: bool
    """Whether 0..255 becomes (x - 128) / 128; else values are in [-1, 1] already."""


PROTOCOLS = {
    "paper": Protocol("paper", "floats", "centres", (-1, 1), scaled=False),
    "adm": Protocol("adm", "bytes", "corner", None, scaled=True),
    "clean": Protocol("clean", "bytes", "bicubic", (0, 255), scaled=True),
}


def find_protocol(name: str) -> Protocol:
    """A protocol by its name; raises InputError, listing the names, for an unknown one."""
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is unknown: the protocols are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


@cache
def resize_matrix(kind: str, before: int, after: int = SIDE) -> Float[np.ndarray, "after before"]:
    """Weights of the old pixels in each new one, in float32."""
    matrix = {"centres": _centres, "corner": _corner, "bicubic": _bicubic}[kind](before, after).astype(np.float32)
    matrix.setflags(write=False)  # All who ask for it share it.
    return matrix


def _centres(before: int, after: int) -> np.ndarray:
    # `jax.image.resize`, by which the paper's code resizes, computes the places in float32, in one rounding.
    places = ((np.arange(after) + 0.5) * np.float64(np.float32(before / after)) - 0.5).astype(np.float32)
    return _linear(np.clip(places.astype(np.float64), 0, before - 1), before)


def _corner(before: int, after: int) -> np.ndarray:
    # TensorFlow computes the places in float32.
    return _linear((np.arange(after, dtype=np.float32) * np.float32(before / after)).astype(np.float64), before)


def _linear(places: np.ndarray, before: int) -> np.ndarray:
    low = np.clip(np.floor(places).astype(int), 0, before - 1)
    high, share = np.minimum(low + 1, before - 1), places - low
    matrix, rows = np.zeros((len(places), before)), np.arange(len(places))
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix


def _bicubic(before: int, after: int) -> np.ndarray:
    """Keys' kernel with a = -1/2, as wide as the new pixels where those are larger than the old."""
    if before == after:
        return np.eye(before)
    scale = max(before / after, 1.0)
    matrix = np.zeros((after, before))
    for row in range(after):
        centre = (row + 0.5) * before / after
        first = max(int(centre - 2 * scale + 0.5), 0)
        last = min(int(centre + 2 * scale + 0.5), before)
        weights = _keys((np.arange(first, last) - centre + 0.5) / scale)
        matrix[row, first:last] = weights / weights.sum()
    return matrix


def _keys(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))
