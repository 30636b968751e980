"""Our contestants, each in a process of its own: a JSON line asks for one run, its seconds are the answer.

The only module of the benchmark that imports the package.
"""

import json
import sys
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from shortcut_models import sampling, sharding
from shortcut_models.config import Config
from shortcut_models.costs import count_flops, step_flops
from shortcut_models.data.digits import Digits
from shortcut_models.networks import Network, Params
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives import Batch
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.provenance import provenance
from shortcut_models.state import init_state, shapes_of
from shortcut_models.train import compile_step

OBJECTIVES = {"flow matching": FlowMatching(), "shortcut": Shortcut()}


def config(model: dict[str, Any], batch: int, objective: str = "flow matching", accumulation: int = 1) -> Config:
    """A training run of the network with these fields; its data are not read."""
    chosen = {"data": Digits(), "model": DiT(**model), "objective": OBJECTIVES[objective]}
    return Config(**chosen, batch_size=batch, accumulation=accumulation)


def compiled(config: Config, devices: int = 1) -> tuple[Any, sharding.Layout]:
    """The compiled training step, and its layout on the first devices."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    layout = sharding.make_layout(shapes_of(config), config.sharding, config.model.stacked, mesh)
    return compile_step(config, layout), layout


def weights(network: Network) -> Params:
    """Small weights drawn by NumPy: their values change no time, but compiling `init` takes seconds."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32), shapes)


class Ceiling:
    """One large matrix product: the most that the device computes in a second."""

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype, self.side = dtype, 2048 if jax.default_backend() == "cpu" else 16384
        self.factors: dict[str, Array] = {}
        self.product = jax.jit(lambda a: a @ a)

    def __call__(self, dtype: str = "", **_: Any) -> None:
        if (dtype := dtype or self.dtype) not in self.factors:
            self.factors[dtype] = jnp.full((self.side, self.side), 1 / self.side, dtype)
        jax.block_until_ready(self.product(self.factors[dtype]))

    def facts(self) -> dict[str, Any]:
        """Operations of the product, and where it ran."""
        return {"operations": 2 * self.side**3, "origin": provenance("")}


class Step:
    """A training step with its state."""

    def __init__(self, **asked: Any) -> None:
        self.config, self.index = config(**asked), 0
        self.step, layout = compiled(self.config)
        network, size = self.config.model, self.config.batch_size
        self.state = jax.jit(partial(init_state, self.config), out_shardings=layout.placed)(weights(network))
        images, labels = np.zeros((size, *network.shape), np.float32), np.arange(size) % network.num_classes
        self.batch = Batch(**sharding.place_batch(layout.mesh, {"x1": images, "label": labels.astype(np.int32)}))

    def __call__(self) -> None:
        self.state = jax.block_until_ready(self.step(self.state, self.batch, np.uint32(self.index)))
        self.index += 1

    def facts(self) -> dict[str, Any]:
        """Operations of the step's matrix products."""
        return {"operations": step_flops(self.config)}


class Sampler:
    """A batch drawn and fetched, by one program for every number of steps, as `Model.sample` has it."""

    def __init__(self, model: dict[str, Any], batch: int, guided: bool) -> None:
        self.network, self.guidance = DiT(**model), 1.5 if guided else 1.0
        self.params = self.network.prepare(jax.device_put(weights(self.network)))
        self.label, self.indices = jnp.zeros(batch, jnp.int32), jnp.arange(batch)
        self.program = jax.jit(self.draw)

    def draw(self, params: Params, indices: Array, label: Array, jumps: sampling.Jumps, count: Array) -> Array:
        """Noise, then jumps."""
        velocity = sampling.guided(partial(self.network.apply, params), self.guidance, self.network.null_label)
        return sampling.sample_any(velocity, sampling.noise(0, indices, self.network.shape), label, jumps, count)

    def __call__(self, steps: int = 1) -> None:
        jumps = sampling.pad(sampling.uniform_jumps(steps))
        np.asarray(self.program(self.params, self.indices, self.label, jumps, np.int32(steps)))

    def facts(self) -> dict[str, Any]:
        """Operations of one step's matrix products."""
        rows, params = len(self.label) * (1 if self.guidance == 1 else 2), weights(self.network)
        given = jnp.zeros((rows, *self.network.shape)), jnp.zeros(rows), jnp.zeros(rows), jnp.zeros(rows, jnp.int32)
        return {"operations": count_flops(jax.make_jaxpr(self.network.apply)(params, *given).jaxpr)}


class Memory:
    """What a training step holds, by the compiler's count; nothing is allocated, so it may be more than there is."""

    def __init__(self, **asked: Any) -> None:
        self.step, self.layout = compiled(config(**asked))

    def __call__(self) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        """MiB of each part of the state, of what else a step holds at its peak, and their sum."""
        memory, state = self.step.memory_analysis(), self.layout.shapes
        kept = {"parameters": state.params, "EMA": state.ema, "optimiser": state.opt_state}
        found = {name: 4 * sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in kept.items()}  # float32
        # Outputs beyond the donated inputs are a second copy of the state.
        copies, temporary = memory.output_size_in_bytes - memory.alias_size_in_bytes, memory.temp_size_in_bytes
        found |= {"gradient": found["parameters"], "activations": temporary - found["parameters"]}
        found |= {"second copies": copies, "peak MiB": memory.argument_size_in_bytes + temporary + copies}
        return {name: size / 2**20 for name, size in found.items()}


KINDS: dict[str, Any] = {"ceiling": Ceiling, "step": Step, "sample": Sampler, "memory": Memory}


def main() -> None:
    """Make the contestant that the first argument describes; answer every line with seconds, or with facts."""
    given = json.loads(sys.argv[1])
    kind, contestant = KINDS[given.pop("kind")], None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            contestant = contestant or kind(**given)
            if asked.pop("facts", False):
                held = jax.devices()[0].memory_stats()  # None on a CPU.
                answer = contestant.facts() | ({"peak": held["peak_bytes_in_use"]} if held else {})
            else:
                began = time.perf_counter()
                contestant(**asked)
                answer = {"seconds": time.perf_counter() - began}
        except Exception as error:  # Out of memory, most likely; whatever it is belongs in its row.
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print("answer " + json.dumps(answer), flush=True)
