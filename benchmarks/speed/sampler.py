"""Sampling: latency of one image and throughput of many, for budgets of 1, 4 and 128 calls, guided and not."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.speed.measure import Product, Row, ceiling, config, race, ratio, weights, work
from benchmarks.speed.peers import Peers, Times, in_turn, ours
from shortcut_models import sampling
from shortcut_models.dry_run import count_flops
from shortcut_models.networks import DiT, Params

GUIDANCE = 1.5


class Case(NamedTuple):
    """What is drawn."""

    size: str
    dtype: str
    batch: int
    guided: bool
    steps: tuple[int, ...]
    rounds: int


CPU = [
    Case("digits", "float32", 1, False, (1, 4, 128), 4),
    Case("digits", "float32", 256, True, (4,), 5),
    Case("S/2", "float32", 16, False, (1,), 7),
]
GPU = [
    Case(size, "bfloat16", batch, guided, steps, 10)
    for size in ("B/2", "XL/2")
    for batch, guided, steps in [(1, False, (1, 128)), (64, False, (1, 4)), (64, True, (1,))]
]


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row per case, number of steps and contestant."""
    cases = GPU if device == "gpu" else CPU
    makers = {(case, name): make for case in cases for name, make in _makers(case, peers).items()}
    for case, contestants, notes in in_turn(makers):
        yield from ({**_about(case), "who": name, "note": note} for name, note in notes.items())
        one = flops(config(case.size).model, case.batch, case.guided)
        for steps in case.steps:
            asked = {name: run if name == "ceiling" else partial(run, steps=steps) for name, run in contestants.items()}
            yield from _rows(case, steps, race(asked, case.rounds), one)


class Sampler:
    """One program for every number of steps, as `Model.sample` uses it; calling it draws one batch and fetches it."""

    def __init__(self, network: DiT, batch: int, guided: bool) -> None:
        self.network, self.guidance = network, GUIDANCE if guided else 1.0
        self.params = network.apart(jax.device_put(weights(network)))
        self.label, self.indices = jnp.zeros(batch, jnp.int32), jnp.arange(batch)
        self.compile()

    def compile(self) -> None:
        """Forget what was compiled; the next call compiles."""
        self.program = jax.jit(self.draw)

    def draw(self, params: Params, indices: Array, label: Array, jumps: sampling.Jumps, count: Array) -> Array:
        """Noise, then jumps."""
        velocity = sampling.guided(partial(self.network.apply, params), self.guidance, self.network.null_label)
        start = sampling.noise(0, indices, self.network.shape)
        return sampling.sample_any(velocity, start, label, jumps, count)

    def __call__(self, steps: int) -> np.ndarray:
        """The images."""
        jumps = sampling.pad(sampling.uniform_jumps(steps))
        return np.asarray(self.program(self.params, self.indices, self.label, jumps, np.int32(steps)))


def flops(network: DiT, batch: int, guided: bool) -> tuple[int, float]:
    """Operations of one step, by our count of matrix products and by XLA's of everything."""
    rows = batch * (2 if guided else 1)
    params = jax.eval_shape(network.init, jax.random.key(0))
    x, t = jnp.zeros((rows, *network.shape)), jnp.zeros(rows)
    call = (params, x, t, t, jnp.zeros(rows, jnp.int32))
    ours = count_flops(jax.make_jaxpr(network.apply)(*call).jaxpr)
    # Unrolled: of a scan, XLA counts one turn.
    analysis: Any = jax.jit(replace(network, scan=False).apply).lower(*call).cost_analysis()
    return ours, float((analysis or {}).get("flops", float("nan")))


def _makers(case: Case, peers: Peers) -> dict[str, Any]:
    peer = partial(peers.make, "sample", config(case.size, dtype=case.dtype).model, case.batch, guided=case.guided)
    attention = "cudnn" if case.dtype == "bfloat16" else "xla"
    return {
        "ceiling": partial(Product, case.dtype),
        "ours": partial(ours, "sample", **_about(case), attention=attention),
        "PyTorch eager": partial(peer, compiled=False),
        "PyTorch compiled": partial(peer, compiled=True),
    }


def _about(case: Case) -> Row:
    return {"size": case.size, "dtype": case.dtype, "batch": case.batch, "guided": case.guided}


def _rows(case: Case, steps: int, times: Times, one: tuple[int, float]) -> Iterator[Row]:
    highest = ceiling(times["ceiling"])
    for name in [name for name in times if name != "ceiling"]:
        seconds = statistics.median(times[name])
        row = {**_about(case), "steps": steps, "who": name, "ms": 1e3 * seconds, "images/s": case.batch / seconds}
        if name == "ours":
            row |= work((steps * one[0], steps * one[1]), seconds, highest)
            row |= {f"x {other}": ratio(times[name], times[other]) for other in times if "PyTorch" in other}
        yield row
