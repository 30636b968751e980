"""StableHLO files: a sampler as a compiled-to-be program, for whoever has JAX but not this package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from shortcut_models import sampling
from shortcut_models.interop.exporting import Sampler, check, need, placed
from shortcut_models.model import Model

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    model: Model, out: str | Path, *, steps: int = 4, guidance: float = 1.0, decode: bool = False
) -> float:
    """Write the sampler of so many steps as `jax.export` serialises it, weights included, whole or not at all.

    `jax.export.deserialize(bytearray(data)).call(noise, label)` answers as the file that `export_onnx` writes, but
    takes its labels as int32, and answers NaN for one that there is not; `seed`, if there is one, is a uint32 that
    has to be given, third. JAX reads such files for six months at least.

    Returns the largest difference between its samples and ours. Raises InputError as `export_onnx` does.
    """
    need("stablehlo", "flatbuffers")
    asked = Sampler.of(model, steps, guidance, decode)

    def sample(noise: Array, label: Array, *seed: Array) -> Array:
        keys = sampling.image_keys(seed[0], jnp.arange(noise.shape[0], dtype=jnp.uint32)) if seed else None

        def jump(index: Array, x: Array) -> Array:
            fresh = None if keys is None else sampling.fresh_noise(keys, index + 1, x.shape[1:])
            return asked.jump(model.params, label, index, x, fresh)

        if asked.labels:  # A program cannot refuse, and JAX takes the nearest label for one that there is not.
            known = (label >= 0) & (label < asked.labels)
            noise = jnp.where(known.reshape(-1, *(1 for _ in asked.model.network.shape)), noise, jnp.nan)
        x = jax.lax.fori_loop(0, asked.steps, jump, noise)
        return x if asked.codec is None else asked.decode(asked.codec, x)

    with placed(Path(out)) as (path,):
        program = export.export(jax.jit(sample), platforms=PLATFORMS)(*_shapes(asked))
        path.write_bytes(program.serialize())
        feed, expected = asked.example()
        seed = [np.uint32(0)] if asked.renoises else []
        found = export.deserialize(bytearray(path.read_bytes())).call(*feed.values(), *seed)
        return check(np.asarray(found), expected)


def _shapes(asked: Sampler) -> Sequence[Any]:
    """Of its inputs, for a number of samples that is not known."""
    (batch,) = export.symbolic_shape("n")
    noise = (batch, *asked.model.network.shape)
    given = [jax.ShapeDtypeStruct(noise, np.float32), jax.ShapeDtypeStruct((batch,), np.int32)]
    if asked.renoises:
        given.append(jax.ShapeDtypeStruct((), np.uint32))
    return given
