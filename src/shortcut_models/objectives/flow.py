"""What all objectives share: the straight path, its times, the error and its weight, and their types.

Noise x0 sits at t=0, data x1 at t=1, x_t = (1-t) x0 + t x1, and the velocity is x1 - x0
(Lipman et al., "Flow Matching", arXiv 2210.02747; Liu et al., "Rectified Flow", arXiv 2209.03003).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from shortcut_models.errors import InputError
from shortcut_models.sampling import Jumps

# velocity(x, t, d, label) -> like x; a network with its parameters filled in.
Velocity = Callable[[Array, Array, Array, Array], Array]


class Metric(NamedTuple):
    """One number per example, and how much each example counts in its mean."""

    value: Float[Array, " batch"]
    weight: Float[Array, " batch"]


class Loss(NamedTuple):
    """What an objective returns: the loss of each example, unreduced, and named metrics to log."""

    per_example: Float[Array, " batch"]
    metrics: dict[str, Metric]


class Objective(Protocol):
    """A frozen dataclass of a method's constants that turns a batch into a loss.

    It knows nothing of images, devices, files or flags. A new method is a new file beside
    `shortcut.py` with a class that derives from this one, or has its shape; what is below are the
    answers of a method without teacher, stages or off-label budgets.
    """

    @property
    def target_decay(self) -> float | None:
        """Decay per step of the moving average that makes the targets; None: the weights in training."""
        return None

    @property
    def needs_teacher(self) -> bool:
        """Whether it distils a trained network, which the training starts from."""
        return False

    @property
    def learns_velocity(self) -> bool:
        """Whether the network's answer at d=0 is the velocity of the flow, which a teacher must know."""
        return True

    @property
    def needs_pairs(self) -> bool:
        """Whether the data must bring the noise x0 that belongs to each image."""
        return False

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Numbers of images, rising, at which the averaged weights become the new teacher."""
        return ()

    def check(self, batch_size: int) -> None:
        """Raise InputError, with the arithmetic, if no step can be taken with this batch size."""
        del batch_size

    def check_length(self, images: int) -> None:
        """Raise InputError, with the arithmetic, if a training on so many images cannot hold the stages."""
        del images

    def jumps(self, steps: int) -> Jumps:
        """The jumps that a network trained with this objective takes for a budget of `steps` calls."""
        ...

    def meant_for(self, steps: int) -> bool:
        """Whether the method is made for budgets of `steps` calls; tables put the others in parentheses."""
        del steps
        return True

    def __call__(
        self,
        velocity: Velocity,
        x1: Float[Array, "batch ..."],
        label: Int[Array, " batch"],
        key: Array,
        *,
        x0: Float[Array, "batch ..."] | None = None,
        target: Velocity | None = None,
        teacher: Velocity | None = None,
        images: Integer[Array, ""] | int = 0,
        null_label: int | None = None,
    ) -> Loss:
        """Loss of the network `velocity` on the data x1; all randomness comes from `key`.

        `x0` is the noise that belongs to each x1 (default: drawn from `key`). `target` makes the
        targets, without gradient (default: `velocity`); `teacher` is the network to distil. `images`
        counts those seen before, for methods with stages. `null_label` replaces dropped labels; it is
        needed as soon as labels are dropped or targets guided.
        """
        ...


@dataclass(frozen=True)
class Times:
    """How the time t of a flow-matching example is drawn."""

    kind: Literal["grid", "uniform", "logit-normal"] = "logit-normal"
    """A multiple of 1/grid below 1 (the original), anything in [0, 1), or sigmoid(mean + std * normal)."""
    grid: int = 128
    """Number of times on the grid."""
    mean: float = 0.4
    """Of the normal; positive leans to the data end. MeanFlow's -0.4 with its reversed time is 0.4 here."""
    std: float = 1.0
    """Of the normal."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise InputError(f"times.grid is {self.grid}, but a grid needs at least 1 time.")
        if self.std <= 0:
            raise InputError(f"times.std is {self.std}, but must be above 0.")

    def draw(self, key: Array, count: int) -> Float[Array, " batch"]:
        """Times in [0, 1), one per example."""
        if self.kind == "grid":
            return jax.random.randint(key, (count,), 0, self.grid) / self.grid
        if self.kind == "uniform":
            return jax.random.uniform(key, (count,))
        return jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (count,)))


def broadcast(per_example: Shaped[Array, " batch"], like: Float[Array, "batch ..."]) -> Shaped[Array, "batch ..."]:
    """Append axes of length 1, so that one number per example multiplies an array of examples."""
    return per_example.reshape(-1, *(1,) * (like.ndim - 1))


def interpolate(
    x0: Float[Array, "batch ..."], x1: Float[Array, "batch ..."], t: Float[Array, " batch"], noise_floor: float = 0.0
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch ..."]]:
    """x_t and its velocity on the path from noise x0 to data x1; `noise_floor` of x0 is left at t=1."""
    keep = 1 - noise_floor
    time = broadcast(t, x1)
    return (1 - keep * time) * x0 + time * x1, x1 - keep * x0


def clip_to(bound: float | None, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Clip to [-bound, bound]; None is no bound."""
    return x if bound is None else jnp.clip(x, -bound, bound)


