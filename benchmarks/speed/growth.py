"""How time and memory of a step grow with depth, width, tokens, batch and devices, and the fitted exponent."""

import statistics
from dataclasses import replace

import jax
import numpy as np

from benchmarks.speed.measure import SIZES, Row, Training, race
from benchmarks.speed.peers import Peers
from shortcut_models.config import Config
from shortcut_models.objectives import FlowMatching

BASE = replace(SIZES["64x4"][0], hidden_size=128, num_heads=4, scan=True)
BATCH, ROUNDS = 32, 3


def run(device: str, peers: Peers) -> list[Row]:
    """A row per value, and the exponent of a straight line through the logarithms."""
    del device, peers
    axes = {
        "depth": [(depth, replace(BASE, depth=depth), BATCH) for depth in (4, 8, 16)],
        "width": [(width, replace(BASE, hidden_size=width), BATCH) for width in (128, 256, 512)],
        "tokens": [((side // 2) ** 2, replace(BASE, image_size=side), BATCH) for side in (8, 16, 32)],
        "batch": [(batch, BASE, batch) for batch in (32, 64, 128)],
    }
    rows = []
    begin = Training(Config(batch_size=BATCH, model=BASE, objective=FlowMatching()))  # Of every axis.
    for axis, ((first, *_), *more) in axes.items():
        steps = {n: Training(Config(batch_size=b, model=net, objective=FlowMatching())) for n, net, b in more}
        rows += _measure(axis, {first: begin, **steps})
    # Devices that share one machine: what grows is the work of dividing it.
    counts = [n for n in (1, 2, 4, 8) if n <= jax.device_count()]
    for mode in ("dp", "fsdp"):
        plain = Config(batch_size=64, model=BASE, objective=FlowMatching(), sharding=mode)
        rows += _measure(f"devices, {mode}", {n: Training(plain, devices=n) for n in counts})
    return rows


def _measure(axis: str, steps: dict[int, Training]) -> list[Row]:
    times = race({str(value): step for value, step in steps.items()}, ROUNDS)
    seconds = [statistics.median(times[str(value)]) for value in steps]
    memory = [step.compiled.memory_analysis().temp_size_in_bytes for step in steps.values()]
    rows: list[Row] = [
        {"axis": axis, "value": value, "ms": 1e3 * s, "temporary MiB": m / 2**20}
        for value, s, m in zip(steps, seconds, memory, strict=True)
    ]
    if len(steps) > 1:
        slopes = {"ms": _exponent(list(steps), seconds), "temporary MiB": _exponent(list(steps), memory)}
        rows.append({"axis": axis, "value": "exponent", **slopes})
    return rows


def _exponent(values: list[int], measured: list[float]) -> float:
    return float(np.polyfit(np.log(values), np.log(measured), 1)[0])
