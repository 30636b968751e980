"""What each of our choices is worth: the training step with one of them undone, against the step as it is."""

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

from benchmarks.speed.measure import Row, Training, config, paired
from benchmarks.speed.peers import Peers, compete, ours
from shortcut_models.config import Config
from shortcut_models.models import DiT, Params, dit, embedding
from shortcut_models.objectives import Loss, Shortcut
from shortcut_models.objectives.flow import Velocity, join_batch, split_batch

# Three blocks of S/2 tell what all twelve would, and compile in a third of the time.
CPU: list[tuple[str, Row, int]] = [("64x4", {"dtype": "float32"}, 8), ("S/2", {"dtype": "float32", "depth": 3}, 5)]
GPU: list[tuple[str, Row, int]] = [
    ("B/2", {"dtype": "bfloat16", "attention": "cudnn"}, 10),
    ("XL/2", {"dtype": "bfloat16", "attention": "cudnn", "remat": True}, 5),
]

TWO_CALLS = "shortcut: jumps and velocity in two calls of the network"


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row for the step as it is, and for every choice undone its time and the ratio to that."""
    del peers
    return (row for case in (GPU if device == "gpu" else CPU) for row in _case(*case, device == "cpu"))


def _case(size: str, model: Row, rounds: int, together: bool) -> Iterator[Row]:
    step = partial(ours, "step", size=size, **model)
    makers: dict[str, Callable[[], Any]] = {"as it is": step}
    if size == "64x4" or not together:  # A longer step hides the wait.
        makers["steps not waited for, as the loop takes them"] = partial(step, following=True)
    makers |= {name: partial(step, undo=name) for name in undone(config(size, **model))}
    if together:
        makers["memory handed back to the system"] = partial(step, tuned=False)
    makers |= {"shortcut": partial(step, objective="shortcut")}
    makers |= {TWO_CALLS: partial(step, objective="shortcut", undo=TWO_CALLS)}
    times, notes = compete(makers, rounds, together)
    for name in makers:
        row = {"size": size, **model, "change": name}
        against = "shortcut" if name in ("shortcut", TWO_CALLS) else "as it is"
        if name in notes:
            yield row | {"note": notes[name]}
        elif name != "shortcut":
            row["ms"] = 1e3 * statistics.median(times[name])
            yield row | ({"x": paired(times[name], times[against])} if against in times else {})


def without(name: str, config: Config) -> Training:
    """The step with a choice undone, by its name in `undone`."""
    undo, changed = undone(config)[name]
    with undo():
        return Training(changed)


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


class TwoCalls(Shortcut):
    """The shortcut objective without joining its two parts to one batch."""

    def __call__(self, velocity: Velocity, x1: Array, label: Array, key: Array, **more: Any) -> Loss:
        count = self.bootstrap_size(len(x1))

        def apart(*inputs: Array) -> Array:
            parts = zip(*(split_batch(a, count) for a in inputs), strict=True)
            return join_batch(*(velocity(*part) for part in parts))

        return super().__call__(apart, x1, label, key, **more)


def undone(plain: Config) -> dict[str, tuple[Callable[[], Any], Config]]:
    """For each choice, how to compile the step without it."""

    def same(*patches: Any) -> tuple[Callable[[], Any], Config]:
        return partial(_all, patches), plain

    def other(**model: Any) -> tuple[Callable[[], Any], Config]:
        return partial(_all, ()), replace(plain, model=replace(plain.model, **model))

    if isinstance(plain.objective, Shortcut):
        return {TWO_CALLS: (partial(_all, ()), replace(plain, objective=TwoCalls()))}
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
