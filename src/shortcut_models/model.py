"""A trained network, ready to use: `velocity` for researchers, `sample` for everyone."""

import hashlib
import reprlib
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from tqdm import tqdm

from shortcut_models import sampling, sharding
from shortcut_models.codecs import Codec
from shortcut_models.data.base import Data
from shortcut_models.errors import LARGEST, InputError, check_whole
from shortcut_models.networks import Network, Params
from shortcut_models.objectives import Objective


class Model:
    """A network with its parameters, the jumps that its objective taught it, and the data that it shows.

    Sampling is spread over the devices, by default all of this process.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        objective: Objective,
        data: Data,
        *,
        step: int,
        weights: str,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.network, self.objective, self.data = network, objective, data
        self.step, self.weights = step, weights
        self._mesh = sharding.make_mesh(devices or jax.local_devices())
        self.put(params, step)
        self._velocity = jax.jit(network.apply)
        self._decode = jax.jit(lambda codec, x: codec.decode(x))
        self._samplers: dict[Any, Any] = {}

    def put(self, params: Params, step: int) -> None:
        """Take other weights of the same network, those after `step` steps; what is compiled stays."""
        self.params = jax.device_put(self.network.prepare(params), sharding.replicated(self._mesh))
        self.step = step

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); num_classes itself is the null label."""
        return self.network.num_classes

    @property
    def null_label(self) -> int:
        """The label that stands for "no label"."""
        return self.network.null_label

    @property
    def unconditional(self) -> bool:
        """Whether it was trained without labels, so that the null label is the only one it knows."""
        return self.objective.unconditional

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels that it knows are called, in order; () if nothing says so, or it was trained without."""
        return () if self.unconditional else self.data.class_names

    def fingerprint(self, exact: bool = False) -> str:
        """A digest of network, objective and weights, by which models of the same step are told apart.

        With `exact`, that of the same model computing in float32.
        """
        network = self.network.exact() if exact else self.network
        digest = hashlib.sha256(repr((network, self.objective)).encode())
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def balanced_labels(self, count: int) -> np.ndarray:
        """The classes in turn, int32 (count,); the null label alone if it knows no other."""
        if self.unconditional:
            return np.full(count, self.null_label, np.int32)
        return np.arange(count, dtype=np.int32) % self.num_classes

    def velocity(
        self, x: ArrayLike, t: ArrayLike | Sequence[float], d: ArrayLike | Sequence[float], label: Any
    ) -> Float[Array, "batch ..."]:
        """Velocity at x whose jump `x + d * velocity` lands where the flow would after time d.

        x, (batch, *network.shape), is in the network's range, about [-1, 1] at t=1; t, d and label are
        one number or one per example: t and d in [0, 1] (d=0: the instantaneous velocity), label in
        [0, num_classes], the last of which is the null label. Raises InputError for anything else.
        """
        is_ours = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)  # It may be traced.
        x = jnp.asarray(x, jnp.float32) if is_ours else _floats("x", x)
        self._check_shape(x.shape)
        label = self._check_labels(label)
        t, d = (_check_unit(name, _floats(name, value)) for name, value in (("t", t), ("d", d)))
        batch = (len(x),)
        try:
            t, d, label = (jnp.broadcast_to(jnp.asarray(value), batch) for value in (t, d, label))
        except ValueError:
            raise InputError(f"t, d and label must be one number or {len(x)} of them, one per example.") from None
        if not len(x):
            return jnp.zeros(x.shape)
        return self._velocity(self.params, x, t, d, label)

    def noise(self, seed: int, first: int, count: int) -> np.ndarray:
        """The noise that samples first, first + 1, ... of this seed start from, float32 (count, *network.shape).

        Raises InputError for a seed, first or count that is no whole number in range, as `sample` does.
        """
        check_whole("seed", seed, 0, 2**32 - 1)
        check_whole("count", count, 1)
        check_whole("first", first, 0, 2**32 - 1 - count)
        indices = jnp.arange(first, first + count, dtype=jnp.uint32)
        return np.asarray(sampling.noise(seed, indices, self.network.shape))

    def sample(
        self,
        labels: int | Sequence[int] | np.ndarray,
        steps: int = 4,
        guidance: float = 1.0,
        seed: int = 0,
        *,
        first: int = 0,
        noise: Any = None,
        path: bool = False,
        batch_size: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
        """Draw one sample per label in `steps` network calls.

        Sample i depends on (seed, first + i), its label and the settings alone, up to float rounding,
        whatever `batch_size` and however many devices. `guidance` above 1 pushes towards the label at
        twice the cost. `noise`, shaped like the result, replaces what the seed would draw.

        Returns float32 (labels, *network.shape) in the network's own range, about [-1, 1], which
        `decode` makes images of; with `path`, (steps + 1, labels, *network.shape), noise first.
        Raises InputError for labels that the network was not trained on, steps, seed or batch_size that
        are no whole numbers in range, noise of another shape, and guidance without a trained null label.
        """
        labels = np.atleast_1d(self._check_labels(labels))
        if labels.ndim != 1 or not len(labels):
            raise InputError(f"labels have shape {labels.shape}, but must be one or more integers in a row.")
        # Of a network without classes it is the only label, and every training's.
        if self.num_classes and not self.objective.trains_null_label and np.any(labels == self.null_label):
            raise InputError(
                f"label {self.null_label} stands for no label, without which this model never learnt to answer "
                "(objective.label_dropout 0): ask for classes."
            )
        check_whole("steps", steps, 1)
        check_whole("seed", seed, 0, 2**32 - 1)
        check_whole("first", first, 0, 2**32 - 1 - len(labels))
        check_whole("batch_size", batch_size, 1)
        self.check_guidance(guidance)
        shape = (len(labels), *self.network.shape)
        if noise is not None:
            noise = _floats("noise", noise)
            if noise.shape != shape:
                raise InputError(f"noise has shape {noise.shape}, but ({_comma(shape)}) is needed: one per label.")
            if not np.isfinite(noise).all():
                raise InputError("noise has values that are not finite: give standard normal numbers.")
        jumps = self.objective.jumps(int(steps))
        sampler = self._sampler(float(guidance), bool(np.any(jumps.renoise < 1)), path)
        # A multiple of the devices, so that each gets whole samples.
        size = -(-min(batch_size, len(labels)) // self._mesh.size) * self._mesh.size
        spread, pieces = sharding.batch_sharding(self._mesh), []
        for begin in tqdm(range(0, len(labels), size), unit="batch", disable=not progress, leave=False):
            # The last batch is filled up, so that every batch has the shape that was compiled.
            rows = np.minimum(np.arange(begin, begin + size), len(labels) - 1)
            indices = jax.device_put((first + rows).astype(np.uint32), spread)
            given = None if noise is None else jax.device_put(noise[rows], spread)
            drawn = sampler(self.params, seed, indices, given, jax.device_put(labels[rows], spread), jumps)
            pieces.append(np.moveaxis(np.asarray(drawn), int(path), 0)[: len(labels) - begin])
        return np.moveaxis(np.concatenate(pieces), 0, int(path))

    def decode(self, x: ArrayLike, batch_size: int = 256) -> np.ndarray:
        """From x, (batch, *network.shape), to what the data show: for images, float32 (batch, H, W, C), about [-1, 1].

        Raises InputError for x of another shape, and for latents whose VAE is not here.
        """
        x = np.asarray(x, np.float32)
        self._check_shape(x.shape)
        batches = sharding.spread(self._mesh, x, batch_size)
        return np.concatenate([np.asarray(self._decode(self._codec, part))[:count] for part, count in batches])

    @cached_property
    def _codec(self) -> Codec:
        """Found when it is needed: a VAE is no part of a run."""
        return jax.device_put(self.data.codec.ready(), sharding.replicated(self._mesh))

    def check_guidance(self, guidance: float) -> None:
        """Raise InputError unless the network can be sampled with this guidance."""
        try:
            is_finite = not isinstance(guidance, str) and abs(float(guidance)) <= LARGEST
        except TypeError:
            is_finite = False
        if not is_finite:
            raise InputError(f"guidance is {guidance!r}, but must be a finite number; 1 is none.")
        if guidance == 1:
            return
        if self.unconditional:
            raise InputError(f"guidance is {guidance}, but this model was trained without labels: use guidance 1.")
        if not self.objective.trains_null_label:
            raise InputError(
                f"guidance is {guidance}, but this model never learnt to answer without a label "
                "(objective.label_dropout 0), which guidance pushes away from: use guidance 1."
            )

    def _sampler(self, guidance: float, renoises: bool, path: bool) -> Any:
        """The jitted sampler for these settings; but for paths, one compiled program serves every budget."""
        if (guidance, renoises, path) not in self._samplers:

            def run(
                params: Params,
                seed: Array,
                indices: Array,
                start: Array | None,
                label: Array,
                jumps: sampling.Jumps,
                count: Array,
            ) -> Any:
                velocity = sampling.guided(partial(self.network.apply, params), guidance, self.network.null_label)
                if start is None:
                    start = sampling.noise(seed, indices, self.network.shape)
                fresh = sampling.image_keys(seed, indices) if renoises else None
                if path:
                    return jnp.concatenate([start[None], sampling.sample_path(velocity, start, label, jumps, fresh)[1]])
                return sampling.sample_any(velocity, start, label, jumps, count, fresh)

            compiled = jax.jit(run)

            def sampler(
                params: Params, seed: int, indices: Array, start: Array | None, label: Array, jumps: sampling.Jumps
            ) -> Any:
                given = jumps if path else sampling.pad(jumps)
                count = np.int32(len(jumps.t))
                return compiled(params, np.uint32(seed), indices, start, label, given, count)

            self._samplers[guidance, renoises, path] = sampler
        return self._samplers[guidance, renoises, path]

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape[1:] != self.network.shape or len(shape) != 1 + len(self.network.shape):
            raise InputError(f"x has shape {shape}, but the network takes (batch, {_comma(self.network.shape)}).")

    def _check_labels(self, given: Any) -> np.ndarray:
        try:
            labels = np.asarray(given)
        except ValueError:  # Rows of different lengths.
            raise InputError(f"labels are {given!r}, but must be integers in a row.") from None
        if labels.size and not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels are {labels.dtype}, but must be integers.")
        wrong = labels[(labels < 0) | (labels > self.num_classes)]
        if wrong.size:
            raise InputError(
                f"label {wrong.flat[0]} is unknown: labels go from 0 to {self.num_classes - 1} "
                f"({self.num_classes} stands for no label)."
            )
        if self.unconditional and np.any(labels != self.null_label):
            raise InputError(
                f"label {labels[labels != self.null_label].flat[0]} was never trained: this model was trained without "
                f"labels, so use {self.null_label}, which stands for no label (--labels none)."
            )
        return labels.astype(np.int32)


def _floats(name: str, value: Any) -> np.ndarray:
    """As float32; raises InputError for what is no array of real numbers."""
    try:
        found = np.asarray(value)
    except ValueError:  # Rows of different lengths.
        found = np.asarray(None)
    if not (jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)):
        raise InputError(f"{name} is {reprlib.repr(value)}, but must be numbers, in rows of equal length.")
    return found.astype(np.float32)


def _check_unit(name: str, value: np.ndarray) -> np.ndarray:
    wrong = value[~((value >= 0) & (value <= 1))]
    if wrong.size:
        raise InputError(f"{name} must lie between 0 (noise for t, velocity for d) and 1, but has {wrong.flat[0]}.")
    return value


def _comma(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
