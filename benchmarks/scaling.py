"""What many devices should do, by arithmetic: `python -m benchmarks.scaling` makes the table of docs/scaling.md.

No clock is read: the compiled step says what is sent, and published rates of chips and links how long that
takes. The step is compiled for eight CPU devices; per device, the bytes depend on the device count only
through the (n-1)/n of a ring. The rows go to benchmarks/results/scaling.json.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax

from benchmarks.collectives import bytes_by_kind, collectives
from benchmarks.speed import ours, page
from benchmarks.speed.parts import SIZES, Row

DEVICES = 8


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
UTILISATION = 0.5  # Of the chips' peak while they compute: an assumption.
Mode = Literal["dp", "fsdp"]


def main() -> None:
    """Write the rows, then the page's table."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    origin = ours.provenance("python -m benchmarks.scaling")
    report = {"rows": rows(), "about": {}, "busy": False, **origin}
    (page.RESULTS / "scaling.json").write_text(json.dumps(report, indent=2) + "\n")
    page.write(Path("docs/scaling.md"), page.RESULTS)


def rows() -> list[Row]:
    """A row for each network, way of sharding, machine and batch."""
    found = []
    modes: tuple[Mode, ...] = ("dp", "fsdp")
    for size, remat in (("B/2", False), ("XL/2", True)):
        for mode in modes:
            plain = ours.config(SIZES[size] | {"dtype": "bfloat16", "remat": remat}, 256)
            config = replace(plain, sharding=mode)
            sent, flops = sent_bytes(config), ours.step_flops(config) / config.batch_size
            for machine in MACHINES:
                # The paper's batch, where a device has a whole image of it; and 32 images on every device.
                for batch in sorted({256, 32 * machine.count}):
                    if batch % machine.count == 0:
                        about = {"network": size, "sharding": mode, "devices": machine.name, "batch": batch}
                        found.append({**about, **expected(machine, sent, flops * batch)})
    return found


def sent_bytes(config: ours.Config) -> dict[str, int]:
    """Bytes of every kind of collective in a step on eight devices."""
    found = bytes_by_kind(collectives(ours.compiled(config, DEVICES)[0].as_text()))
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


if __name__ == "__main__":
    main()
