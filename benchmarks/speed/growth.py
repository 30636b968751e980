"""How time and memory of a step grow with depth, width, tokens, batch and devices, and the fitted exponent."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.speed.measure import SIZES, Product, Row, Training, ceiling, compiler_flops, formula_flops, paired
from benchmarks.speed.peers import Peers, compete
from shortcut_models.config import Config
from shortcut_models.models import DiT
from shortcut_models.objectives import FlowMatching

BASE = replace(SIZES["64x4"][0], hidden_size=128, num_heads=4, scan=True)
BATCH, ROUNDS = 32, 3


class Point(NamedTuple):
    """A step on one or several axes."""

    model: DiT = BASE
    batch: int = BATCH
    sharding: Any = "dp"
    devices: int = 1

    @property
    def config(self) -> Config:
        """Its training run."""
        return Config(batch_size=self.batch, model=self.model, objective=FlowMatching(), sharding=self.sharding)


def axes() -> dict[str, dict[int, Point]]:
    """The points of every axis, by what grows."""
    # One device is one device, however the work would be divided.
    counts = [n for n in (2, 4, 8) if n <= jax.device_count()]
    one = Point(batch=2 * BATCH)
    return {
        "depth": {depth: Point(replace(BASE, depth=depth)) for depth in (4, 8, 16)},
        "width": {width: Point(replace(BASE, hidden_size=width)) for width in (128, 256, 512)},
        "tokens": {(side // 2) ** 2: Point(replace(BASE, image_size=side)) for side in (8, 16, 32)},
        "batch": {batch: Point(batch=batch) for batch in (32, 64, 128)},
        # Devices that share one machine: what grows is the work of dividing it.
        "devices, dp": {1: one, **{n: one._replace(devices=n) for n in counts}},
        "devices, fsdp": {1: one, **{n: one._replace(devices=n, sharding="fsdp") for n in counts}},
    }


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row per value, and the exponent of a straight line through the logarithms."""
    del device
    made: dict[Point, Training] = {}

    def ours(point: Point) -> Training:
        made[point] = Training(point.config, devices=point.devices)
        return made[point]

    makers: dict[Any, Any] = {"ceiling": partial(Product, "float32")}
    for point in dict.fromkeys(point for axis in axes().values() for point in axis.values()):
        makers[point] = partial(ours, point)
        if point.devices == 1:
            makers[_peer(point)] = partial(peers.make, "step", point.model, point.batch, compiled=False)
    times, notes = compete(makers, ROUNDS, together=True)
    highest = ceiling(times["ceiling"])
    # However the work is divided, it is the same.
    work = {point: (formula_flops(point.config), compiler_flops(point.config)) for point in made if point.devices == 1}
    for axis, points in axes().items():
        rows: list[Row] = []
        for value, point in points.items():
            seconds = statistics.median(times[point])
            formula, counted = work[point._replace(devices=1, sharding="dp")]
            row: Row = {"axis": axis, "value": value, "ms": 1e3 * seconds}
            row["temporary MiB"] = made[point].compiled.memory_analysis().temp_size_in_bytes / 2**20
            row |= {"GFLOP": formula / 1e9, "compiler's GFLOP": counted / 1e9}
            row["share of ceiling"] = formula / seconds / highest
            theirs, note = times.get(_peer(point)), notes.get(_peer(point))
            if theirs:
                row |= {_THEIRS: 1e3 * statistics.median(theirs), "x PyTorch eager": paired(times[point], theirs)}
            rows.append(row | ({"note": note} if note else {}))
        yield from rows
        columns = [name for name in ("ms", "temporary MiB", _THEIRS) if all(name in row for row in rows)]
        if len(rows) > 1:
            slopes = {name: exponent(list(points), [row[name] for row in rows]) for name in columns}
            yield {"axis": axis, "value": "exponent", **slopes}


_THEIRS = "PyTorch eager's ms"


def _peer(point: Point) -> tuple[str, Point]:
    return "PyTorch", point


def exponent(values: list[int], measured: list[float]) -> float:
    """The slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(values), np.log(measured), 1)[0])
