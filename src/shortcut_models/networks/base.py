"""The seam of networks: a frozen dataclass of sizes, and the pure functions that they define."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from jaxtyping import Array, Float, Int

from shortcut_models.errors import InputError

# A nested dict of arrays. Leaves named "kernel" are matrices, which the optimiser may decay alone.
Params = dict[str, Any]


@dataclass(frozen=True)
class Network(ABC):
    """A network without its parameters; whatever derives from this can be trained, sampled and measured.

    A new network is a file with a class that fills in `shape`, `init` and `apply`, a line in the
    catalogue and a test. A Flax module needs two lines: `init` returning
    `module.init(key, x, t, d, label)["params"]` and `apply` calling
    `module.apply({"params": params}, x, t, d, label)`.
    """

    computing: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how it computes, not what: a run may start from weights that were trained with others."""
    stacked: ClassVar[tuple[str, ...]] = ()
    """Top-level parameters whose leading axis is walked by a scan, and must not be split over devices."""

    only_samples: ClassVar[bool] = False
    """Whether it wraps a model of another kind, so that no training can start from its weights."""

    num_classes: int = 0
    """Number of labels; label `num_classes` is the null label of guidance."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one input x, without the batch."""

    @property
    def null_label(self) -> int:
        """The label that stands for "no label"."""
        return self.num_classes

    @property
    def levels(self) -> int | None:
        """The most levels of step sizes that it tells apart from d=0; None: any number."""
        return None

    @property
    def has_jvp(self) -> bool:
        """Whether `apply` has a forward-mode derivative."""
        return True

    @abstractmethod
    def init(self, key: Array) -> Params:
        """Draw float32 parameters, a nested dict of arrays."""

    @abstractmethod
    def apply(
        self,
        params: Params,
        x: Float[Array, "batch ..."],
        t: Float[Array, " batch"],
        d: Float[Array, " batch"],
        label: Int[Array, " batch"],
    ) -> Float[Array, "batch ..."]:
        """Velocity, shaped like x, whose jump `x + d * velocity` lands where the flow would be after d.

        t and d lie in [0, 1], t=0 is noise, d=0 asks for the instantaneous velocity. `label` lies
        in [0, num_classes]. The result is float32.
        """

    def prepare(self, params: Params) -> Params:
        """The parameters as `apply` reads them fastest when it is called many times over."""
        return params

    def exact(self) -> Self:
        """The same network, computing in float32."""
        return self

    def sized(self, shape: tuple[int, ...], num_classes: int) -> Self:
        """The same network for data of this shape with so many classes; raises InputError if it cannot be."""
        if (shape, num_classes) != (self.shape, self.num_classes):
            raise InputError(
                f"network {type(self).__name__} is for inputs of shape {self.shape} in {self.num_classes} classes, but "
                f"the data have shape {shape} and {num_classes}: choose other data, or another network."
            )
        return self

    def without_step(self, params: Params, d: float = 0.0) -> Params:
        """The parameters of a network that answers, whatever the step size, what these answer for `d`.

        For a flow that becomes a few-step model: only d=0 was ever asked of it, and what it would answer for other
        step sizes was never learnt. The step size can be learnt from there. A network without such parameters
        returns these as they are.
        """
        del d
        return params

    def with_classes(self, params: Params, labels: Sequence[int]) -> Params:
        """The parameters for other labels, the null label the last: each starts from that one of these labels.

        -1 stands for the mean of all classes. Raises InputError if it cannot be done.
        """
        del params
        raise InputError(
            f"this network cannot be given {len(labels) - 1} classes in place of {self.num_classes}: use data of the "
            "same."
        )

    def as_computed_by(self, other: Self) -> Self:
        """The same network with the other's way of computing."""
        return replace(self, **{name: getattr(other, name) for name in self.computing})

    def differs_from(self, other: "Network") -> list[str]:
        """Names of the fields in which two networks are not the same, the way of computing apart."""
        if type(self) is not type(other):
            return ["kind"]
        names = [field.name for field in fields(self) if field.name not in self.computing]
        return [name for name in names if getattr(self, name) != getattr(other, name)]
