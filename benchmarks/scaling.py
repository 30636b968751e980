"""What many devices should do: the compiled step's collectives, and published rates of chips and links.

No clock is read here. The bytes come from steps compiled for eight faked devices; per device they
depend on the device count only through the (n-1)/n of a ring.
"""

from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import jax

from benchmarks.speed.measure import Row, config, formula_flops
from benchmarks.speed.peers import Peers
from shortcut_models import sharding
from shortcut_models.collectives import bytes_by_kind, collectives
from shortcut_models.config import Config
from shortcut_models.train import compile_step, init_state


class Machine(NamedTuple):
    """Devices with published rates."""

    name: str
    count: int
    flops: float
    """Dense bfloat16 operations per second of one device."""
    link: float
    """Bytes per second that one device can send, and at once receive."""


MACHINES = [
    # nvidia.com/en-us/data-center/h100, SXM: 1,979 TFLOP/s with sparsity, half without; NVLink 900 GB/s both ways.
    Machine("8 x H100", 8, 989e12, 450e9),
    # cloud.google.com/tpu/docs/v4: 275 TFLOP/s; all-reduce bandwidth of a pod of 4,096 chips 1.1 PB/s.
    Machine("64 x TPU v4", 64, 275e12, 1.1e15 / 4096),
    Machine("512 x TPU v4", 512, 275e12, 1.1e15 / 4096),
]
UTILISATION = 0.5  # Of the chips' peak while they compute: an assumption, the aims of docs/speed.md being 0.45 to 0.55.
Mode = Literal["dp", "fsdp"]


def run(device: str, peers: Peers) -> list[Row]:
    """A row for each network, way of sharding, machine and batch."""
    del device, peers
    rows = []
    modes: tuple[Mode, ...] = ("dp", "fsdp")
    for size, remat in (("B/2", False), ("XL/2", True)):
        for mode in modes:
            plain = replace(config(size, dtype="bfloat16", remat=remat), sharding=mode)
            sent, flops = sent_bytes(plain), formula_flops(plain) / plain.batch_size
            for machine in MACHINES:
                # The paper's batch, where a device has a whole image of it; and 32 images on every device.
                for batch in sorted({256, 32 * machine.count}):
                    if batch % machine.count == 0:
                        about = {"network": size, "sharding": mode, "devices": machine.name, "batch": batch}
                        rows.append({**about, **expected(machine, sent, flops * batch)})
    return rows


def sent_bytes(config: Config) -> dict[str, int]:
    """Bytes of every kind of collective in a step on eight devices."""
    mesh = sharding.make_mesh(jax.devices()[:8])
    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(mesh, shapes, config.sharding)
    found = bytes_by_kind(collectives(compile_step(config, mesh, shapes, placed).as_text()))
    if config.sharding == "fsdp" and "reduce-scatter" not in found:
        # The CPU backend reduces whole and cuts; GPUs and TPUs turn the two into one.
        found["reduce-scatter"] = found.pop("all-reduce")
    return found


def expected(machine: Machine, sent: dict[str, int], flops: float) -> Row:
    """Milliseconds of computing and of sending, and the efficiency if they overlap not at all, or wholly."""
    ring = (machine.count - 1) / machine.count
    # Around a ring, every device sends its part of the whole to all but one; an all-reduce does so twice.
    volume = ring * sum(size * (2 if kind == "all-reduce" else 1) for kind, size in sent.items())
    computing = flops / (machine.count * machine.flops * UTILISATION)
    sending = volume / machine.link
    return {
        **{"gathered MB": sent.get("all-gather", 0) / 1e6},
        **{"reduced MB": (sent.get("all-reduce", 0) + sent.get("reduce-scatter", 0)) / 1e6},
        **{"computing ms": 1e3 * computing, "sending ms": 1e3 * sending},
        "efficiency without overlap": computing / (computing + sending),
        "with overlap": computing / max(computing, sending),
    }
