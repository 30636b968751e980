"""How close generated glyphs are to 10,000 held-out ones."""

import numpy as np

from shortcut_models.data.glyphs import Glyphs
from shortcut_models.metrics.classifier import GLYPHS
from shortcut_models.metrics.images import ImageMetrics

REFERENCE = 10_000


class GlyphMetrics(ImageMetrics):
    """frechet-pixels8x8-N over 8x8 averaged pixels, frechet-glyphnet1-N, agreement-glyphnet1-N."""

    def __init__(self) -> None:
        super().__init__(GLYPHS, Glyphs(held_out=True).stack(np.arange(REFERENCE)), side=8)

    def floor(self, count: int) -> dict[str, float]:
        """What `count` fresh images of the training split get, with balanced labels: a perfect model's numbers.

        They are drawn from a billion, of which the classifier saw less than one in a thousand.
        """
        source = Glyphs()
        turns = np.random.default_rng(0).integers(0, len(source) // source.num_classes, count)
        labels = np.arange(count) % source.num_classes
        return self.measure(source.stack(turns * source.num_classes + labels), labels)
