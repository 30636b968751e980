"""How close generated glyphs are to 10,000 held-out ones."""

import numpy as np

from shortcut_models.data.glyphs import Glyphs
from shortcut_models.metrics.classifier import GLYPHS
from shortcut_models.metrics.images import ImageMetrics

REFERENCE = 10_000
DRAWS = 4


class GlyphMetrics(ImageMetrics):
    """frechet-pixels8x8-N over 8x8 averaged pixels, frechet-glyphnet1-N, agreement-glyphnet1-N."""

    def __init__(self) -> None:
        super().__init__(GLYPHS, Glyphs(held_out=True).stack(np.arange(REFERENCE)), side=8)

    def floor(self, count: int) -> dict[str, float]:
        """What `count` real images get, of the training split and with balanced labels: a perfect model's numbers.

        The mean over DRAWS sets of them, because one set's distance to the reference is a matter of
        luck (for 1,000 images its standard deviation is a third of its mean over pixels, a sixth over
        features). They are drawn from a billion, of which the classifier saw less than a thousandth.
        """
        source, rng = Glyphs(), np.random.default_rng(0)
        labels = np.arange(count) % source.num_classes
        sets = [rng.integers(0, len(source) // source.num_classes, count) for _ in range(DRAWS)]
        found = [self.measure(source.stack(turns * source.num_classes + labels), labels) for turns in sets]
        return {name: float(np.mean([values[name] for values in found])) for name in found[0]}
