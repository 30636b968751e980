"""A run folder: run.json (configuration, versions, commit), metrics.jsonl and checkpoints/."""

import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax

from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import FREE_TO_CHANGE, Config, differences, from_json, objective_kind, to_json
from shortcut_models.errors import InputError
from shortcut_models.files import write_json
from shortcut_models.model import Model
from shortcut_models.models import Params

FORMAT = 1
"""Raised when run.json or the checkpoints change in a way that older code cannot read."""

Weights = Literal["ema", "raw"]
Result = TypeVar("Result")


def load(run: str | Path, weights: Weights = "ema") -> Model:
    """The trained network of a run folder, with the averaged ("ema") or the last ("raw") weights.

    Raises InputError if the folder is missing, empty, unfinished or of another version.
    """
    if weights not in ("ema", "raw"):
        raise InputError(f"weights {weights!r} are unknown: use ema or raw.")
    folder = Path(run)
    config = read_config(folder)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(config.model.init, jax.random.key(0))
    step, params = _read_weights(folder, shapes, jax.tree.map(lambda _: here, shapes), weights)
    return Model(config.model, params, config.objective, step=step, weights=weights)


def start_weights(config: Config, placed: Any) -> Params | None:
    """The averaged weights of the run that `config` starts from, in the sharding `placed`; None if there is none."""
    if not config.start_from:
        return None
    shapes = jax.eval_shape(config.model.init, jax.random.key(0))
    return _read_weights(Path(config.start_from), shapes, placed, "ema")[1]


def check_start(config: Config) -> None:
    """Raise InputError if training cannot start from the run that `config` names.

    There is none, its network is another one, or an objective that needs the velocity of a flow
    would get a network that never learnt it.
    """
    if not config.start_from:
        return
    folder = Path(config.start_from)
    there = read_config(folder)
    same = replace(there.model, scan=config.model.scan, remat=config.model.remat, dtype=config.model.dtype)
    if same != config.model:
        names = [f.name for f in fields(same) if getattr(same, f.name) != getattr(config.model, f.name)]
        lines = "".join(f"\n  model.{n}: {getattr(same, n)} there, {getattr(config.model, n)} here" for n in names)
        raise InputError(f"--start-from {folder} holds another network; use its settings here:{lines}")
    if config.objective.needs_teacher and not there.objective.learns_velocity:
        raise InputError(
            f"--start-from {folder} was trained with {objective_kind(there.objective)}, which does not learn the "
            "velocity that is to be distilled: start from a run of flow-matching or shortcut."
        )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.latest is None:
            raise InputError(f"--start-from {folder} has no whole checkpoint yet: train it further first.")


def _read_weights(folder: Path, shapes: Params, placed: Any, weights: Weights) -> tuple[int, Params]:
    """Step and weights of the newest checkpoint of a run folder."""
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step = checkpoints.latest
        if step is None:
            raise InputError(f"run folder {folder} has no whole checkpoint yet: train it further first.")
        name = "ema" if weights == "ema" else "params"
        where = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, placed)
        return step, checkpoints.load(step, {name: where})[name]


def create_or_check(folder: Path, config: Config, command: str) -> None:
    """Start a run in a new or empty folder, or make sure that the run in there is this one.

    Raises InputError, listing the fields, if its configuration differs in more than may change, and
    for a new run that cannot start from the run that it should, see `check_start`.
    """
    path = folder / "run.json"
    if not path.exists():
        check_start(config)  # Only now: what has started goes on without the run that it started from.
        on_first_process(lambda: _create(path, config, command), None)
        return
    old = read_config(folder)
    different = differences(old, config)
    refused = [name for name in different if name not in FREE_TO_CHANGE]
    if refused:
        lines = "".join(f"\n  {name}: {different[name][0]} in the run, {different[name][1]} now" for name in refused)
        raise InputError(f"{folder} holds a run with other settings; use those, or another --run-dir:{lines}")
    if different:
        on_first_process(lambda: _write(path, config, command), None)


def read(folder: Path) -> dict[str, Any]:
    """run.json of a run folder; raises InputError if it is missing, unreadable or of another version."""
    path = folder / "run.json"
    if not folder.is_dir():
        raise InputError(f"run folder {folder} does not exist: give the --run-dir of a training run.")
    if not path.exists():
        raise InputError(f"{folder} is not a run folder: it holds no run.json, which `shortcut train` writes.")
    try:
        data = json.loads(path.read_text())
        found = data["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or train into another folder.") from error
    if found != FORMAT:
        raise InputError(
            f"{path} has format {found}, but this version of shortcut-models reads format {FORMAT}: "
            f"use the version that wrote it ({data.get('versions', {}).get('shortcut-models', 'unknown')})."
        )
    return data


def read_config(folder: Path) -> Config:
    """The configuration in run.json; raises InputError as `read` does, or if its fields are not ours."""
    data = read(folder)
    try:
        return from_json(data["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'run.json'} does not describe a run of this version: {error}") from error


def provenance(command: str) -> dict[str, Any]:
    """What has to be known to repeat a number: command, commit, versions, device."""
    names = ["shortcut-models", "jax", "jaxlib", "optax", "orbax-checkpoint", "grain", "numpy"]
    return {
        "command": command,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in names}},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def on_first_process(action: Callable[[], Result], otherwise: Result) -> Result:
    """Do what only one of several processes may do."""
    return action() if jax.process_index() == 0 else otherwise


def _create(path: Path, config: Config, command: str) -> None:
    folder = path.parent
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists but holds no run: choose another --run-dir, or empty it.")
    _write(path, config, command)


def _write(path: Path, config: Config, command: str) -> None:
    write_json(path, {"format": FORMAT, **provenance(command), "config": to_json(config)})


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that this package runs from, "+" if its code was changed since; None outside one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside some other project's checkout.
        if git("ls-files", "--error-unmatch", Path(__file__).name) == "":
            return None
        # Benchmarks write their tables into docs/ part by part; those compute nothing.
        code = ("--untracked-files=no", "--", ":/", ":(exclude,top)docs")
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
