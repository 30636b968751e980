"""The seam of objectives: what one is given, what it returns, and the fields that all methods share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from shortcut_models.errors import InputError, check_above_zero, check_at_least, check_values
from shortcut_models.objectives.path import adaptive_weight
from shortcut_models.sampling import Jumps

# velocity(x, t, d, label) -> like x; a network with its parameters filled in.
Velocity = Callable[[Array, Array, Array, Array], Array]


class Batch(NamedTuple):
    """What a step learns from."""

    x1: Float[Array, "batch ..."]
    """Data, in the network's range."""
    label: Int[Array, " batch"]
    """Class of each."""
    x0: Float[Array, "batch ..."] | None = None
    """The noise that belongs to each x1, for data in pairs; None: drawn afresh."""


class Context(NamedTuple):
    """What else a method may be given. A new need is one field here, and no method's signature changes."""

    target: Velocity | None = None
    """The network with the weights that make the targets, without gradient; None: the weights in training."""
    teacher: Velocity | None = None
    """The network to distil."""
    images: Integer[Array, ""] | int = 0
    """Images seen before this step, for methods with stages."""
    null_label: int | None = None
    """The label that replaces dropped ones; needed as soon as labels are dropped or targets are guided."""


class Metric(NamedTuple):
    """One number per example, and how much each example counts in its mean."""

    value: Float[Array, " batch"]
    weight: Float[Array, " batch"]


class Loss(NamedTuple):
    """What an objective returns: the loss of each example, unreduced, and named metrics to log."""

    per_example: Float[Array, " batch"]
    metrics: dict[str, Metric]


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A method: its constants, and how it turns a batch into a loss.

    It knows nothing of images, devices, files or flags. A new method is a file with a class derived
    from this one, which fills in `jumps` and `__call__`, a line in the catalogue and a test.
    """

    needs_teacher: ClassVar[bool] = False
    """Whether it distils a trained network, which the training starts from."""
    needs_pairs: ClassVar[bool] = False
    """Whether the data must bring the noise x0 that belongs to each image."""
    learns_velocity: ClassVar[bool] = True
    """Whether the network's answer at d=0 is the velocity of the flow, which a teacher must know."""
    restarts: ClassVar[bool] = False
    """Whether each of its stages is a training of its own, with the network so far as the new teacher."""

    label_dropout: float = 0.1
    """Share of the labels replaced by the null label, which guidance needs; 1 trains without labels."""
    adaptive_power: float = 1.0
    """p of the weight 1 / (error + floor)^p; 0 is the plain squared error."""
    adaptive_floor: float = 0.01
    """Floor of that weight."""
    noise_floor: float = 0.0
    """Share of the noise left at t=1; 1e-5 in the original."""
    averaging: Literal["growing", "constant"] = "growing"
    """How averages of the weights start: with a decay that grows as (1+k)/(10+k) up to its value, k steps
    into the training or its stage, so that no trace of the initial weights is left; or with the constant
    decay of the original, of which a short training keeps decay^steps of the initial weights."""

    def __post_init__(self) -> None:
        check_values("objective.", self, wide=("total_images",))
        check_fraction("objective.label_dropout", self.label_dropout)
        check_at_least("objective.", self, {"adaptive_power": 0, "noise_floor": 0})
        check_above_zero("objective.", self, "adaptive_floor")
        if self.adaptive_power * -math.log10(self.adaptive_floor) > 30:  # Devices have numbers up to 10^38.
            raise InputError(
                f"objective.adaptive_floor {self.adaptive_floor:g} and objective.adaptive_power "
                f"{self.adaptive_power:g} make weights of up to floor^-power, which is too large: raise the floor, or "
                "lower the power, which is 1 by default."
            )
        if self.noise_floor >= 1:
            raise InputError(f"objective.noise_floor is {self.noise_floor}, but must be below 1.")

    @property
    def target_average(self) -> float | None:
        """Decay per step of the average whose weights make the targets; None: the weights in training."""
        return None

    @property
    def num_stages(self) -> int:
        """Equal stages of the training; 1 for most methods."""
        return 1

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Numbers of images, rising, at which the network so far becomes the new teacher."""
        return ()

    @property
    def averaged_teacher(self) -> bool:
        """Whether the new teacher is the averaged weights; else those in training."""
        return True

    @property
    def levels_told(self) -> int:
        """A power of two: the network is told jumps as short as 2/levels or so; 0 if it is told none."""
        return 0

    @property
    def unconditional(self) -> bool:
        """Whether every label is dropped, so that the network never sees one."""
        return self.label_dropout == 1

    @property
    def trains_null_label(self) -> bool:
        """Whether the network learns to answer without a label, which guidance pushes away from."""
        return self.label_dropout > 0

    def trains_null_label_in(self, steps: int) -> bool:
        """Whether it learns so too for the jumps that a budget of `steps` takes."""
        del steps
        return self.trains_null_label

    def without_labels(self) -> Self:
        """The same with every label dropped, as for data that have none."""
        return replace(self, label_dropout=1.0)

    def for_length(self, images: int) -> Self:
        """The objective with its stages spread over a training on so many images, unless that is set already."""
        del images
        return self

    def check(self, batch_size: int, images: int) -> None:
        """Raise InputError, with the arithmetic, if this batch size or a training on so many images cannot work."""
        del batch_size, images

    @abstractmethod
    def jumps(self, steps: int) -> Jumps:
        """The jumps that a network trained with this objective takes for a budget of `steps` calls."""

    def supports(self, steps: int) -> bool:
        """Whether the method is made for budgets of `steps` calls; tables put the others in parentheses."""
        del steps
        return True

    @abstractmethod
    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """Loss of the network `velocity` on a batch; all randomness comes from `key`."""

    def weight(self, error: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The adaptive weight of each example's error, without gradient."""
        return adaptive_weight(error, self.adaptive_power, self.adaptive_floor)


