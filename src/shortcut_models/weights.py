"""Trained weights: read from a run, a model folder, the official code or a hub, to sample or to train on."""

from pathlib import Path
from typing import Any, Literal

import jax

from shortcut_models import catalogue, model_folder, runs
from shortcut_models.checkpoint import load_newest
from shortcut_models.config import Config
from shortcut_models.data.base import Data
from shortcut_models.errors import InputError
from shortcut_models.files import explained
from shortcut_models.interop.importing import Imported, read_weights
from shortcut_models.interop.samplers import Sampler, data_of, objective_of
from shortcut_models.model import Model
from shortcut_models.networks import Network, Params
from shortcut_models.objectives import Objective
from shortcut_models.sharding import abstract

Weights = Literal["ema", "raw"]


PYTORCH = (".pt", ".pth", ".bin", ".safetensors")
"""Endings of files that are no checkpoint of the official code."""


def load(
    source: str | Path,
    weights: Weights = "ema",
    num_heads: int | None = None,
    image_size: int | None = None,
    *,
    dtype: str = "float32",
) -> Model:
    """A trained model: of a run folder, a model folder, a checkpoint of the official code, or a hub's `owner/name`.

    Args:
        source: What to load; a path that exists goes before a repository of that name.
        weights: The averaged ("ema") or the last ("raw") weights. A model folder holds one of them, and
            answers "ema" with what it holds, which `Model.weights` says.
        num_heads: Attention heads of an official checkpoint, for sizes other than the published ones.
        image_size: Side of the network's input, where an official checkpoint does not tell.
        dtype: It computes in float32, whatever it was trained in; "trained" computes as in training.

    Raises:
        InputError: It is missing, empty, unfinished, damaged, of another version or of another kind.
    """
    if weights not in ("ema", "raw"):
        raise InputError(f"weights {weights!r} are unknown: use ema or raw.")
    if dtype not in ("float32", "trained"):
        raise InputError(f"dtype {dtype!r} is unknown: use float32, or trained to compute as in training.")
    path = Path(source)
    if _is_official(path):
        imported = read_weights(path, format="official", num_heads=num_heads, image_size=image_size, weights=weights)
        return as_model(imported)
    if model_folder.is_hub_id(source) or model_folder.is_model_folder(path):
        found = model_folder.from_pretrained(source, dtype=dtype)
        if weights == "raw" and found.weights != "raw":
            raise InputError(f"{source} holds the weights {found.weights}, not raw ones: leave --weights out.")
    else:
        found = _load_run(path, weights, dtype)
    for name, given in (("num_heads", num_heads), ("image_size", image_size)):
        if given is not None and given != getattr(found.network, name, None):
            raise InputError(f"{name} {given} is not that of {source}: leave it out, its configuration tells.")
    return found


def as_model(imported: Imported) -> Model:
    """Weights of another program as a model, sampled as they were trained to be."""
    return Model(
        imported.network,
        imported.params,
        objective_of(imported),
        data_of(imported),
        step=imported.step or 0,
        weights=imported.about["weights"],
    )


def read_shown(source: str | Path) -> Data:
    """The data that the samples of what `load` takes are to be compared with, without its weights if they say so."""
    path = Path(source)
    if _is_official(path):
        return load(path).data
    if model_folder.is_hub_id(source) or model_folder.is_model_folder(path):
        return model_folder.read_data(source)
    return runs.read_shown(path)


def folder_of(source: str | Path) -> Path:
    """Where results about a model go by default: its own folder, or the working directory for one on the hub."""
    path = Path(source)
    if path.is_file():
        return path.parent
    return Path() if model_folder.is_hub_id(source) else path


def _is_official(path: Path) -> bool:
    """Whether to read it as a checkpoint of the official code: a file, or a folder with its file inside."""
    if path.is_file():
        if path.suffix in PYTORCH:
            raise InputError(f"{path} is of another program: make a model folder of it with `shortcut import`.")
        return True
    return (path / f"{path.name}.tmp").is_file()


def _load_run(folder: Path, weights: Weights, dtype: str) -> Model:
    config = runs.read_config(folder)
    network = config.model.exact() if dtype == "float32" else config.model
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    step, params = _read(folder, shapes, jax.tree.map(lambda _: here, shapes), weights)
    return Model(network, params, config.objective, runs.read_shown(folder), step=step, weights=weights)


def to_start_from(config: Config, placed: Any) -> Params | None:
    """The weights that `config` starts from, a run's averaged ones or a model folder's, placed as `placed`; or None."""
    if not config.start_from:
        return None
    folder = Path(config.start_from)
    if model_folder.is_model_folder(folder):
        return jax.device_put(model_folder.read_params(folder), placed)
    shapes = jax.eval_shape(config.model.init, jax.random.key(0))
    return _read(folder, shapes, placed, "ema")[1]


def check_start(config: Config) -> None:
    """Raise InputError if training cannot start from the run or model folder that `config` names.

    There is none, its network is another one, or an objective that needs the velocity of a flow
    would get a network that never learnt it.
    """
    if not config.start_from:
        return
    folder = Path(config.start_from)
    is_run = not model_folder.is_model_folder(folder)
    there, objective = _start(folder) if is_run else model_folder.read_start(folder)
    if not is_run and isinstance(objective, Sampler) and there.differs_from(config.model) == ["kind"]:
        raise InputError(
            f"--start-from {folder} holds a network that can only be sampled: draw pairs from it with "
            "`shortcut pairs`, and train on those."
        )
    different = config.model.differs_from(there)
    if different:
        lines = "".join(f"\n  model.{n}: {_of(there, n)} there, {_of(config.model, n)} here" for n in different)
        raise InputError(f"--start-from {folder} holds another network; use its settings here:{lines}")
    if config.objective.needs_teacher and not objective.learns_velocity:
        kind = catalogue.kind_of(model_folder.SAMPLED_BY, objective)
        raise InputError(
            f"--start-from {folder} was trained with {kind}, which does not learn the velocity that is to be "
            "distilled: start from a run of an objective that does."
        )
    if is_run and runs.latest(folder) is None:
        raise InputError(f"--start-from {folder} has no whole checkpoint yet: train it further first.")


def _start(folder: Path) -> tuple[Network, Objective]:
    config = runs.read_config(folder)
    return config.model, config.objective


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
