"""What all parts share: sizes, contestants that take turns, the ceiling, and the count of operations."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shortcut_models import sharding
from shortcut_models.config import Config
from shortcut_models.dry_run import count_flops
from shortcut_models.networks import DiT, Params
from shortcut_models.objectives import FlowMatching, Shortcut
from shortcut_models.presets import PRESETS
from shortcut_models.train import compile_step, init_state, make_step

Row = dict[str, Any]

_LATENT = DiT(image_size=32, channels=4, num_classes=1000, patch_size=2)
SIZES = {
    "digits": (PRESETS["digits"].config.model, 64),
    "64x4": (replace(PRESETS["digits"].config.model, patch_size=2, hidden_size=64, num_heads=4, scan=True), 64),
    "S/2": (replace(_LATENT, image_size=16, hidden_size=384, depth=12, num_heads=6, scan=False), 16),
    "B/2": (replace(_LATENT, hidden_size=768, depth=12, num_heads=12), 256),
    "XL/2": (replace(_LATENT, hidden_size=1152, depth=28, num_heads=16), 256),
}
"""Network and batch; S/2 sees 16 x 16 latents (64 tokens), B/2 and XL/2 32 x 32 (256 tokens)."""

WINDOW = 0.15
"""Seconds of a turn, where a call is shorter."""

OBJECTIVES = {"flow matching": FlowMatching(), "shortcut": Shortcut()}


def config(size: str, objective: str = "flow matching", batch: int | None = None, **model: Any) -> Config:
    """A training run of that size."""
    network, usual = SIZES[size]
    return Config(batch_size=batch or usual, model=replace(network, **model), objective=OBJECTIVES[objective])


def weights(network: DiT) -> Params:
    """Small weights drawn by NumPy: what they are changes no time, but to compile `init` takes seconds."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32), shapes)


class Training:
    """A compiled training step with its state; calling it takes one step and waits for it."""

    def __init__(self, config: Config, devices: int = 1) -> None:
        self.config = config
        mesh = sharding.make_mesh(jax.devices()[:devices])
        shapes = jax.eval_shape(partial(init_state, config))
        placed = sharding.state_sharding(mesh, shapes, config.sharding)
        began = time.perf_counter()
        self.compiled = compile_step(config, mesh, shapes, placed)
        self.compile_seconds = time.perf_counter() - began
        self.state = jax.jit(partial(init_state, config), out_shardings=placed)(weights(config.model))
        rng = np.random.default_rng(0)
        images = rng.standard_normal((config.batch_size, *config.model.shape), np.float32)
        labels = rng.integers(0, config.model.num_classes, config.batch_size).astype(np.int32)
        self.batch = sharding.place_batch(mesh, {"x1": images, "label": labels})
        self.index = 0

    @property
    def temporary(self) -> int:
        """Bytes that a step needs besides its state."""
        return self.compiled.memory_analysis().temp_size_in_bytes

    def __call__(self) -> None:
        self.state = jax.block_until_ready(self.compiled(self.state, self.batch, np.uint32(self.index)))
        self.index += 1


class Product:
    """The ceiling: one large matrix product in the given dtype; its best time counts."""

    def __init__(self, dtype: str) -> None:
        side = self.side()
        self.factors = [jnp.ones((side, side), dtype) / side for _ in range(2)]
        self.product = jax.jit(jnp.matmul)

    @staticmethod
    def side() -> int:
        """Rows, columns and terms."""
        return 2048 if jax.default_backend() == "cpu" else 16384

    def __call__(self) -> None:
        jax.block_until_ready(self.product(*self.factors))


def ceiling(times: list[float]) -> float:
    """Operations a second, from the times of a `Product`."""
    return 2 * Product.side() ** 3 / min(times)


def copy_rate() -> float:
    """Bytes per second of a large copy, read and written."""
    source = jnp.ones(2**26 if jax.default_backend() == "cpu" else 2**30, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    times = race({"copy": lambda: jax.block_until_ready(copy(source))}, 5)["copy"]
    return 2 * source.nbytes / statistics.median(times)


def race(contestants: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of one call of every contestant, in every round, after a round to warm up.

    They take turns, so that what else the machine does slows all of them down alike, in another
    order every round. A turn is as many calls as fill WINDOW, and at least one, after half as many,
    and at least one, that find the caches full of another's, the threads asleep and the memory that it
    gave back gone to others: training and sampling run hot. Whoever runs alone is hot. One that returns
    a number has timed itself, in seconds.
    """
    times: dict[Any, list[float]] = {name: [] for name in contestants}
    calls = {name: _calls(run) for name, run in contestants.items()}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for name in shuffle.sample(list(contestants), len(contestants)):
            run, count = contestants[name], calls[name]
            warming = (count + 1) // 2 if len(contestants) > 1 else 0
            for _ in range(warming):
                run()
            times[name].append(sum(seconds(run) for _ in range(count)) / count)
    return times


def _calls(run: Callable[[], Any]) -> int:
    for last in (False, True):
        began = time.perf_counter()
        said = seconds(run)
        taken = max(said, time.perf_counter() - began)  # What it says of itself may be a share of the call.
        if last or taken > 1:  # So slow a one needs no second look.
            break
    return max(1, min(20, round(WINDOW / taken)))


def seconds(run: Callable[[], Any]) -> float:
    """Of one call, or what the call itself says that it took."""
    began = time.perf_counter()
    own = run()
    return own if isinstance(own, float) else time.perf_counter() - began


def work(counts: tuple[float, float], seconds: float, highest: float) -> Row:
    """Columns of the operations, by our formula and by the compiler, and of the first one's share of the ceiling."""
    formula, counted = counts
    shares = {"share of ceiling": formula / seconds / highest, "ceiling TFLOP/s": highest / 1e12}
    return {"GFLOP": formula / 1e9, "compiler's GFLOP": counted / 1e9, **shares}


def ratio(times: list[float], others: list[float]) -> float:
    """Of two contestants' best rounds.

    What else the machine does only ever slows, and on a virtual one by half for a spell (docs/speed.md),
    so that the round that counts is one that nothing slowed.
    """
    return min(times) / min(others)


def formula_flops(config: Config) -> int:
    """Operations of one step by our own count of matrix products."""
    shapes = jax.eval_shape(partial(init_state, config))
    return count_flops(jax.make_jaxpr(make_step(config, config.model))(shapes, *_inputs(config)).jaxpr)


def compiler_flops(config: Config) -> float:
    """Operations of one step by XLA's count, of the unrolled network: of a scan it counts one turn."""
    config = replace(config, model=replace(config.model, scan=False))
    shapes = jax.eval_shape(partial(init_state, config))
    analysis: Any = jax.jit(make_step(config, config.model)).lower(shapes, *_inputs(config)).cost_analysis()
    return float((analysis or {}).get("flops", float("nan")))


def operations(config: Config) -> tuple[int, float]:
    """Both counts."""
    return formula_flops(config), compiler_flops(config)


def _inputs(config: Config) -> tuple[Any, Any]:
    x1 = jax.ShapeDtypeStruct((config.batch_size, *config.model.shape), jnp.float32)
    label = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    return {"x1": x1, "label": label}, jax.ShapeDtypeStruct((), jnp.uint32)
