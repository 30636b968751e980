"""Between bytes and the network's range, on the host: for what is shown, written or measured there."""

import numpy as np
from jaxtyping import UInt8


def to_network(images: UInt8[np.ndarray, "batch height width channels"]) -> np.ndarray:
    """uint8 0..255 to float32 -1..1, the network's range."""
    return images.astype(np.float32) / 127.5 - 1


def to_uint8(samples: np.ndarray) -> np.ndarray:
    """The network's range back to uint8, rounded to nearest and clipped."""
    return np.clip(np.round((np.asarray(samples) + 1) * 127.5), 0, 255).astype(np.uint8)
