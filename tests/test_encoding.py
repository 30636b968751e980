"""Batches on their way to the network's range."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models import sharding
from shortcut_models.codecs.pixels import Pixels
from shortcut_models.config import Config
from shortcut_models.encoding import make_encode
from shortcut_models.state import shapes_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Drawing(Pixels):
    """A codec that draws."""

    def encode(self, batch: Any, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, batch["image"].shape)


def test_what_the_codec_draws_follows_from_seed_and_step_alone(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tiny.data), "codec", Drawing())
    layout = sharding.make_layout(shapes_of(tiny), "dp", (), sharding.make_mesh(jax.devices()[:1]))
    stored = {"image": jnp.zeros((8, 8, 8, 1)), "label": jnp.zeros(8, jnp.int32)}

    def drawn(seed: int, step: int) -> bytes:
        config = replace(tiny, seed=seed)
        return np.asarray(make_encode(config, layout)(stored, np.uint32(step)).x1).tobytes()

    assert drawn(0, 0) == drawn(0, 0)
    assert len({drawn(0, 0), drawn(0, 1), drawn(1, 0), drawn(1, 1)}) == 4
