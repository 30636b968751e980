"""Everything that decides a training run, as frozen dataclasses."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from shortcut_models import catalogue
from shortcut_models.data.base import Data
from shortcut_models.errors import InputError, check_at_least, check_values
from shortcut_models.networks import Network
from shortcut_models.objectives import Objective
from shortcut_models.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class Config:
    """A training run."""

    data: Data
    """What it learns from."""
    batch_size: int = 64
    """Images per step, over all devices and accumulation turns."""
    max_steps: int = 1000
    """Steps to train. Raise it to continue a finished run; one whose learning rate has fallen to 0 (schedule cosine)
    is finished for good: start a new run from it, --start-from RUN --run-dir NEW."""
    seed: int = 0
    """Of the parameters, the data order, noise and times: randomness is a function of (seed, step)."""
    ema_decay: float = 0.999
    """Decay per step of the average of the weights that sampling uses; objective.averaging says how it starts."""
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
    """What training starts from: the teacher of a method that distils, or a flow to be made a shortcut model. It is
    a run or model folder, a checkpoint of the official code, SiT or MeanFlow, or a hub's owner/name. Empty: random
    weights."""
    start_as: str = "auto"
    """What a file to start from holds, where it does not tell: sit, or the official code's --model.train_type, which
    is taken to be shortcut."""
    start_optimizer: bool = False
    """Go on with an official checkpoint's training: with its step, both sets of weights, and Adam's moments."""
    tracker: Literal["none", "wandb", "tensorboard"] = "none"
    """Service that gets the metrics besides metrics.jsonl."""
    model: Network
    """The network."""
    objective: Objective
    """What it learns."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """How."""

    def __post_init__(self) -> None:
        check_values("", self, wide=("seed",))
        least = {"batch_size": 1, "max_steps": 1, "seed": 0, "accumulation": 1, "log_interval": 1, "save_interval": 1}
        check_at_least("", self, least | {"keep": 1, "data_threads": 0})
        if self.seed >= 2**32:
            raise InputError(f"seed is {self.seed}, but must lie between 0 and {2**32 - 1}.")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}, but must be at least 0 and below 1.")
        if self.batch_size % self.accumulation:
            raise InputError(f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}.")
        if self.model.only_samples:
            kind = catalogue.kind_of(catalogue.NETWORKS, self.model)
            raise InputError(f"network {kind} is for sampling imported weights alone: choose another --model.")
        self.objective.check(self.batch_size // self.accumulation, self.images)
        self._check_levels()
        if self.objective.needs_teacher and not self.start_from:
            raise InputError(
                f"objective {catalogue.kind_of(catalogue.OBJECTIVES, self.objective)} distils a trained flow: train "
                "one with an objective that learns the velocity, and name its run folder with --start-from."
            )
        end = self.optimizer.decay_steps
        if self.optimizer.schedule == "cosine" and self.max_steps > end:
            raise InputError(
                f"max_steps is {self.max_steps}, but the learning rate is 0 from step {end} on: "
                f"set optimizer.decay_steps to {self.max_steps} as well, or, where a run has ended so, start a new one "
                "from it: --start-from RUN --run-dir NEW."
            )

    @property
    def images(self) -> int:
        """Images that the whole training sees, repeats counted."""
        return self.max_steps * self.batch_size

    def finished(self) -> "Config":
        """The configuration with the stages of its objective, if it has any, spread over the whole training.

        To be called when everything else is settled: a stage's length follows batch_size and max_steps.
        """
        return replace(self, objective=self.objective.for_length(self.images))

    def _check_levels(self) -> None:
        told, most = self.objective.levels_told, self.model.levels
        if most is not None and told > most:
            levels = getattr(self.objective, "levels", told)
            raise InputError(
                f"objective.levels is {levels}, but this network takes steps of 1/{most} and below for d=0, so that "
                f"two step sizes would be one input: use at most {levels * most // told} levels, or "
                "--model.step-conditioning smooth."
            )


FREE_TO_CHANGE = {"max_steps", "sharding", "log_interval", "save_interval", "keep", "data_threads", "tracker"}
"""Fields that a continued run may change, for they do not change what is learnt at a given step."""


def configure(
    base: Config,
    *,
    data: Data | None = None,
    model: str | None = None,
    objective: str | None = None,
    start_from: str | None = None,
) -> Config:
    """The configuration with other choices; the network takes the size of the data, if it is told where they lie.

    A choice that is the configuration's own keeps its settings of it. Data without labels are learnt without, every
    label being dropped, and so is what a configuration without labels becomes. Raises InputError, listing the
    names, for an unknown one, and if the network cannot take such data.
    """
    changes: dict[str, Any] = {}
    goal = base.objective
    if objective is not None:
        goal = choose("objective", catalogue.OBJECTIVES, objective, base.objective)
    unlabelled = data is not None and not data.unnamed and data.unlabelled
    if unlabelled or base.objective.unconditional:
        goal = goal.without_labels()
    changes["objective"] = goal
    if data is not None:
        changes["data"] = data
    if model is not None or data is not None:
        network = base.model if model is None else choose("model", catalogue.NETWORKS, model, base.model)
        chosen = data or base.data
        # Labels that are all dropped are not read, so that their number does not matter.
        dropped = goal.unconditional and not unlabelled
        classes = network.num_classes if dropped or chosen.unnamed else chosen.num_classes
        changes["model"] = network if chosen.unnamed else network.sized(chosen.shape, classes)
    if start_from is not None:
        changes["start_from"] = start_from
    return replace(base, **changes)


def choose(kind: str, names: dict[str, catalogue.Entry], name: str, own: Any = None) -> Any:
    """The choice of that name: `own` if it is one of its kind, else with the settings that the name stands for."""
    found = catalogue.find(kind, names, name)
    if not isinstance(found, type):
        return found
    return own if type(own) is found else found()


def check_fits(config: Config) -> None:
    """Raise InputError unless the network takes the data's items and has their labels, and the objective what it needs.

    Labels that are all dropped are not read, so that their number does not matter.
    """
    data, model = config.data, config.model
    if data.shape != model.shape:
        raise InputError(
            f"the data's items are {_by(data.shape)}, but the network takes {_by(model.shape)}: {_fit(data)}"
        )
    if data.num_classes != model.num_classes and not config.objective.unconditional:
        raise InputError(
            f"the data have {data.num_classes} classes, but model.num_classes is {model.num_classes}: set "
            f"--model.num-classes {data.num_classes}, or {_without_labels(config.objective)} to train without labels."
        )
    if config.objective.needs_pairs and not data.paired:
        raise InputError(
            "this objective learns pairs of noise and sample, which these data do not have: make them "
            "with `shortcut pairs RUN --out FOLDER`, and train on --data FOLDER."
        )


def _without_labels(objective: Objective) -> str:
    """The flags that drop every label: of the official recipes, those of jumps or pairs have one of their own."""
    without, names = objective.without_labels(), (own.name for own in fields(objective))
    different = [name for name in names if getattr(without, name) != getattr(objective, name)]
    return " ".join(f"--objective.{name.replace('_', '-')} {getattr(without, name):g}" for name in different)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _fit(data: Data) -> str:
    if len(data.shape) != 3:
        return "choose another --model."
    return f"set --model.image-size {data.shape[0]} --model.channels {data.shape[2]}."
