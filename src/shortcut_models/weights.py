"""Trained weights, read from a run, a model folder, the official code or a hub, as a model to sample from."""

from pathlib import Path
from typing import Any, Literal

import jax

from shortcut_models import model_folder, runs
from shortcut_models.checkpoint import load_newest
from shortcut_models.data.base import Data
from shortcut_models.errors import InputError
from shortcut_models.files import explained
from shortcut_models.interop import hub
from shortcut_models.interop.diffusers_folder import holds_diffusers
from shortcut_models.interop.file_bytes import reading
from shortcut_models.interop.importing import Imported, format_of, read_weights
from shortcut_models.interop.official import holds_checkpoint
from shortcut_models.interop.samplers import data_of, objective_of
from shortcut_models.model import Model
from shortcut_models.networks import Params
from shortcut_models.objectives import Objective
from shortcut_models.sharding import abstract

Weights = Literal["ema", "raw"]


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
    if not isinstance(source, str | Path) or not str(source):
        raise InputError(f"{source!r} is no path: name a run, a model folder, a checkpoint or a hub's owner/name.")
    path = Path(source)
    with explained():  # The system does not answer whether there is a name that is too long.
        official = is_official(path)
    if official:
        imported = read_weights(path, format="official", num_heads=num_heads, image_size=image_size, weights=weights)
        return as_model(imported)
    if hub.is_id(source) or model_folder.is_model_folder(path):
        found = model_folder.from_pretrained(source, dtype=dtype)
        if weights == "raw" and found.weights != "raw":
            raise InputError(f"{source} holds the weights {found.weights}, not raw ones: leave --weights out.")
    else:
        found = _load_run(path, weights, dtype)
    for name, given in (("num_heads", num_heads), ("image_size", image_size)):
        if given is not None and given != getattr(found.network, name, None):
            raise InputError(f"{name} {given} is not that of {source}: leave it out, its configuration tells.")
    return found


def as_model(imported: Imported, objective: Objective | None = None) -> Model:
    """Weights of another program as a model, sampled as they were trained to be, or by `objective`."""
    return Model(
        imported.network,
        imported.params,
        objective or objective_of(imported),
        data_of(imported),
        step=imported.step or 0,
        weights=imported.about["weights"],
    )


def read_shown(source: str | Path) -> Data:
    """The data that the samples of what `load` takes are to be compared with, without its weights if they say so."""
    path = Path(source)
    if is_official(path):
        return load(path).data
    if hub.is_id(source) or model_folder.is_model_folder(path):
        return model_folder.read_data(source)
    return runs.read_shown(path)


def folder_of(source: str | Path) -> Path:
    """Where results about a model go by default: its own folder, or the working directory for one on the hub."""
    path = Path(source)
    if path.is_file():
        return path.parent
    return Path() if hub.is_id(source) else path


def is_official(path: Path) -> bool:
    """Whether to read it as a checkpoint of the official code: a file, or a folder with its file inside."""
    if holds_checkpoint(path):
        return True
    is_folder = path.is_dir() and not model_folder.is_model_folder(path) and holds_diffusers(path)
    if is_folder or (path.is_file() and format_of(path) != "official"):
        raise InputError(f"{path} is of another program: make a model folder of it with `shortcut import`.")
    return path.is_file()


def _load_run(folder: Path, weights: Weights, dtype: str) -> Model:
    config = runs.read_config(folder)
    network = config.model.exact() if dtype == "float32" else config.model
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with reading(folder / "run.json"):
        shapes = model_folder.shapes_of(network)
    step, params = read_run(folder, shapes, jax.tree.map(lambda _: here, shapes), weights)
    return Model(network, params, config.objective, runs.read_shown(folder), step=step, weights=weights)


def read_run(folder: Path, shapes: Params, placed: Any, weights: Weights) -> tuple[int, Params]:
    """Step and weights of the newest checkpoint of a run folder."""
    name = "ema" if weights == "ema" else "params"
    with explained():
        found = load_newest(folder / "checkpoints", {name: abstract(shapes, placed)})
    if found is None:
        raise InputError(f"run folder {folder} has no whole checkpoint yet: train it further first.")
    return found[0], found[1][name]
