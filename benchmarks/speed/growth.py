"""How time and memory of a step grow with depth, width, tokens, batch and devices, and the fitted exponent."""

import statistics
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.measure import Product, Row, ceiling, config, operations, ratio, work
from benchmarks.speed.peers import Peers, compete, ours
from shortcut_models.config import Config

BASE: Row = {"hidden_size": 128, "depth": 4, "num_heads": 4, "image_size": 8, "scan": True}
BATCH, ROUNDS = 32, 2


class Point(NamedTuple):
    """A step on one or several axes."""

    model: tuple[tuple[str, Any], ...] = tuple(BASE.items())
    batch: int = BATCH
    sharding: str = "dp"
    devices: int = 1
    faked: int = 1
    """Devices that the process has."""

    @property
    def config(self) -> Config:
        """The training run, undivided."""
        return config("64x4", "flow matching", self.batch, **dict(self.model))


def _point(**model: int) -> Point:
    return Point(tuple((BASE | model).items()))


def axes() -> dict[str, dict[int, Point]]:
    """The points of every axis, by what grows."""
    one = Point(batch=2 * BATCH, faked=8)
    return {
        "depth": {depth: _point(depth=depth) for depth in (4, 8, 16)},
        "width": {width: _point(hidden_size=width) for width in (128, 256, 512)},
        "tokens": {(side // 2) ** 2: _point(image_size=side) for side in (8, 16, 32)},
        "batch": {batch: Point(batch=batch) for batch in (32, 64, 128)},
        # Devices that share one machine: what grows is the work of dividing it.
        **{
            f"devices, {mode}": {1: one, **{n: one._replace(devices=n, sharding=mode) for n in (2, 8)}}
            for mode in ("dp", "fsdp")
        },
    }


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row per value, and the exponent of a straight line through the logarithms."""
    del device

    def step(point: Point) -> Any:
        asked: Any = {"batch": point.batch, "sharding": point.sharding, "devices": point.devices, **dict(point.model)}
        return ours("step", faked=point.faked, size="64x4", **asked)

    makers: dict[Any, Any] = {"ceiling": partial(Product, "float32")}
    for point in dict.fromkeys(point for axis in axes().values() for point in axis.values()):
        makers[point] = partial(step, point)
    for axis in axes().values():
        for point in (next(iter(axis.values())), next(reversed(axis.values()))):  # The ends tell the exponent.
            if point.faked == 1:
                makers[_peer(point)] = partial(peers.make, "step", point.config.model, point.batch, compiled=False)
    times, told, notes = compete(makers, ROUNDS, together=True)
    highest = ceiling(times["ceiling"])
    # However the work is divided, it is the same.
    counts = cache(operations)
    for axis, points in axes().items():
        rows: list[Row] = []
        for value, point in points.items():
            if point in notes:
                rows.append({"axis": axis, "value": value, "note": notes[point]})
                continue
            seconds = statistics.median(times[point])
            row: Row = {"axis": axis, "value": value, "ms": 1e3 * seconds}
            temporary = told[point].temporary
            row |= {} if temporary is None else {"temporary MiB": temporary / 2**20}
            row |= work(counts(point.config), seconds, highest)
            theirs, note = times.get(_peer(point)), notes.get(_peer(point))
            if theirs:
                row |= {_THEIRS: 1e3 * statistics.median(theirs), "x PyTorch eager": ratio(times[point], theirs)}
            rows.append(row | ({"note": note} if note else {}))
        yield from rows
        slopes = {name: exponent(rows, name) for name in ("ms", "temporary MiB", _THEIRS)}
        yield {
            "axis": axis,
            "value": "exponent",
            **{name: slope for name, slope in slopes.items() if slope is not None},
        }


_THEIRS = "PyTorch eager's ms"


def _peer(point: Point) -> tuple[str, Point]:
    return "PyTorch", point


def exponent(rows: list[Row], column: str) -> float | None:
    """The slope of a straight line through the logarithms, where there are two points or more."""
    found = [(row["value"], row[column]) for row in rows if column in row]
    if len(found) < 2:
        return None
    values, measured = np.log(found).T
    return float(np.polyfit(values, measured, 1)[0])
