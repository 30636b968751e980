"""The training step: seconds, share of the ceiling, ratio to the peers; and what each of our choices is worth."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from benchmarks.speed.measure import Product, Row, Training, compiler_flops, config, formula_flops, paired
from benchmarks.speed.peers import Peers, Times, compete, ours
from shortcut_models.config import Config
from shortcut_models.models import DiT, Params, dit, embedding
from shortcut_models.objectives import Loss, Shortcut
from shortcut_models.objectives.flow import Velocity, join_batch, split_batch

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
    makers |= {name: partial(ours, size, name, dtype=dtype, **model) for name in configs}
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


# Four blocks of S/2 tell what all twelve would, and compile in a third of the time.
CHOICES: dict[str, list[tuple[str, Row, int]]] = {
    "cpu": [("64x4", {}, 8), ("S/2", {"depth": 4}, 5)],
    "gpu": [("B/2", {}, 10), ("XL/2", {}, 5)],
}


def choices(device: str) -> Iterator[Row]:
    """Our step with each choice undone: its time, and the ratio to the step as it is."""
    for size, model, rounds in CHOICES[device]:
        dtype = "float32" if device == "cpu" else "bfloat16"
        attention, about = "xla" if device == "cpu" else "cudnn", {"size": size, **model, "dtype": dtype}
        plain = config(size, dtype=dtype, remat=size == "XL/2", attention=attention, **model)
        makers: dict[str, Any] = {"as it is": partial(Training, plain)}
        if size == "64x4" or device == "gpu":  # A longer step hides the wait.
            makers["steps not waited for, as the loop takes them"] = partial(Following, plain)
        makers |= {name: partial(_without, *undone) for name, undone in _undone(plain).items()}
        times, _ = compete(makers, rounds, together=device == "cpu")
        for name in times:
            yield _against(times, name, "as it is", about, name)
        if device == "cpu":
            makers = {"kept": partial(ours, size, **model), "handed back": partial(ours, size, tuned=False, **model)}
            times, _ = compete(makers, rounds, together=True)
            yield _against(times, "handed back", "kept", about, "memory handed back to the system")
        objectives = {"one": Shortcut(), "two": _TwoCalls()}
        makers = {name: partial(Training, replace(plain, objective=one)) for name, one in objectives.items()}
        times, _ = compete(makers, rounds, together=device == "cpu")
        yield _against(times, "two", "one", about, "shortcut: jumps and velocity in two calls of the network")


def _without(undo: Callable[[], Any], changed: Config) -> Training:
    with undo():
        return Training(changed)


def _against(times: Times, one: str, other: str, about: Row, change: str) -> Row:
    ratio = paired(times[one], times[other])
    return {**about, "change": change, "ms": 1e3 * statistics.median(times[one]), "x": ratio}


class Following(Training):
    """Steps that follow each other as in the training loop: sent off, and waited for at the end alone."""

    STEPS = 10

    def __call__(self) -> float:
        """Seconds of one of them."""
        began = time.perf_counter()
        for _ in range(self.STEPS):
            self.state = self.compiled(self.state, self.batch, np.uint32(self.index))
            self.index += 1
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / self.STEPS


class _TwoCalls(Shortcut):
    """The shortcut objective without joining its two parts to one batch."""

    def __call__(self, velocity: Velocity, x1: Array, label: Array, key: Array, **more: Any) -> Loss:
        count = self.bootstrap_size(len(x1))

        def apart(*inputs: Array) -> Array:
            parts = zip(*(split_batch(a, count) for a in inputs), strict=True)
            return join_batch(*(velocity(*part) for part in parts))

        return super().__call__(apart, x1, label, key, **more)


def _undone(plain: Config) -> dict[str, tuple[Callable[[], Any], Config]]:
    """For each choice, how to compile the step without it."""

    def same(*patches: Any) -> tuple[Callable[[], Any], Config]:
        return partial(_all, patches), plain

    def other(**model: Any) -> tuple[Callable[[], Any], Config]:
        return partial(_all, ()), replace(plain, model=replace(plain.model, **model))

    found = {
        "products over batch and tokens, not flat": same(partial(mock.patch.object, dit, "dense", _dense)),
        "queries, keys and values by three products": same(partial(mock.patch.object, dit, "dense", _thrice)),
        "GELU's derivative left to JAX": same(
            partial(mock.patch.object, dit, "gelu", partial(jax.nn.gelu, approximate=True))
        ),
        "attention by plain einsums": same(partial(mock.patch.object, jax.nn, "dot_product_attention", _attention)),
        "buffers not donated": same(partial(mock.patch.object, jax, "jit", partial(_undonated, jax.jit))),
        "scanned" if not plain.model.scan else "unrolled": other(scan=not plain.model.scan),
        "blocks recomputed" if not plain.model.remat else "blocks not recomputed": other(remat=not plain.model.remat),
        "modulations of all blocks at once": same(*_at_once()),
        "no normed queries and keys": other(qk_norm=False),
    }
    if plain.model.attention == "cudnn":
        found["attention by XLA, not cuDNN"] = other(attention="xla")
    if plain.model.scan and not plain.model.remat:
        found["all of a block kept for the backward pass"] = same(partial(mock.patch.object, jax, "checkpoint", _kept))
    if not plain.model.scan:
        found["blocks indexed, not split"] = same(partial(mock.patch.object, dit, "_unstack", _index))
    return found


@contextmanager
def _all(patches: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch())
        yield


def _dense(p: Params, x: Array) -> Array:
    return x @ p["kernel"].astype(x.dtype) + p["bias"].astype(x.dtype)


def _thrice(p: Params, x: Array) -> Array:
    if p["kernel"].shape[1] != 3 * p["kernel"].shape[0]:
        return embedding.dense(p, x)
    kernels, biases = (jnp.split(p[name], 3, axis=-1) for name in ("kernel", "bias"))
    parts = [embedding.dense({"kernel": k, "bias": b}, x) for k, b in zip(kernels, biases, strict=True)]
    return jnp.concatenate(parts, axis=-1)


def _attention(query: Array, key: Array, value: Array, *, scale: float, implementation: str) -> Array:
    del implementation
    logits = jnp.einsum("bqhd,bkhd->bhqk", scale * query, key, preferred_element_type=jnp.float32)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits).astype(value.dtype), value)


def _at_once() -> tuple[Callable[[], Any], ...]:
    apply = DiT.apply

    def modulated(self: DiT, params: Params, x: Array, t: Array, d: Array, label: Array) -> Array:
        """The network, every block's modulation computed before the first block, as one product."""
        condition, blocks = self._condition(params, t, d, label), params["blocks"]
        kernel, bias = (blocks["modulation"][name].astype(self.dtype) for name in ("kernel", "bias"))
        done = jnp.einsum("bw,lwm->lbm", condition, kernel) + bias[:, None]
        return apply(self, {**params, "blocks": {**blocks, "modulation": {"done": done}}}, x, t, d, label)

    def dense(p: Params, x: Array) -> Array:
        return p["done"] if "done" in p else embedding.dense(p, x)

    return partial(mock.patch.object, DiT, "apply", modulated), partial(mock.patch.object, dit, "dense", dense)


def _kept(block: Any, **options: Any) -> Any:
    del options
    return block


def _index(blocks: Params, depth: int) -> list[Params]:
    return [jax.tree.map(lambda leaf, i=i: lax.index_in_dim(leaf, i, keepdims=False), blocks) for i in range(depth)]


def _undonated(jit: Any, *arguments: Any, donate_argnums: Any = None, **options: Any) -> Any:
    del donate_argnums
    return jit(*arguments, **options)
