"""Everything that decides a training run, as frozen dataclasses, and their form on disk."""

import dataclasses
import typing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from shortcut_models.errors import InputError
from shortcut_models.models.dit import DiT
from shortcut_models.objectives import OBJECTIVES, AnyObjective, Consistency, Progressive, Shortcut

KINDS = {name: type(objective) for name, objective in OBJECTIVES.items() if not name.endswith("-original")}
"""Methods by the name that they have on the command line and on disk."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) and its schedule."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: stay at the peak, or fall to 0 along half a cosine."""
    cycles: int = 1
    """Cosines one after another, of equal length: a method with stages may start each at the peak."""
    decay_steps: int = 0
    """Step at which the cosine reaches 0. Apart from max_steps, so that a run can stop early and go on."""
    beta1: float = 0.9
    """Decay of the gradient's average."""
    beta2: float = 0.999
    """Decay of the squared gradient's average."""
    weight_decay: float = 0.0
    """Decoupled decay, of matrices only: not of biases or embedding tables."""
    clip_norm: float = 0.0
    """Bound on the gradient's global norm; 0 is none."""

    def __post_init__(self) -> None:
        if self.cycles < 1:
            raise InputError(f"optimizer.cycles is {self.cycles}, but must be at least 1.")
        for name in ("learning_rate", "warmup_steps", "decay_steps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}, but must be at least 0.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}, but must be at least 0 and below 1.")
        if self.schedule == "cosine" and self.decay_steps <= self.warmup_steps:
            raise InputError(
                f"optimizer.decay_steps is {self.decay_steps}, but the cosine must end after the warm-up's "
                f"{self.warmup_steps} steps: set --optimizer.decay-steps to the number of steps that you plan to train."
            )


@dataclass(frozen=True)
class Config:
    """A training run."""

    dataset_name: str = "digits"
    """Image source."""
    batch_size: int = 64
    """Images per step, over all devices and accumulation turns."""
    max_steps: int = 1000
    """Steps to train; raise it to continue a finished run."""
    seed: int = 0
    """Of the parameters, the data order, noise and times: randomness is a function of (seed, step)."""
    ema_decay: float = 0.999
    """Decay per step of the average of the weights that sampling uses."""
    accumulation: int = 1
    """Turns in which a batch is processed, one gradient step after the last: less memory."""
    sharding: Literal["dp", "fsdp"] = "dp"
    """Copy the weights to every device, or spread them; the batch is spread in any case."""
    log_interval: int = 100
    """Steps between rows of metrics.jsonl."""
    save_interval: int = 1000
    """Steps between checkpoints; one is written at the end and on Ctrl-C in any case."""
    keep: int = 2
    """Checkpoints kept, the newest."""
    data_threads: int = 1
    """Threads that read images ahead; 0 reads between steps."""
    start_from: str = ""
    """Run folder whose averaged weights training starts from: the teacher of a method that distils, or
    a flow to be made a shortcut model. Empty: random weights."""
    tracker: Literal["none", "wandb", "tensorboard"] = "none"
    """Service that gets the metrics besides metrics.jsonl."""
    model: DiT = field(default_factory=DiT)
    """The network."""
    objective: AnyObjective = field(default_factory=Shortcut)
    """What it learns."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """How."""

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "max_steps": 1, "seed": 0, "accumulation": 1, "log_interval": 1, "save_interval": 1}
        for name, minimum in (least | {"keep": 1, "data_threads": 0}).items():
            if getattr(self, name) < minimum:
                raise InputError(f"{name} is {getattr(self, name)}, but must be at least {minimum}.")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}, but must be at least 0 and below 1.")
        if self.batch_size % self.accumulation:
            raise InputError(f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}.")
        self.objective.check(self.batch_size // self.accumulation)
        self.objective.check_length(self.max_steps * self.batch_size)
        if self.objective.needs_teacher and not self.start_from:
            raise InputError(
                f"{objective_kind(self.objective)} distils a trained flow: train one with --objective flow-matching, "
                "and name its run folder with --start-from."
            )
        end = self.optimizer.decay_steps
        if self.optimizer.schedule == "cosine" and self.max_steps > end:
            raise InputError(
                f"max_steps is {self.max_steps}, but the learning rate is 0 from step {end} on: "
                f"set optimizer.decay_steps to {self.max_steps} as well."
            )


FREE_TO_CHANGE = {"max_steps", "sharding", "log_interval", "save_interval", "keep", "data_threads", "tracker"}
"""Fields that a continued run may change, for they do not change what is learnt at a given step."""


LATER = {"model.attention": "xla"}
"""Fields that came after the first run folders, and what a file without them means."""


def with_objective(config: Config, name: str, **changes: Any) -> Config:
    """The configuration with another named objective, and other changes; raises InputError for an unknown name.

    Naming the configuration's own method keeps its settings of it. Stages are spread over the whole training.
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective {name!r} is unknown: the objectives are {', '.join(OBJECTIVES)}.")
    objective = OBJECTIVES[name]
    if KINDS.get(name) is type(config.objective):
        objective = config.objective
    if isinstance(objective, Progressive | Consistency):
        steps, size = changes.get("max_steps", config.max_steps), changes.get("batch_size", config.batch_size)
        objective = replace(objective, total_images=steps * size)
    return replace(config, objective=objective, **changes)


def objective_kind(objective: AnyObjective) -> str:
    """Its name on the command line and on disk."""
    return next(name for name, kind in KINDS.items() if type(objective) is kind)


def to_json(config: Config) -> dict[str, Any]:
    """A nested dict of plain values; the objective's method is its "kind"."""
    data = dataclasses.asdict(config)
    data["objective"] = {"kind": objective_kind(config.objective), **data["objective"]}
    return data


def from_json(data: Any) -> Config:
    """Undo `to_json`; raises InputError naming any field that this version does not know or misses."""
    if not isinstance(data, dict):
        raise InputError("its configuration is no set of fields.")
    data = dict(data)
    objective = dict(data.pop("objective", {}))
    kind = objective.pop("kind", None)
    if kind not in KINDS:
        raise InputError(f"objective.kind is {kind!r}, but this version knows {', '.join(KINDS)}.")
    data["objective"] = _build(KINDS[kind], objective, "objective.")
    return _build(Config, data, "")


def _build(cls: type, data: dict[str, Any], prefix: str) -> Any:
    names = [f.name for f in dataclasses.fields(cls)]
    later: dict[str, Any] = {n: LATER[prefix + n] for n in names if prefix + n in LATER}
    data = {**later, **data}
    if set(names) != set(data):
        odd = sorted(set(names) ^ set(data))
        raise InputError(f"the fields {', '.join(prefix + name for name in odd)} are not those of this version.")
    hints = typing.get_type_hints(cls)
    nested = {n: hints[n] for n in names if dataclasses.is_dataclass(hints[n])}
    values = {n: _build(nested[n], data[n], f"{prefix}{n}.") if n in nested else data[n] for n in names}
    return cls(**values)


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Fields, by dotted name, in which two configurations differ: (old, new)."""
    flat_old, flat_new = flatten(to_json(old)), flatten(to_json(new))
    names = [*flat_old, *(name for name in flat_new if name not in flat_old)]
    pairs = {name: (flat_old.get(name), flat_new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
