"""Inception's place taken by a network that is quick, and a data set of noise."""

from dataclasses import dataclass

import numpy as np

from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.base import Data
from shortcut_models.data.pixels import to_network
from shortcut_models.metrics.features.inception import Inception

RNG = np.random.default_rng(0)
POOL, SPATIAL = 12, 7
MIXING = RNG.standard_normal((4 * 4 * 3, POOL + SPATIAL + 5))


class Quick(Inception):
    """Fixed mixtures of the pixels, moved by the protocol."""

    def __init__(self, sha256: str = "0" * 64) -> None:
        self.sha256 = sha256

    def features(self, images: np.ndarray, protocol: str) -> dict[str, np.ndarray]:
        floats = to_network(images) if images.dtype == np.uint8 else images
        found = np.tanh(floats.reshape(len(images), -1) @ MIXING + len(protocol)).astype(np.float32)
        logits = found[:, POOL + SPATIAL :]
        return {
            "pool": found[:, :POOL],
            "spatial": found[:, POOL : POOL + SPATIAL],
            "logits": logits + 1,
            "logits_unbiased": logits,
        }


@dataclass(frozen=True, kw_only=True)
class Noise(Data):
    """RGB images (4, 4, 3), with a held-out split."""

    name: str = "noise"

    def open(self, split: str = "train") -> ArraySource:
        rng = np.random.default_rng(len(split))
        count = 60 if split == "train" else 40
        images = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        return ArraySource({"image": images, "label": np.arange(count) % 5})

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        return (4, 4, 3)

    @property
    def num_classes(self) -> int:
        return 5

    def identity(self) -> str:
        return self.name
