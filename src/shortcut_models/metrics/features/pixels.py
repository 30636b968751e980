"""The pixels themselves, or their means over equal squares."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Arrays, Features, check_image, to_floats


@dataclass(frozen=True, kw_only=True)
class Pixels(Features):
    """{"vector": pixels in [-1, 1]}, averaged down to `side` x `side` if that is given.

    Thousands of pixels are too many for the covariance of a thousand images to mean much.
    """

    side: int | None = None

    @property
    def name(self) -> str:
        return f"pixels{self.side}x{self.side}" if self.side else "pixels"

    def check(self, shape: tuple[int, ...]) -> None:
        check_image(self.name, shape)
        if self.side and (shape[0] % self.side or shape[1] % self.side):
            raise InputError(
                f"{self.name} averages equal squares, but {self.side} does not divide {shape[0]}x{shape[1]}."
            )

    def __call__(self, samples: np.ndarray) -> Arrays:
        images = to_floats(samples)
        pooled = pool(images, self.side) if self.side else images
        return {"vector": pooled.reshape(len(images), -1)}


def pool(
    images: Float[np.ndarray, "count height width channels"], side: int
) -> Float[np.ndarray, "count side side channels"]:
    """Means over equal rectangles, so that `side` x `side` of them remain; `side` must divide height and width."""
    count, height, width, channels = images.shape
    return images.reshape(count, side, height // side, side, width // side, channels).mean(axis=(2, 4))
