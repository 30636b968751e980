"""The training step: seconds, share of the ceiling, ratio to the peers."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.speed.measure import Product, Row, compiler_flops, config, formula_flops, paired
from benchmarks.speed.peers import Peers, compete, ours

CPU = [
    ("64x4", "float32", 20, {}),
    ("64x4", "bfloat16", 8, {}),
    ("digits", "float32", 20, {}),
    ("S/2", "float32", 7, {}),
]
GPU = [
    ("digits", "float32", 50, {}),
    ("B/2", "bfloat16", 20, {"attention": "cudnn"}),
    ("B/2", "bfloat16", 20, {"attention": "xla"}),
    ("B/2", "float32", 10, {}),
    ("XL/2", "bfloat16", 10, {"attention": "cudnn", "remat": False}),
    ("XL/2", "bfloat16", 10, {"attention": "cudnn", "remat": True}),
    ("XL/2", "bfloat16", 10, {"attention": "xla", "remat": True}),
]


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row for every size, dtype and objective, and for every peer."""
    return (row for case in (GPU if device == "gpu" else CPU) for row in _case(*case, peers, device == "cpu"))


def _case(size: str, dtype: str, rounds: int, model: Row, peers: Peers, together: bool) -> Iterator[Row]:
    product, about = Product(dtype), {"size": size, "dtype": dtype, **model}
    configs = {name: config(size, name, dtype=dtype, **model) for name in ("flow matching", "shortcut")}
    makers: dict[str, Any] = {"ceiling": lambda: product}
    makers |= {name: partial(ours, "step", size=size, objective=name, dtype=dtype, **model) for name in configs}
    plain = configs["flow matching"]
    for name, compiled in (("PyTorch eager", False), ("PyTorch compiled", True)):
        if together and dtype == "bfloat16":
            continue  # Nobody trains in bfloat16 on a CPU: our own row says why.
        makers[name] = partial(peers.make, "step", plain.model, plain.batch_size, compiled=compiled)
    times, notes = compete(makers, rounds, together)
    ceiling = product.operations / min(times["ceiling"])
    for name in [name for name in makers if name != "ceiling"]:
        row = {**about, "who": f"ours, {name}" if name in configs else name}
        if name in notes:
            yield {**row, "note": notes[name]}
            continue
        row["ms"] = 1e3 * statistics.median(times[name])
        if name in configs:
            formula, counted = formula_flops(configs[name]), compiler_flops(configs[name])
            row |= {"GFLOP": formula / 1e9, "compiler's GFLOP": counted / 1e9}
            share = formula / statistics.median(times[name]) / ceiling
            row |= {"share of ceiling": share, "ceiling TFLOP/s": ceiling / 1e12}
            for other in [other for other in times if other not in ("ceiling", name)]:
                row[f"x {other}"] = paired(times[name], times[other])
        yield row
