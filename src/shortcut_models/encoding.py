"""From batches as they are stored to the network's range, on the devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array

from shortcut_models import sharding
from shortcut_models.codecs import Codec
from shortcut_models.config import Config
from shortcut_models.objectives import Batch
from shortcut_models.sharding import Layout

Encode = Callable[[dict[str, Array], Any], Batch]
"""(stored batch, step number) -> Batch."""


def make_encode(config: Config, layout: Layout) -> Encode:
    """(stored batch, step number) -> Batch, spread over the devices; what the codec draws follows from the number."""

    def encode(codec: Codec, stored: dict[str, Array], index: Array) -> Batch:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 2), index)
        return Batch(codec.encode(stored, key), stored["label"], stored.get("noise"))

    # The codec's weights are an argument: closed over, they would be constants of the compiled program. They are put
    # on the devices once; NumPy's would cross to them at every step.
    codec = jax.device_put(config.data.codec, sharding.replicated(layout.mesh))
    return partial(jax.jit(encode, out_shardings=sharding.batch_sharding(layout.mesh)), codec)
