"""Where the time of a training step goes: the operations of a trace, grouped by what they compute."""

import gzip
import json
import re
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.speed.measure import Row, Training, config, seconds
from benchmarks.speed.peers import Peers
from shortcut_models.collectives import Instruction, parse

CPU = [("64x4", "float32", {}), ("S/2", "float32", {})]
GPU = [("B/2", "bfloat16", {"attention": "cudnn"}), ("XL/2", "bfloat16", {"attention": "cudnn", "remat": True})]
STEPS = 5
HOT, REST = 8, 3.0
"""Steps one after the other, and seconds without any before another."""
SETTLE = 2.0
"""Seconds of steps before the trace: the first ones find cold caches and memory that is not mapped yet."""

_PRODUCT = re.compile(r"custom_call_target=\"[^\"]*(gemm|matmul|cublas|fmha)", re.IGNORECASE)
_HOLDERS = ("while", "call", "conditional", "async-start", "async-done")


def run(device: str, peers: Peers) -> list[Row]:
    """Milliseconds a step of each group of operations, and its share of the step."""
    del peers
    return [row for case in (GPU if device == "gpu" else CPU) for row in _case(*case)]


def _case(size: str, dtype: str, model: Row) -> list[Row]:
    step = Training(config(size, dtype=dtype, **model))
    began = time.perf_counter()
    while time.perf_counter() - began < SETTLE:
        step()
    groups = grouped(step.compiled.as_text())
    times = []
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                began = time.perf_counter()
                step()
                times.append(time.perf_counter() - began)
        events = [
            event
            for path in Path(folder).rglob("*.trace.json.gz")
            for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        ]
    found, whole = spent(events, groups), 1e3 * statistics.mean(times)
    rows = [
        {"size": size, "dtype": dtype, **model, "what": what, "ms": ms / STEPS, "share": ms / STEPS / whole}
        for what, ms in found.most_common()
    ]
    more = [{"what": "the step, while it is traced", "ms": whole}]
    more += rested(step) if jax.default_backend() == "cpu" else []
    return rows + [{"size": size, "dtype": dtype, **model, **row} for row in more]


def rested(step: Callable[[], Any]) -> list[Row]:
    """What mapping a step's memory costs: time in the kernel, and a step after the system has had the memory back."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    times = [seconds(step) for _ in range(HOT)]
    kernel = (resource.getrusage(resource.RUSAGE_SELF).ru_stime - before) / HOT
    time.sleep(REST)
    return [
        {"what": f"{HOT} steps, not traced: median", "ms": 1e3 * statistics.median(times)},
        {"what": f"{HOT} steps, not traced: slowest", "ms": 1e3 * max(times)},
        {"what": "of a step, in the kernel, all cores' time", "ms": 1e3 * kernel},
        {"what": f"a step after {REST:g} s without", "ms": 1e3 * seconds(step)},
    ]


def spent(events: list[Row], groups: dict[str, str]) -> Counter[str]:
    """Milliseconds of each group among the events of a trace."""
    found: Counter[str] = Counter()
    for event in events:
        # A GPU's kernel says which operation it serves; a CPU's event has its name.
        name = event.get("args", {}).get("hlo_op", event.get("name"))
        if event.get("ph") == "X" and name in groups:
            found[groups[name]] += event["dur"] / 1e3
    return found


def grouped(program: str) -> dict[str, str]:
    """For each operation of a compiled program that computes something itself, the group it belongs to."""
    computations, _ = parse(program)
    return {
        name: _group(one, computations)
        for body in computations.values()
        for name, one in body.items()
        if one.operation not in _HOLDERS
    }


def _group(one: Instruction, computations: dict[str, dict[str, Instruction]]) -> str:
    source = re.search(r'op_name="([^"]*)"', one.rest)
    name = source[1] if source else ""
    if "update" in name.split("/"):
        return "optimiser, averages, norm of the gradient"
    # What is recomputed for the backward pass counts as part of it.
    direction = "backward" if "transpose(" in name or "rematted" in name else "forward"
    if "attention" in name:
        return f"attention, {direction}"
    return f"{'products with weights' if _multiplies(one, computations) else 'all else'}, {direction}"


def _multiplies(one: Instruction, computations: dict[str, dict[str, Instruction]]) -> bool:
    if one.operation == "dot" or (one.operation == "custom-call" and _PRODUCT.search(one.rest)):
        return True
    called = re.search(r"calls=%?([\w.\-]+)", one.rest)
    body = computations.get(called[1], {}) if called else {}
    return any(_multiplies(inner, computations) for inner in body.values())
