"""The 1,797 handwritten 8x8 digits that scikit-learn carries: real images, no download.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), the test set, as embedded in scikit-learn under its BSD licence.
"""

from typing import Any

import numpy as np


class Digits:
    """Grey images (8, 8, 1) of the digits 0 to 9; the data's 17 levels are spread over 0 to 255."""

    image_shape = (8, 8, 1)
    num_classes = 10

    def __init__(self) -> None:
        from sklearn.datasets import load_digits  # Slow to import, and needed here only.

        digits: Any = load_digits()
        self.images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        self.labels = digits.target.astype(np.int32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index]}
