"""Trained weights: read from a run, ready to sample or to train on."""

from pathlib import Path
from typing import Any, Literal

import jax

from shortcut_models import catalogue, runs
from shortcut_models.checkpoint import load_newest
from shortcut_models.config import Config
from shortcut_models.errors import InputError
from shortcut_models.files import explained
from shortcut_models.model import Model
from shortcut_models.networks import Params
from shortcut_models.sharding import abstract

Weights = Literal["ema", "raw"]


def load(run: str | Path, weights: Weights = "ema", *, dtype: str = "float32") -> Model:
    """The trained network of a run folder, with the averaged ("ema") or the last ("raw") weights.

    It computes in float32, whatever it was trained in; `dtype="trained"` computes as in training.
    Raises InputError if the folder is missing, empty, unfinished or of another version.
    """
    if weights not in ("ema", "raw"):
        raise InputError(f"weights {weights!r} are unknown: use ema or raw.")
    if dtype not in ("float32", "trained"):
        raise InputError(f"dtype {dtype!r} is unknown: use float32, or trained to compute as in training.")
    folder = Path(run)
    config = runs.read_config(folder)
    network = config.model.exact() if dtype == "float32" else config.model
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    step, params = _read(folder, shapes, jax.tree.map(lambda _: here, shapes), weights)
    return Model(network, params, config.objective, runs.read_shown(folder), step=step, weights=weights)


def to_start_from(config: Config, placed: Any) -> Params | None:
    """The averaged weights of the run that `config` starts from, in the sharding `placed`; None if there is none."""
    if not config.start_from:
        return None
    shapes = jax.eval_shape(config.model.init, jax.random.key(0))
    return _read(Path(config.start_from), shapes, placed, "ema")[1]


def check_start(config: Config) -> None:
    """Raise InputError if training cannot start from the run that `config` names.

    There is none, its network is another one, or an objective that needs the velocity of a flow
    would get a network that never learnt it.
    """
    if not config.start_from:
        return
    folder = Path(config.start_from)
    there = runs.read_config(folder)
    different = config.model.differs_from(there.model)
    if different:
        lines = "".join(f"\n  model.{n}: {_of(there.model, n)} there, {_of(config.model, n)} here" for n in different)
        raise InputError(f"--start-from {folder} holds another network; use its settings here:{lines}")
    if config.objective.needs_teacher and not there.objective.learns_velocity:
        kind = catalogue.kind_of(catalogue.OBJECTIVES, there.objective)
        raise InputError(
            f"--start-from {folder} was trained with {kind}, which does not learn the velocity that is to be "
            "distilled: start from a run of an objective that does."
        )
    if runs.latest(folder) is None:
        raise InputError(f"--start-from {folder} has no whole checkpoint yet: train it further first.")


def _of(model: Any, name: str) -> Any:
    return catalogue.kind_of(catalogue.NETWORKS, model) if name == "kind" else getattr(model, name)


def _read(folder: Path, shapes: Params, placed: Any, weights: Weights) -> tuple[int, Params]:
    """Step and weights of the newest checkpoint of a run folder."""
    name = "ema" if weights == "ema" else "params"
    with explained():
        found = load_newest(folder / "checkpoints", {name: abstract(shapes, placed)})
    if found is None:
        raise InputError(f"run folder {folder} has no whole checkpoint yet: train it further first.")
    return found[0], found[1][name]
