"""Between bytes and the network's range, on the host: for what is shown, written or measured there."""

import numpy as np
from jaxtyping import UInt8

from shortcut_models.errors import InputError


def to_network(images: UInt8[np.ndarray, "batch height width channels"]) -> np.ndarray:
    """uint8 0..255 to float32 -1..1, the network's range."""
    return images.astype(np.float32) / 127.5 - 1


def to_uint8(samples: np.ndarray) -> np.ndarray:
    """The network's range back to uint8, rounded to nearest and clipped; raises InputError for NaN."""
    check_finite_samples(samples)
    # Half precision steps by more than a level near white, so that whole levels would be missed.
    samples = np.asarray(samples, np.result_type(samples, np.float32))
    return np.clip(np.round((samples + 1) * 127.5), 0, 255).astype(np.uint8)


def check_finite_samples(samples: np.ndarray) -> None:
    """Raise InputError if any is NaN or infinite: as bytes it would pass for a black or white pixel."""
    if not np.isfinite(samples).all():
        raise InputError(
            "the samples hold NaN or infinite numbers, as those of a model that diverged: take weights of an earlier "
            "step, or look for what is wrong with these."
        )
