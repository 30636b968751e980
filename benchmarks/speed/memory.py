"""Memory of a training step: what is kept, exactly, and what a step needs besides, by the compiler's own count."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from benchmarks.speed.measure import Row, config
from benchmarks.speed.peers import Peers
from shortcut_models import sharding
from shortcut_models.config import Config
from shortcut_models.train import compile_step, init_state

SETTINGS = [("S/2", 16, False, 1), ("B/2", 256, False, 1), ("B/2", 256, True, 1)]
SETTINGS += [("XL/2", 256, remat, turns) for remat in (False, True) for turns in (1, 16)]


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row per setting, in MiB; nothing is allocated, so that it also says what would not fit."""
    del peers
    settings = SETTINGS if device == "gpu" else [s for s in SETTINGS if s[0] != "B/2"]
    return (_row(*setting) for setting in settings)


def _row(size: str, batch: int, remat: bool, turns: int) -> Row:
    plain = config(size, batch=batch, remat=remat, dtype="bfloat16" if size != "S/2" else "float32")
    return {
        **{"size": size, "batch": batch, "dtype": plain.model.dtype, "remat": remat, "accumulation": turns},
        **parts(replace(plain, accumulation=turns)),
    }


def parts(config: Config, devices: int = 1) -> dict[str, float]:
    """MiB per device: each part of the state, what else a step holds at its peak, and their sum."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(mesh, shapes, config.sharding)
    memory = compile_step(config, mesh, shapes, placed).memory_analysis()
    kept = {name: _mib(getattr(shapes, field)) for name, field in _PARTS.items()}
    # Outputs beyond the donated inputs would be a second copy of the state.
    copies = (memory.output_size_in_bytes - memory.alias_size_in_bytes) / 2**20
    total = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20 + copies
    temporary = memory.temp_size_in_bytes / 2**20
    gradient = kept["parameters"] / (devices if config.sharding == "fsdp" else 1)
    rest = {"gradient": gradient, "activations": temporary - gradient}
    return {**kept, **rest, "second copies": copies, "peak MiB": total}


_PARTS = {"parameters": "params", "EMA": "ema", "optimiser": "opt_state"}


def _mib(tree: Any) -> float:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / 2**20
