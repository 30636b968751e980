"""What each of our choices is worth: the step, the loop and the sampler with one undone, against how they are."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from benchmarks.speed import loop, sampler, sampler_choices
from benchmarks.speed.measure import (
    Product,
    Row,
    Training,
    ceiling,
    config,
    operations,
    ratio,
    work,
)
from benchmarks.speed.peers import Peers, compete, ours
from shortcut_models.config import Config
from shortcut_models.networks import DiT, Params, dit, embedding
from shortcut_models.objectives import Loss, Shortcut
from shortcut_models.objectives.flow import Velocity, join_batch, split_batch

# Two blocks of S/2 tell what all twelve would, and compile in a fraction of the time.
_PART = {"dtype": "float32", "depth": 2}
CPU: list[tuple[str, Row, int]] = [("64x4", {"dtype": "float32"}, 8), ("S/2", _PART, 6)]
GPU: list[tuple[str, Row, int]] = [
    ("B/2", {"dtype": "bfloat16", "attention": "cudnn"}, 10),
    ("XL/2", {"dtype": "bfloat16", "attention": "cudnn", "remat": True}, 5),
]

TWO_CALLS = "shortcut: jumps and velocity in two calls of the network"
EINSUMS, RECOMPUTED, AT_ONCE = "attention by plain einsums", "blocks recomputed", "modulations of all blocks at once"
THREE, GELU, UNDONATED = (
    "queries, keys and values by three products",
    "GELU's derivative left to JAX",
    "buffers not donated",
)
ONCE = {EINSUMS, RECOMPUTED, AT_ONCE, THREE, GELU, UNDONATED}
"""On a CPU, the small network alone shows these: compiling them for S/2, too, takes too long."""
WHOLE_HOPS = "shortcut: hops of the whole batch, not of the share that learns from them"


class Group(NamedTuple):
    """Contestants that are compared with the first of them, which is as we chose."""

    makers: dict[str, Callable[[], Any]]
    operations: tuple[float, float] | None = None
    """By our formula and by the compiler's count, of the first."""


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row for each thing as it is, and for every choice undone its time and the ratio to that."""
    del peers
    for size, model, rounds in GPU if device == "gpu" else CPU:
        yield from _rows({"size": size, **model}, steps(size, model, device == "cpu"), rounds, device == "cpu")
    for about, groups, rounds in others(device):
        yield from _rows(about, groups, rounds, together=True)


def steps(size: str, model: Row, cpu: bool) -> list[Group]:
    """Training steps."""
    step = partial(ours, "step", size=size, **model)
    makers: dict[str, Callable[[], Any]] = {"as it is": step}
    left_out = ONCE if cpu and size != "64x4" else set()
    makers |= {name: partial(step, undo=name) for name in undone(config(size, **model)) if name not in left_out}
    if cpu:
        makers["memory handed back to the system"] = partial(step, tuned=False)
    plain = Group(makers, operations(config(size, **model)))
    if cpu and size == "64x4":  # What a shortcut step saves, S/2 alone shows, for the same reason.
        return [plain]
    shortcut = partial(step, objective="shortcut")
    jumps = {"shortcut: as it is": shortcut}
    jumps |= {name: partial(shortcut, undo=name) for name in undone(config(size, "shortcut", **model))}
    return [plain, Group(jumps, operations(config(size, "shortcut", **model)))]


def others(device: str) -> Iterator[tuple[Row, list[Group], int]]:
    """The loop, the sampler, and the compiling of it."""
    digits = {"size": "digits", "dtype": "float32"}
    looped = {"the loop: as it is": partial(ours, "loop")}
    looped |= {name: partial(ours, "loop", undo=name) for name in loop.UNDONE}
    yield digits, [Group(looped, operations(config("digits")))], 3
    yield digits, [_drawn("digits", 16, True, 4, {}, [sampler_choices.TWICE, sampler_choices.FIXED])], 7
    anew = "compiling, and one image drawn by 1, by 4 and by 128 steps"
    budgets = {f"{anew}: as it is": partial(ours, "budgets")}
    budgets[f"{anew}: {sampler_choices.FIXED}"] = partial(ours, "budgets", undo=sampler_choices.FIXED)
    yield digits, [Group(budgets)], 1
    size, model = ("S/2", _PART) if device == "cpu" else ("B/2", {**GPU[0][1], "scan": False})
    yield {"size": size, **model}, [_drawn(size, n, False, 1, model, [sampler_choices.STACKED]) for n in (1, 16)], 7


def _drawn(size: str, batch: int, guided: bool, steps: int, model: Row, names: list[str]) -> Group:
    drawn = f"{batch} image{'s' * (batch > 1)} drawn in {steps} step{'s' * (steps > 1)}{', guided' * guided}"
    make = partial(ours, "sample", size=size, batch=batch, guided=guided, steps=steps, **model)
    makers = {f"{drawn}: as it is": make, **{f"{drawn}: {name}": partial(make, undo=name) for name in names}}
    formula, counted = sampler.flops(config(size, **model).model, batch, guided)
    return Group(makers, (steps * formula, steps * counted))


def _rows(about: Row, groups: list[Group], rounds: int, together: bool) -> Iterator[Row]:
    makers: dict[str, Callable[[], Any]] = {"ceiling": partial(Product, about["dtype"])}
    makers |= {name: make for group in groups for name, make in group.makers.items()}
    times, _, notes = compete(makers, rounds, together)
    highest = ceiling(times["ceiling"])
    for group in groups:
        plain = next(iter(group.makers))
        for name in group.makers:
            row = {**about, "change": name}
            if name in notes:
                yield row | {"note": notes[name]}
                continue
            seconds = statistics.median(times[name])
            row |= {"ms": 1e3 * seconds}
            row |= {"x": ratio(times[name], times[plain])} if plain in times else {}
            if group.operations:
                row |= work(group.operations, seconds, highest)
            yield row


def without(name: str, config: Config) -> Training:
    """The step with a choice undone, by its name in `undone`."""
    undo, changed = undone(config)[name]
    with undo():
        return Training(changed)


class TwoCalls(Shortcut):
    """The shortcut objective without joining its two parts to one batch."""

    def __call__(self, velocity: Velocity, x1: Array, label: Array, key: Array, **more: Any) -> Loss:
        count = self.bootstrap_size(len(x1))

        def apart(*inputs: Array) -> Array:
            parts = zip(*(split_batch(a, count) for a in inputs), strict=True)
            return join_batch(*(velocity(*part) for part in parts))

        return super().__call__(apart, x1, label, key, **more)


class WholeHops(Shortcut):
    """The shortcut objective whose two hops see as many images as the whole batch has."""

    def __call__(self, velocity: Velocity, x1: Array, label: Array, key: Array, **more: Any) -> Loss:
        network = more.pop("target", None) or velocity

        def whole(*inputs: Array) -> Array:
            rows = len(inputs[0])
            return network(*(jnp.concatenate([a] * (len(x1) // rows)) for a in inputs))[:rows]

        return super().__call__(velocity, x1, label, key, target=whole, **more)


def undone(plain: Config) -> dict[str, tuple[Callable[[], Any], Config]]:
    """For each choice, how to compile the step without it."""

    def same(*patches: Any) -> tuple[Callable[[], Any], Config]:
        return partial(_all, patches), plain

    def other(**model: Any) -> tuple[Callable[[], Any], Config]:
        return partial(_all, ()), replace(plain, model=replace(plain.model, **model))

    if isinstance(plain.objective, Shortcut):
        kinds = {TWO_CALLS: TwoCalls(), WHOLE_HOPS: WholeHops()}
        return {name: (partial(_all, ()), replace(plain, objective=kind)) for name, kind in kinds.items()}
    found = {
        "products over batch and tokens, not flat": same(partial(mock.patch.object, dit, "dense", _dense)),
        THREE: same(partial(mock.patch.object, dit, "dense", _thrice)),
        GELU: same(partial(mock.patch.object, dit, "gelu", partial(jax.nn.gelu, approximate=True))),
        EINSUMS: same(partial(mock.patch.object, jax.nn, "dot_product_attention", _attention)),
        UNDONATED: same(partial(mock.patch.object, jax, "jit", partial(_undonated, jax.jit))),
        "scanned" if not plain.model.scan else "unrolled": other(scan=not plain.model.scan),
        RECOMPUTED if not plain.model.remat else "blocks not recomputed": other(remat=not plain.model.remat),
        AT_ONCE: same(*_at_once()),
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
