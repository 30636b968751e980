"""A trained network, ready to use: `velocity` for researchers, `sample` for everyone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from tqdm import tqdm

from shortcut_models import sampling
from shortcut_models.errors import InputError
from shortcut_models.models.dit import DiT
from shortcut_models.models.embedding import Params
from shortcut_models.objectives import Objective


class Model:
    """A network with its parameters, and the jumps that its objective taught it."""

    def __init__(self, network: DiT, params: Params, objective: Objective, *, step: int, weights: str) -> None:
        self.network, self.params, self.objective = network, network.apart(params), objective
        self.step, self.weights = step, weights
        self._velocity = jax.jit(network.apply)
        self._samplers: dict[Any, Any] = {}

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); num_classes itself is the null label."""
        return self.network.num_classes

    def velocity(
        self, x: ArrayLike, t: ArrayLike | Sequence[float], d: ArrayLike | Sequence[float], label: Any
    ) -> Float[Array, "batch height width channels"]:
        """Velocity at x whose jump `x + d * velocity` lands where the flow would after time d.

        x, (batch, height, width, channels), is in the network's range, about [-1, 1] at t=1; t, d and
        label are one number or one per example: t and d in [0, 1] (d=0: the instantaneous velocity),
        label in [0, num_classes].
        """
        x = jnp.asarray(x, jnp.float32)
        if x.ndim != 4 or x.shape[1:] != self.network.shape:
            raise InputError(f"x has shape {x.shape}, but the network takes (batch, {_comma(self.network.shape)}).")
        label = self._check_labels(np.asarray(label))
        t, d = (_check_unit(name, np.asarray(value, np.float32)) for name, value in (("t", t), ("d", d)))
        batch = (len(x),)
        try:
            t, d, label = (jnp.broadcast_to(jnp.asarray(value), batch) for value in (t, d, label))
        except ValueError:
            raise InputError(f"t, d and label must be one number or {len(x)} of them, one per example.") from None
        return self._velocity(self.params, x, t, d, label)

    def sample(
        self,
        labels: int | Sequence[int] | np.ndarray,
        steps: int = 4,
        guidance: float = 1.0,
        seed: int = 0,
        *,
        noise: Any = None,
        path: bool = False,
        batch_size: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
        """Draw one sample per label in `steps` network calls.

        Image i depends on (seed, i), its label and the settings alone, up to float rounding, whatever
        `batch_size`. `guidance` above 1 pushes towards the label at twice the cost. `noise`, shaped
        like the result, replaces what the seed would draw.

        Returns float32 (labels, height, width, channels) in the network's own range, about [-1, 1];
        with `path`, (steps + 1, labels, height, width, channels), noise first.
        Raises InputError for labels outside [0, num_classes], fewer than 1 step or noise of another shape.
        """
        labels = np.atleast_1d(self._check_labels(np.asarray(labels)))
        if labels.ndim != 1 or not len(labels):
            raise InputError(f"labels have shape {labels.shape}, but must be one or more integers in a row.")
        if not np.isfinite(guidance):
            raise InputError(f"guidance is {guidance}, but must be a finite number; 1 is none.")
        if not 0 <= seed < 2**32:
            raise InputError(f"seed is {seed}, but must lie between 0 and 4294967295.")
        shape = (len(labels), *self.network.shape)
        if noise is not None and np.shape(noise) != shape:
            raise InputError(f"noise has shape {np.shape(noise)}, but {_comma(shape)} is needed: one image per label.")
        jumps = self.objective.jumps(int(steps))
        sampler = self._sampler(float(guidance), bool(np.any(jumps.renoise < 1)), path)
        size = min(batch_size, len(labels))
        pieces = []
        for first in tqdm(range(0, len(labels), size), unit="batch", disable=not progress, leave=False):
            # The last batch is filled up, so that every batch has the shape that was compiled.
            indices = np.minimum(np.arange(first, first + size), len(labels) - 1)
            keys = sampling.image_keys(seed, jnp.asarray(indices))
            if noise is None:
                start = sampling.noise(seed, jnp.asarray(indices), self.network.shape)
            else:
                start = jnp.asarray(np.asarray(noise, np.float32)[indices])
            drawn = np.asarray(sampler(self.params, start, jnp.asarray(labels[indices]), keys, jumps))
            pieces.append(drawn[..., : len(labels) - first, :, :, :])
        return np.concatenate(pieces, axis=-4)

    def _sampler(self, guidance: float, renoises: bool, path: bool) -> Any:
        """The jitted sampler for these settings; but for paths, one compiled program serves every budget."""
        if (guidance, renoises, path) not in self._samplers:

            def run(
                params: Params, start: Array, label: Array, keys: Array, jumps: sampling.Jumps, count: Array
            ) -> Any:
                velocity = sampling.guided(partial(self.network.apply, params), guidance, self.network.null_label)
                fresh = keys if renoises else None
                if path:
                    return jnp.concatenate([start[None], sampling.sample_path(velocity, start, label, jumps, fresh)[1]])
                return sampling.sample_any(velocity, start, label, jumps, count, fresh)

            compiled = jax.jit(run)

            def sampler(params: Params, start: Array, label: Array, keys: Array, jumps: sampling.Jumps) -> Any:
                given = jumps if path else sampling.pad(jumps)
                return compiled(params, start, label, keys, given, np.int32(len(jumps.t)))

            self._samplers[guidance, renoises, path] = sampler
        return self._samplers[guidance, renoises, path]

    def _check_labels(self, labels: np.ndarray) -> np.ndarray:
        if labels.size and not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels are {labels.dtype}, but must be integers.")
        wrong = labels[(labels < 0) | (labels > self.num_classes)]
        if wrong.size:
            raise InputError(
                f"label {wrong.flat[0]} is unknown: labels go from 0 to {self.num_classes - 1} "
                f"({self.num_classes} stands for no label)."
            )
        return labels.astype(np.int32)


def _check_unit(name: str, value: np.ndarray) -> np.ndarray:
    if not np.all((value >= 0) & (value <= 1)):
        raise InputError(f"{name} must lie between 0 (noise for t, velocity for d) and 1, but has {value.flat[0]}.")
    return value


def _comma(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
