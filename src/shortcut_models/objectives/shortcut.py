"""Shortcut models (Frans et al., "One Step Diffusion via Shortcut Models", arXiv 2410.12557).

Most of the batch learns the instantaneous velocity; a share of it, the bootstrap, learns that one
jump of length d must land where two jumps of half that length do (the paper's equation 5):

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2  +  E || s(x_t, t, d) - sg[target] ||^2
    target = g s(x_t, t, g d) + (1 - g) s(x', t + g d, (1 - g) d),   x' = x_t + g d s(x_t, t, g d)

with g = 1/2 in the paper and anywhere in (0, 1) with `split="random"` (SplitMeanFlow, arXiv
2507.16884; "PSD-U" in arXiv 2505.18825). `ORIGINAL` is the authors' recipe; the defaults of
`Shortcut` carry the remedies found since, each a setting, measured one by one in docs/ladder.md.

Cost: 3 forward passes for the whole batch plus 2 on the bootstrap share.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from shortcut_models.errors import InputError, check_above_zero, check_at_least
from shortcut_models.objectives.base import (
    Batch,
    Bootstrapped,
    Context,
    Loss,
    Velocity,
    check_fraction,
    check_guided_targets,
    check_levels,
    errors_by_step,
)
from shortcut_models.objectives.path import (
    Times,
    broadcast,
    clip_to,
    draw_noise,
    drop_labels,
    interpolate,
    join_batch,
    split_batch,
    squared_error,
)
from shortcut_models.sampling import Jumps, dyadic_jumps, uniform_jumps

Rows = Float[Array, " rows"]


@dataclass(frozen=True, kw_only=True)
class Shortcut(Bootstrapped):
    """Constants of the shortcut objective."""

    share: float = 0.25
    """Share of the batch that learns jumps; the rest learns the velocity. 1/8 in the original's code."""
    levels: int = 128
    """A power of two: dyadic jumps go down to 1/levels, which is taken as the velocity (d=0)."""
    step_sizes: Literal["dyadic", "continuous"] = "dyadic"
    """Jumps of length 1, 1/2, 1/4, ... at multiples of their length; or any length in [1/levels, 1]."""
    longer: bool = False
    """Draw long jumps more often. Continuous ones: every length is as likely, where else every octave is. Dyadic ones,
    as bootstrap_dt_bias of the original: the n - 2 shortest 1/2n of the time each, 1/2 a quarter, and 1 the rest."""
    split: Literal["half", "random"] = "half"
    """Where the target's two jumps meet; "random" needs continuous step sizes."""
    target_decay: float | None = 0.99
    """Decay per step of the average whose weights make the targets; None: the weights in training."""
    times: Times = field(default_factory=Times)
    """Distribution of t in the flow-matching part."""
    adaptive_flow: bool = False
    """Weight the velocity part by its own error too, as MeanFlow does. Its target is noisy, unlike a
    jump's, so that this shifts the mean that is learnt; examples/points.py shows it in two dimensions."""
    flow_weight: float = 1.0
    """Factor on the loss of the velocity part."""
    bootstrap_dropout: bool = True
    """Drop labels in the bootstrap too, without which few-step guidance has no unconditional jumps."""
    overlap: bool = False
    """Learn the velocity of the bootstrap's images too, and leave out as many others, as the original's code does;
    else every image of a batch is used, once."""
    guidance: float = 1.0
    """Guidance scale in the targets of the finest dyadic jumps; longer ones inherit it. 1 is none."""
    clip: float | None = None
    """Bound on the target and on the point between its two jumps; 4 in the original."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("objective.share", self.share)
        check_levels(self.levels)
        check_at_least("objective.", self, {"flow_weight": 0})
        check_above_zero("objective.", self, "clip")
        if self.step_sizes == "dyadic" and self.split == "random":
            raise InputError(
                "objective.split 'random' leaves the dyadic grid: use it with objective.step_sizes continuous."
            )
        if self.step_sizes == "continuous" and self.guidance != 1:
            raise InputError(
                f"objective.guidance {self.guidance} acts at the finest dyadic jump, which continuous step "
                "sizes do not have: use objective.step_sizes dyadic, or guide when sampling."
            )

    def bootstrap_size(self, batch_size: int) -> int:
        """Number of examples in a batch that learn jumps."""
        wanted = self.share * batch_size
        return round(wanted) or int(wanted >= 0.5)  # Half an example alone is one: Python rounds it to 0.

    @property
    def levels_told(self) -> int:
        """All."""
        return self.levels

    @property
    def unconditional(self) -> bool:
        """Every label is dropped, those of the bootstrap included."""
        return super().unconditional and self.bootstrap_dropout

    def trains_null_label_in(self, steps: int) -> bool:
        """Where labels stay in the bootstrap, only the velocity learns it."""
        return self.trains_null_label and (self.bootstrap_dropout or not self.jumps(steps).d.any())

    def without_labels(self) -> Self:
        """Those of the bootstrap too; there is nothing to guide then."""
        return replace(super().without_labels(), bootstrap_dropout=True, guidance=1.0)

    def check(self, batch_size: int, images: int) -> None:
        """Raise InputError if the share leaves no example for one of the two parts.

        Levels need no check: they are spread evenly over the bootstrap rows from a random offset,
        so even one row a step visits every level equally often.
        """
        super().check(batch_size, images)
        check_guided_targets(self, self.guidance)
        count = self.bootstrap_size(batch_size)
        arithmetic = f"objective.share {self.share:g} x batch_size {batch_size} = {self.share * batch_size:g}"
        if self.share == 0:
            raise InputError(
                f"{arithmetic} images that learn jumps: use a share above 0, or an objective without jumps."
            )
        if count < 1:
            raise InputError(
                f"{arithmetic}, which rounds to 0 images that learn jumps: use a batch_size of at "
                f"least {math.ceil(0.5 / self.share)} or a larger share, or an objective without jumps."
            )
        if count >= batch_size:
            raise InputError(
                f"{arithmetic}, which leaves 0 of {batch_size} images to learn the velocity that every "
                "jump is built from: use a smaller share."
            )

    def jumps(self, steps: int) -> Jumps:
        """Trained jumps only: dyadic and aligned, or any even grid if step sizes are continuous."""
        if self.step_sizes == "continuous":
            return uniform_jumps(steps)
        return dyadic_jumps(steps, self.levels)

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `Objective`; metrics are the raw squared error for each range of step sizes."""
        rows = batch.x1.shape[0]
        count = self.bootstrap_size(rows)
        noise_key, label_key, time_key, jump_key = jax.random.split(key, 4)
        x0 = draw_noise(noise_key, batch.x1, batch.x0)
        dropped, _ = drop_labels(label_key, batch.label, self.label_dropout, given.null_label)
        seen = split_batch(dropped if self.bootstrap_dropout else batch.label, count)[0]
        x1_jump, x1_flow = split_batch(batch.x1, count, self.overlap)
        # Only noise that belongs to an image goes with it: what is drawn is fresh for each use.
        x0_jump, x0_flow = split_batch(x0, count, self.overlap and batch.x0 is not None)

        t_flow = self.times.draw(time_key, rows - count)
        x_flow, v_flow = interpolate(x0_flow, x1_flow, t_flow, self.noise_floor)
        t_jump, d_jump, meet = self._draw_jumps(jump_key, count)
        x_jump, _ = interpolate(x0_jump, x1_jump, t_jump, self.noise_floor)
        v_jump = self._target(given.target or velocity, x_jump, t_jump, d_jump, meet, seen, given.null_label)

        # One call of the network for both parts.
        d = join_batch(d_jump, jnp.zeros_like(t_flow))
        label = join_batch(seen, split_batch(dropped, count, self.overlap)[1])
        predicted = velocity(join_batch(x_jump, x_flow), join_batch(t_jump, t_flow), d, label)
        error = squared_error(predicted, join_batch(v_jump, v_flow))
        weight = self.weight(error)
        flow = self.flow_weight * (weight if self.adaptive_flow else jnp.ones_like(weight))
        sign = "=" if self.step_sizes == "dyadic" else "<="
        return Loss(jnp.where(d == 0, flow, weight) * error, errors_by_step(error, d, self.levels, sign))

    def _draw_jumps(self, key: Array, count: int) -> tuple[Rows, Rows, Rows]:
        """Start t, length d, and the share of d at which the target's two jumps meet."""
        offset_key, time_key, meet_key = jax.random.split(key, 3)
        # Evenly spread from a random offset: row i of n draws from the i-th n-th of the range.
        spread = (jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(offset_key)) / count
        uniform = jax.random.uniform(time_key, (count,))
        half = jnp.full((count,), 0.5)
        finest = self.levels.bit_length() - 1
        if self.step_sizes == "continuous":
            d = 2.0 ** (-finest * (1 - spread))
            if self.longer:
                d = (1 + (self.levels - 1) * spread) / self.levels
            meet = jax.random.uniform(meet_key, (count,)) if self.split == "random" else half
            return (1 - d) * uniform, d, meet
        # The finest level first, as `_target` expects; d = 2/levels is the shortest jump built of two.
        position = spread * finest
        if self.longer:
            short = (finest - 2) / (2 * finest)
            long = jnp.where(spread < short + 0.25, finest - 2.0, finest - 1.0)
            position = jnp.where(spread < short, 2 * position, long)
        level = jnp.clip(finest - 1 - jnp.floor(position), 0, finest - 1)
        sections = 2.0**level
        return jnp.floor(uniform * sections) / sections, 1 / sections, half

    def _target(
        self,
        network: Velocity,
        x: Float[Array, "rows ..."],
        t: Rows,
        d: Rows,
        meet: Rows,
        label: Int[Array, " rows"],
        null_label: int | None,
    ) -> Float[Array, "rows ..."]:
        """Mean velocity over two jumps that meet at the share `meet` of d."""
        first, second = meet * d, (1 - meet) * d
        v1 = self._half(network, x, t, first, label, null_label)
        between = clip_to(self.clip, x + broadcast(first, x) * v1)
        v2 = self._half(network, between, t + first, second, label, null_label)
        share = broadcast(meet, x)
        return jax.lax.stop_gradient(clip_to(self.clip, share * v1 + (1 - share) * v2))

    def _half(
        self,
        network: Velocity,
        x: Float[Array, "rows ..."],
        t: Rows,
        d: Rows,
        label: Int[Array, " rows"],
        null_label: int | None,
    ) -> Float[Array, "rows ..."]:
        finest = d <= 1 / self.levels
        if self.step_sizes == "dyadic":
            d = jnp.where(finest, 0.0, d)
        if self.guidance == 1:
            return network(x, t, d, label)
        if null_label is None:
            raise InputError(f"objective.guidance is {self.guidance}, so a null_label is needed.")
        # Rows of the finest level come first and number at most this many; only they are guided.
        head = math.ceil(len(t) / (self.levels.bit_length() - 1))
        unlabelled = jnp.full((head,), null_label, label.dtype)
        both = network(
            jnp.concatenate([x, x[:head]]),
            jnp.concatenate([t, t[:head]]),
            jnp.concatenate([d, d[:head]]),
            jnp.concatenate([label, unlabelled]),
        )
        conditional, unconditional = both[: len(t)], both[len(t) :]
        guided = unconditional + self.guidance * (conditional[:head] - unconditional)
        guided = jnp.where(broadcast(finest[:head], x[:head]), guided, conditional[:head])
        return jnp.concatenate([guided, conditional[head:]])


ORIGINAL = Shortcut(
    share=1 / 8,
    target_decay=0.999,
    times=Times(kind="grid", grid=128),
    adaptive_power=0.0,
    bootstrap_dropout=False,
    clip=4.0,
    noise_floor=1e-5,
    averaging="constant",
)
"""The official code's defaults. With guided targets, as its ImageNet commands: replace(ORIGINAL, guidance=1.5)."""