@dataclass(frozen=True, kw_only=True)
class Bootstrapped(Objective):
    """A method whose targets are made by its own network, with averaged weights or those in training."""

    target_decay: float | None = None
    """Decay per step of the average that makes the targets; None: the weights in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_decay is not None and not 0 <= self.target_decay < 1:
            raise InputError(
                f"objective.target_decay is {self.target_decay}, but must be at least 0 and below 1 "
                "(or None, for the weights in training)."
            )

    @property
    def target_average(self) -> float | None:
        """The field."""
        return self.target_decay


def errors_by_step(
    error: Float[Array, " batch"], d: Float[Array, " batch"], levels: int, sign: str
) -> dict[str, Metric]:
    """The raw error for each range of step sizes (1/2^(k+1), 1/2^k], and for the velocity, d=0.

    The lowest range, up to 2/levels, has whatever is shorter as well.
    """
    metrics, finest = {"error/d=0": Metric(error, (d == 0).astype(error.dtype))}, levels.bit_length() - 2
    for level in range(finest, -1, -1):
        inside = (d > (2.0 ** -(level + 1) if level < finest else 0)) & (d <= 2.0**-level)
        name = f"error/d{sign}1/{2**level}" if level else f"error/d{sign}1"
        metrics[name] = Metric(error, inside.astype(error.dtype))
    return metrics


def only_velocity(error: Float[Array, " batch"]) -> dict[str, Metric]:
    """The raw error of the velocity, the only metric of methods without jumps."""
    return {"error/d=0": Metric(error, jnp.ones_like(error))}


MOST_LEVELS = 2**20
"""Multiples of 1/levels are exact in float32 far beyond, but no sampler takes so many steps."""


def check_levels(levels: int) -> None:
    """Raise InputError unless levels is a power of two that can be counted."""
    if not 2 <= levels <= MOST_LEVELS or levels & (levels - 1):
        raise InputError(
            f"objective.levels is {levels}, but must be a power of two from 2 to {MOST_LEVELS:,}, such as 128."
        )


def check_fraction(name: str, value: float) -> None:
    """Raise InputError unless value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}, but must lie between 0 and 1.")


def check_guided_targets(objective: Objective, guidance: float) -> None:
    """Raise InputError if a network guides its own targets by answers that it never learns."""
    if guidance != 1 and not 0 < objective.label_dropout < 1:
        lacks, drop = ("without a label", "some") if objective.label_dropout == 0 else ("for a label", "fewer")
        raise InputError(
            f"objective.guidance is {guidance}, but with objective.label_dropout {objective.label_dropout:g} the "
            f"network never learns to answer {lacks}, which guided targets need: use guidance 1, or drop {drop} labels."
        )


def require_teacher(method: str, teacher: Velocity | None) -> Velocity:
    """The teacher; raises InputError if there is none."""
    if teacher is None:
        raise InputError(f"{method} needs a teacher: the network of a trained flow, as Context.teacher.")
    return teacher