def squared_error(a: Float[Array, "batch ..."], b: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """Mean squared difference of each example."""
    return jnp.mean(jnp.square(a - b).reshape(a.shape[0], -1), axis=1)


def adaptive_weight(error: Float[Array, " batch"], power: float, floor: float) -> Float[Array, " batch"]:
    """1 / (error + floor)^power, without gradient (MeanFlow, arXiv 2505.13447, section 4.3).

    Power 0 is the plain squared error. At power 1 the weighted loss is near 1 by construction,
    whatever the error: that is why the raw error is what gets logged.
    """
    return jax.lax.stop_gradient((error + floor) ** -power)


def drop_labels(
    key: Array, label: Int[Array, " batch"], rate: float, null_label: int | None
) -> tuple[Int[Array, " batch"], Bool[Array, " batch"]]:
    """Replace each label by the null label with probability `rate`; also say which were."""
    if rate == 0:
        return label, jnp.zeros(label.shape, bool)
    if null_label is None:
        raise InputError(f"label_dropout is {rate}, so a null_label is needed to replace the dropped labels.")
    dropped = jax.random.bernoulli(key, rate, label.shape)
    return jnp.where(dropped, null_label, label), dropped


def errors_by_step(
    error: Float[Array, " batch"], d: Float[Array, " batch"], levels: int, sign: str
) -> dict[str, Metric]:
    """The raw error for each range of step sizes (1/2^(k+1), 1/2^k], and for the velocity, d=0."""
    metrics = {"error/d=0": Metric(error, (d == 0).astype(error.dtype))}
    for level in range(levels.bit_length() - 2, -1, -1):
        inside = (d > 2.0 ** -(level + 1)) & (d <= 2.0**-level)
        name = f"error/d{sign}1/{2**level}" if level else f"error/d{sign}1"
        metrics[name] = Metric(error, inside.astype(error.dtype))
    return metrics


def check_pairs(objective: Objective, given: bool) -> None:
    """Raise InputError if the objective learns pairs and the data do not have them."""
    if objective.needs_pairs and not given:
        raise InputError(
            "reflow learns pairs of noise and sample, which this data set does not have: make them "
            "with `shortcut pairs RUN --out FOLDER`, and train on --dataset-name FOLDER."
        )


def check_levels(levels: int) -> None:
    """Raise InputError unless levels is a power of two from 2 up."""
    if levels < 2 or levels & (levels - 1):
        raise InputError(f"objective.levels is {levels}, but must be a power of two from 2 up, such as 128.")


def check_fraction(name: str, value: float) -> None:
    """Raise InputError unless value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}, but must lie between 0 and 1.")


def check_decay(value: float | None) -> None:
    """Raise InputError unless value is None or lies in [0, 1)."""
    if value is not None and not 0 <= value < 1:
        raise InputError(f"target_decay is {value}, but must be at least 0 and below 1 (or None, for online weights).")


def split_batch(x: Shaped[Array, "batch ..."], first: int) -> tuple[Array, Array]:
    """Split a batch into `first` examples and the rest, interleaved.

    Both parts are spread evenly over the batch, so on a sharded batch every device keeps its own.
    """
    groups = math.gcd(first, x.shape[0])
    grouped = x.reshape(groups, -1, *x.shape[1:])
    head, tail = grouped[:, : first // groups], grouped[:, first // groups :]
    return head.reshape(-1, *x.shape[1:]), tail.reshape(-1, *x.shape[1:])


def join_batch(head: Shaped[Array, "first ..."], tail: Shaped[Array, "rest ..."]) -> Shaped[Array, "batch ..."]:
    """Undo `split_batch`."""
    groups = math.gcd(head.shape[0], head.shape[0] + tail.shape[0])
    parts = [part.reshape(groups, -1, *part.shape[1:]) for part in (head, tail)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *head.shape[1:])
