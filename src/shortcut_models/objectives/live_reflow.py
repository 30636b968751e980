"""Live reflow: flow matching and its own rectification in one network, a baseline of the shortcut paper.

Most of the batch learns the velocity at d=0. A share of it learns, at d=1, the straight line from a
noise to where `sampler_steps` Euler steps of the network's own velocity take it (Liu et al.,
"Rectified Flow", arXiv 2209.03003, with pairs made on the way instead of beforehand):

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2  +  E || s(x_t, t, 1) - sg[ X(x0) - x0 ] ||^2

with x_t = (1-t) x0 + t X(x0) in the second part. `ORIGINAL` has the constants of the official code
(`targets_livereflow.py`). There, guidance acts in every Euler step; a scale of 0 means that all
pairs are unlabelled, which we leave out.

Cost: 3 forward passes for the whole batch plus `sampler_steps` on the share, twice that with guidance.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from shortcut_models.errors import InputError, check_at_least
from shortcut_models.objectives.base import (
    Batch,
    Bootstrapped,
    Context,
    Loss,
    Metric,
    Velocity,
    check_fraction,
    check_guided_targets,
    check_levels,
)
from shortcut_models.objectives.path import (
    Times,
    draw_noise,
    drop_labels,
    interpolate,
    join_batch,
    split_batch,
    squared_error,
)
from shortcut_models.sampling import Jumps, euler_jumps, guided, sample


@dataclass(frozen=True, kw_only=True)
class LiveReflow(Bootstrapped):
    """Constants of live reflow."""

    share: float = 0.125
    """Share of the batch that learns pairs; the rest learns the velocity."""
    sampler_steps: int = 8
    """Euler steps that make a pair."""
    levels: int = 128
    """A power of two: budgets from here on follow the velocity, smaller ones the straight lines."""
    times: Times = field(default_factory=Times)
    """Distribution of t in the flow-matching part; in the other it is uniform."""
    flow_weight: float = 4.0
    """Factor on the loss of the velocity part."""
    pair_dropout: bool = True
    """Drop labels of the pairs too, without which one-step guidance has no unconditional jump."""
    guidance: float = 1.0
    """Guidance scale of the Euler steps that make a pair; 1 is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.levels)
        check_fraction("objective.share", self.share)
        check_at_least("objective.", self, {"sampler_steps": 1, "flow_weight": 0})

    @property
    def unconditional(self) -> bool:
        """Every label is dropped, those of the pairs included."""
        return super().unconditional and self.pair_dropout

    def trains_null_label_in(self, steps: int) -> bool:
        """Where the pairs keep their labels, only the velocity learns it."""
        return self.trains_null_label and (self.pair_dropout or not self.jumps(steps).d.any())

    def without_labels(self) -> Self:
        """Those of the pairs too; there is nothing to guide then."""
        return replace(super().without_labels(), pair_dropout=True, guidance=1.0)

    def check(self, batch_size: int, images: int) -> None:
        """Raise InputError unless both parts get an image."""
        super().check(batch_size, images)
        check_guided_targets(self, self.guidance)
        count = round(self.share * batch_size)
        if not 0 < count < batch_size:
            raise InputError(
                f"objective.share {self.share:g} x batch_size {batch_size} = {self.share * batch_size:g}, which leaves "
                f"{count} images to learn pairs and {batch_size - count} to learn the velocity: both need at least 1."
            )

    def jumps(self, steps: int) -> Jumps:
        """Euler steps along the straight lines (d=1), or along the velocity (d=0) from `levels` steps on."""
        jumps = euler_jumps(steps)
        return jumps if steps >= self.levels else jumps._replace(d=np.ones_like(jumps.d))

    def supports(self, steps: int) -> bool:
        """One step, or as many as the flow needs (the paper's table 1)."""
        return steps == 1 or steps >= self.levels

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `Objective`; metrics are the raw squared error of the two parts."""
        rows = batch.x1.shape[0]
        count = round(self.share * rows)
        noise_key, time_key, pair_key, label_key = jax.random.split(key, 4)
        x0 = draw_noise(noise_key, batch.x1, batch.x0)
        dropped, _ = drop_labels(label_key, batch.label, self.label_dropout, given.null_label)
        label_pair = split_batch(dropped if self.pair_dropout else batch.label, count)[0]
        label = join_batch(label_pair, split_batch(dropped, count)[1])
        (x0_pair, x0_flow), (_, x1_flow) = split_batch(x0, count), split_batch(batch.x1, count)

        t_flow = self.times.draw(time_key, rows - count)
        x_flow, v_flow = interpolate(x0_flow, x1_flow, t_flow, self.noise_floor)
        own = guided(given.target or velocity, self.guidance, given.null_label)
        x1_pair = jax.lax.stop_gradient(sample(own, x0_pair, label_pair, euler_jumps(self.sampler_steps)))
        t_pair = jax.random.randint(pair_key, (count,), 0, self.levels) / self.levels
        x_pair, _ = interpolate(x0_pair, x1_pair, t_pair, self.noise_floor)

        d = join_batch(jnp.ones_like(t_pair), jnp.zeros_like(t_flow))
        predicted = velocity(join_batch(x_pair, x_flow), join_batch(t_pair, t_flow), d, label)
        error = squared_error(predicted, join_batch(x1_pair - x0_pair, v_flow))
        parts = {f"error/d={part}": Metric(error, (d == part).astype(error.dtype)) for part in (0, 1)}
        return Loss(jnp.where(d == 0, self.flow_weight, self.weight(error)) * error, parts)


ORIGINAL = LiveReflow(
    times=Times(kind="grid", grid=128),
    adaptive_power=0.0,
    flow_weight=1.0,
    noise_floor=1e-5,
    pair_dropout=False,
    averaging="constant",
)
"""The official code's constants; its guidance scale is that of sampling, 4 by default."""
