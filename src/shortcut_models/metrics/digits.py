"""How close generated digits are to the real ones: Fréchet distances, and label agreement.

A number's name carries its protocol: what features, whose classifier, how many images. Images are
uint8, as written to disk; the reference is all 1,797 real digits.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from shortcut_models.data.digits import Digits
from shortcut_models.data.pipeline import to_network
from shortcut_models.metrics import classifier
from shortcut_models.metrics.frechet import Gaussian, fit_gaussian, frechet_distance

Images = UInt8[np.ndarray, "count 8 8 1"]


class DigitMetrics:
    """The reference statistics, computed once, and the comparison with them."""

    def __init__(self) -> None:
        self._weights = classifier.load()
        self._real = Digits()
        self._reference = self._fit(self._real.images)

    def measure(self, images: Images, labels: Int[np.ndarray, " count"]) -> dict[str, float]:
        """Metrics of generated images and the labels that were asked for; needs at least 2 images.

        frechet-pixels-N: squared Fréchet distance over the 64 pixels in [-1, 1]. frechet-digitnet1-N:
        the same over the 64 features of our classifier. agreement-digitnet1-N: share of the images
        that the classifier takes for the digit asked for, 0 to 1. N is the number of images.
        """
        fitted, count = self._fit(images), len(images)
        found = {
            f"frechet-{space}-{count}": frechet_distance(fitted[space], self._reference[space]) for space in fitted
        }
        agreement = float((self._examine(images)[1] == labels).mean())
        return {**found, f"agreement-{classifier.VERSION}-{count}": agreement}

    def floor(self, count: int) -> dict[str, float]:
        """What `count` real digits get, drawn with replacement: as good as a perfect model of them.

        The label agreement is that of the digits which the classifier never saw.
        """
        drawn = np.random.default_rng(0).integers(0, len(self._real), count)
        found = self.measure(self._real.images[drawn], self._real.labels[drawn])
        kept = classifier.held_out(len(self._real))
        name = next(name for name in found if name.startswith("agreement"))
        return {**found, name: float((self._examine(self._real.images[kept])[1] == self._real.labels[kept]).mean())}

    def _examine(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        hidden, labels = classifier.examine(self._weights, jnp.asarray(to_network(images)))
        return np.asarray(hidden), np.asarray(labels)

    def _fit(self, images: Images) -> dict[str, Gaussian]:
        pixels = to_network(images).reshape(len(images), -1)
        return {"pixels": fit_gaussian(pixels), classifier.VERSION: fit_gaussian(self._examine(images)[0])}
