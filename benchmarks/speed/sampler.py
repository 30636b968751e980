"""Sampling: latency of one image and throughput of many, for budgets of 1, 4 and 128 calls, guided and not."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.speed.measure import Product, Row, config, paired, weights
from benchmarks.speed.peers import Peers, compete, ours
from shortcut_models import sampling
from shortcut_models.dry_run import count_flops
from shortcut_models.models import DiT, Params

CPU = [  # Size, dtype, batch, steps, guidance, rounds.
    ("digits", "float32", 1, 1, False, 30),
    ("digits", "float32", 1, 128, False, 5),
    ("digits", "float32", 256, 4, True, 5),
    ("S/2", "float32", 1, 1, False, 10),
    ("S/2", "float32", 16, 1, False, 10),
]
GPU = [
    (size, "bfloat16", batch, steps, guided, 10)
    for size in ("B/2", "XL/2")
    for batch, steps, guided in [(1, 1, False), (1, 128, False), (64, 1, False), (64, 1, True), (64, 4, False)]
]


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row per case and contestant."""
    return (row for case in (GPU if device == "gpu" else CPU) for row in _case(*case, peers))


class Sampler:
    """One program for every budget, as `Model.sample` uses it; calling it draws one batch and fetches it."""

    def __init__(self, network: DiT, batch: int, steps: int, guided: bool) -> None:
        self.network = network
        self.params = network.apart(jax.device_put(weights(network)))
        self.label, self.steps = jnp.zeros(batch, jnp.int32), np.int32(steps)
        self.jumps = sampling.pad(sampling.uniform_jumps(steps))
        self.indices, self.guidance = jnp.arange(batch), 1.5 if guided else 1.0
        self.program = jax.jit(self.draw)

    def draw(self, params: Params, indices: Array, label: Array, jumps: sampling.Jumps, count: Array) -> Array:
        """Noise, then jumps."""
        velocity = partial(self.network.apply, params)
        velocity = sampling.guided(velocity, self.guidance, self.network.null_label)
        start = sampling.noise(0, indices, self.network.shape)
        return sampling.sample_any(velocity, start, label, jumps, count)

    def __call__(self) -> None:
        np.asarray(self.program(self.params, self.indices, self.label, self.jumps, self.steps))


def flops(network: DiT, batch: int, steps: int, guided: bool) -> tuple[int, float]:
    """Operations of all calls, by our count of matrix products and by XLA's of everything."""
    rows = batch * (2 if guided else 1)
    params = jax.eval_shape(network.init, jax.random.key(0))
    x, t = jnp.zeros((rows, *network.shape)), jnp.zeros(rows)
    call = (params, x, t, t, jnp.zeros(rows, jnp.int32))
    ours = count_flops(jax.make_jaxpr(network.apply)(*call).jaxpr)
    # Unrolled: of a scan, XLA counts one turn.
    analysis: Any = jax.jit(replace(network, scan=False).apply).lower(*call).cost_analysis()
    return steps * ours, steps * float((analysis or {}).get("flops", float("nan")))


def _case(size: str, dtype: str, batch: int, steps: int, guided: bool, rounds: int, peers: Peers) -> list[Row]:
    model = {"dtype": dtype, "attention": "cudnn" if dtype == "bfloat16" else "xla"}
    asked = {"batch": batch, "steps": steps, "guided": guided}
    network, about, product = config(size, **model).model, {"size": size, "dtype": dtype, **asked}, Product(dtype)
    makers: dict[str, Any] = {"ceiling": lambda: product, "ours": partial(ours, "sample", size=size, **asked, **model)}
    for name, compiled in (("PyTorch eager", False), ("PyTorch compiled", True)):
        if compiled and (steps > 1 or guided or size == "digits"):
            continue  # torch.compile takes half a minute for each.
        makers[name] = partial(peers.make, "sample", network, compiled=compiled, **asked)
    times, notes = compete(makers, rounds, together=True)
    rows: list[Row] = [{**about, "who": name, "note": note} for name, note in notes.items()]
    for name in [name for name in times if name != "ceiling"]:
        seconds = statistics.median(times[name])
        row = {**about, "who": name, "ms": 1e3 * seconds, "images/s": batch / seconds}
        if name == "ours":
            ceiling = product.operations / min(times["ceiling"])
            formula, counted = flops(network, batch, steps, guided)
            row |= {"GFLOP": formula / 1e9, "compiler's GFLOP": counted / 1e9}
            row["share of ceiling"] = formula / seconds / ceiling
            row |= {f"x {other}": paired(times[name], times[other]) for other in times if "PyTorch" in other}
        rows.append(row)
    return rows
