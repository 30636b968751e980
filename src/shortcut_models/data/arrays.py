"""Examples that lie in arrays, in memory or mapped from a file."""

import tokenize
import zlib
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int

from shortcut_models.data.base import Batch

DAMAGED = (
    *(OSError, EOFError, BadZipFile, zlib.error),
    *(ValueError, OverflowError, MemoryError),  # A header that promises what cannot be.
    *(RuntimeError, SyntaxError, tokenize.TokenError),  # A way of packing, or a header, that nobody writes.
)
"""What NumPy raises for an .npy or .npz that is damaged, or made to do harm."""


class ArraySource:
    """A source over `arrays`, whose first axis counts the examples: {"image": (N, H, W, C), "label": (N,)}, say."""

    def __init__(self, arrays: Batch) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        example: dict[str, Any] = {name: array[index] for name, array in self.arrays.items()}
        return example | {"label": int(example["label"])}

    def labels(self) -> np.ndarray:
        """The label of every example."""
        return np.asarray(self.arrays["label"])

    def batch(self, indices: Int[np.ndarray, " count"]) -> Batch:
        """The examples of these indices, one after the other."""
        return {name: array[indices] for name, array in self.arrays.items()}
