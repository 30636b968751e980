"""A run folder: run.json (configuration, versions, commit), metrics.jsonl and checkpoints/."""

import json
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import jax

from shortcut_models.config import FREE_TO_CHANGE, Config
from shortcut_models.config_json import FORMAT, differences, from_json, to_json
from shortcut_models.errors import InputError
from shortcut_models.files import write_json

Result = TypeVar("Result")


def create_or_check(folder: Path, config: Config, command: str) -> None:
    """Start a run in a new or empty folder, or make sure that the run in there is this one.

    Raises InputError, listing the fields, if its configuration differs in more than may change.
    """
    path = folder / "run.json"
    if not path.exists():
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
    if found not in range(1, FORMAT + 1):
        raise InputError(
            f"{path} has format {found}, but this version of shortcut-models reads formats up to {FORMAT}: "
            f"use the version that wrote it ({data.get('versions', {}).get('shortcut-models', 'unknown')})."
        )
    return data


def read_config(folder: Path) -> Config:
    """The configuration in run.json; raises InputError as `read` does, or if its fields are not ours."""
    data = read(folder)
    try:
        return from_json(data["config"], data["format"])
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
