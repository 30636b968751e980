"""Small convolutional classifiers of ours: their features and labels measure generated images.

The weights come with the package; `make classifier DATASET=digits` (a minute on a CPU), `glyphs` or `fashion`
(some ten) trains them. Features are named by the version: other weights are another metric.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from shortcut_models.metrics.base import Arrays, Features, check_image, to_floats


@dataclass(frozen=True, kw_only=True)
class Classifier(Features):
    """{"vector": the last hidden layer's 64 activations, "predicted": the label that the network reads}."""

    version: str
    image_shape: tuple[int, int, int]
    num_classes: int
    convolutions: tuple[tuple[int, int], ...]
    """Channels and stride of each 3x3 convolution; a dense layer follows."""
    trained_on_part_of: int | None = None
    """Examples of the data set of which four fifths, as `held_out` has it, trained it; None for endless ones."""

    @property
    def name(self) -> str:
        return self.version

    @property
    def file(self) -> Path:
        """The weights that come with the package."""
        return Path(__file__).with_name(f"{self.version}.safetensors")

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each convolution."""
        return tuple(stride for _, stride in self.convolutions)

    def check(self, shape: tuple[int, ...]) -> None:
        check_image(self.version, shape, self.image_shape)

    def unseen(self, count: int) -> np.ndarray | None:
        return held_out(count) if count == self.trained_on_part_of else None

    def __call__(self, samples: np.ndarray) -> Arrays:
        from shortcut_models import sharding  # JAX, which a list of names does without.
        from shortcut_models.metrics.features import convnet

        mesh, weights = convnet.spread(self.file)
        parts = [
            [np.asarray(array)[:count] for array in convnet.examine(weights, part, self.strides)]
            for part, count in sharding.spread(mesh, to_floats(samples), len(samples))
        ]
        hidden, predicted = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return {"vector": hidden, "predicted": predicted}


def held_out(count: int) -> Bool[np.ndarray, " count"]:
    """Which examples of a small data set the classifier never saw: a random fifth, since their order is not random."""
    return np.random.default_rng(0).permutation(count) % 5 == 0


DIGITNET1 = Classifier(
    version="digitnet1",
    image_shape=(8, 8, 1),
    num_classes=10,
    convolutions=((16, 1), (32, 1), (48, 2)),
    trained_on_part_of=1797,
)
GLYPHNET1 = Classifier(
    version="glyphnet1",
    image_shape=(32, 32, 3),
    num_classes=62,
    convolutions=((24, 2), (48, 2), (64, 1), (64, 2)),
)
FASHIONNET1 = Classifier(
    version="fashionnet1",
    image_shape=(28, 28, 1),
    num_classes=10,
    convolutions=((24, 2), (48, 2), (64, 1), (64, 2)),
)
