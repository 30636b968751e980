"""How close generated images are to real ones: Fréchet distances, and label agreement.

A number's name carries its protocol: what features, whose classifier, how many images. Images are
uint8, as written to disk.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from shortcut_models.data.pipeline import to_network
from shortcut_models.metrics import classifier
from shortcut_models.metrics.classifier import Classifier
from shortcut_models.metrics.frechet import Gaussian, fit_gaussian, frechet_distance

Images = UInt8[np.ndarray, "count height width channels"]

CHUNK = 2000  # Images that the classifier sees at once: enough to be quick, few enough for any memory.


class ImageMetrics:
    """The reference statistics, computed once, and the comparison with them."""

    def __init__(self, net: Classifier, reference: Images, side: int) -> None:
        """Measure with the features of `net`, and with the pixels averaged down to `side` x `side`.

        `side` must divide the images' own; thousands of pixels are too many for the covariance of a
        thousand images to mean much. `reference`, the real images, takes the same shape.
        """
        self._net, self._weights, self._side = net, classifier.load(net), side
        self._pixels = "pixels" if side == reference.shape[1] else f"pixels{side}x{side}"
        self._reference = self._fit(reference, self.examine(reference)[0])

    def measure(self, images: Images, labels: Int[np.ndarray, " count"]) -> dict[str, float]:
        """Metrics of generated images and the labels that were asked for; needs at least 2 images.

        With NET the classifier's version and N the number of images: frechet-pixels-N is the squared
        Fréchet distance over the pixels in [-1, 1] (frechet-pixels8x8-N: averaged down to 8x8),
        frechet-NET-N the same over the classifier's 64 features, and agreement-NET-N the share of
        the images that it takes for the class asked for, 0 to 1.
        """
        hidden, found = self.examine(images)
        fitted, count = self._fit(images, hidden), len(images)
        distances = {
            f"frechet-{name}-{count}": frechet_distance(fitted[name], self._reference[name]) for name in fitted
        }
        return {**distances, self.agreement_name(count): float((found == labels).mean())}

    def examine(self, images: Images) -> tuple[Float[np.ndarray, "count features"], Int[np.ndarray, " count"]]:
        """The classifier's features and labels."""
        parts = [
            classifier.examine(self._net, self._weights, jnp.asarray(to_network(images[start : start + CHUNK])))
            for start in range(0, len(images), CHUNK)
        ]
        hidden, labels = zip(*parts, strict=True)
        return np.concatenate(hidden), np.concatenate(labels)

    def agreement_name(self, count: int) -> str:
        """The label agreement's name for so many images."""
        return f"agreement-{self._net.version}-{count}"

    def _fit(self, images: Images, hidden: np.ndarray) -> dict[str, Gaussian]:
        pixels = pool(to_network(images), self._side).reshape(len(images), -1)
        return {self._pixels: fit_gaussian(pixels), self._net.version: fit_gaussian(hidden)}


def pool(
    images: Float[np.ndarray, "count height width channels"], side: int
) -> Float[np.ndarray, "count side side channels"]:
    """Means over equal squares, so that `side` x `side` of them remain; `side` must divide the images' own."""
    count, height, width, channels = images.shape
    return images.reshape(count, side, height // side, side, width // side, channels).mean(axis=(2, 4))
