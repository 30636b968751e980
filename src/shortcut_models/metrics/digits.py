"""How close generated digits are to all 1,797 real ones."""

import numpy as np

from shortcut_models.data.digits import Digits
from shortcut_models.metrics.classifier import DIGITS, held_out
from shortcut_models.metrics.images import ImageMetrics


class DigitMetrics(ImageMetrics):
    """frechet-pixels-N over the 64 pixels, frechet-digitnet1-N, agreement-digitnet1-N."""

    def __init__(self) -> None:
        self._real = Digits()
        super().__init__(DIGITS, self._real.images, side=8)

    def floor(self, count: int) -> dict[str, float]:
        """What `count` real digits get, drawn with replacement: as good as a perfect model of them.

        The label agreement is that of the digits which the classifier never saw.
        """
        drawn = np.random.default_rng(0).integers(0, len(self._real), count)
        found = self.measure(self._real.images[drawn], self._real.labels[drawn])
        kept = held_out(len(self._real))
        right = self.examine(self._real.images[kept])[1] == self._real.labels[kept]
        return {**found, self.agreement_name(count): float(right.mean())}
