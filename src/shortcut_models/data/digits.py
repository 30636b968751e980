"""The 1,797 handwritten 8x8 digits that scikit-learn carries: real images, no download.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), the test set, as embedded in scikit-learn under its BSD licence.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.base import Data


@dataclass(frozen=True, kw_only=True)
class Digits(Data):
    """Grey images (8, 8, 1) of the digits 0 to 9; the data's 17 levels are spread over 0 to 255.

    There is one split: training uses all of them.
    """

    def open(self, split: str = "train") -> ArraySource:
        """All 1,797 digits, in the order of the UCI test set."""
        self.check_split(split)
        return _read()

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return (8, 8, 1)

    @property
    def num_classes(self) -> int:
        """Label i is the digit i."""
        return 10

    @property
    def class_names(self) -> tuple[str, ...]:
        """The digits as they are written."""
        return tuple("0123456789")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Over pixels, and by a classifier of our own."""
        return ("frechet-pixels", "frechet-digitnet1", "agreement-digitnet1")

    def identity(self) -> str:
        """A constant: the digits are part of scikit-learn."""
        return "digits-1"


@cache
def _read() -> ArraySource:
    from sklearn.datasets import load_digits  # Slow to import, and needed here only.

    digits: Any = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    for array in (images, labels):
        array.setflags(write=False)  # All who open the digits share them.
    return ArraySource({"image": images, "label": labels})
