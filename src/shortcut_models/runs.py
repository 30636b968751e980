"""A run folder: run.json (configuration, and who trained which part), metrics.jsonl and checkpoints/."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import jax

from shortcut_models import catalogue, choice_json, processes
from shortcut_models.checkpoint import check_path, newest
from shortcut_models.config import FREE_TO_CHANGE, Config
from shortcut_models.config_json import FORMAT, differences, from_json, to_json
from shortcut_models.data import Data
from shortcut_models.data.unavailable import stand_in
from shortcut_models.errors import InputError
from shortcut_models.files import absolute, explained, find, write_json
from shortcut_models.interop import hub
from shortcut_models.provenance import start
from shortcut_models.tracking import Rename, Tracker, open_trackers

Result = TypeVar("Result")

PLACES = {"data.path", "data.vae"}
"""Where the files of a run's data lie; they may move, if they stay the same."""

LARGEST = 10_000_000
"""Bytes of run.json; thousands of starts need no more."""


def latest(folder: Path) -> int | None:
    """Step of the newest whole checkpoint of a run folder, or None if there is none yet."""
    with explained():
        return newest(folder / "checkpoints")


@contextmanager
def training_in(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder, and tell plainly what goes wrong with its files.

    The folder is made, and goes again if nothing came of it. Raises InputError if another training is
    there, or if the folder cannot be written; what is kept is said. Of several processes the first
    holds the folder for all.
    """
    check_path(folder / "checkpoints")

    def refusal(who: str) -> str:
        return f"{folder} is being trained by {who}: wait for it, stop it, or choose another --run-dir."

    with processes.alone(folder / ".lock", refusal):
        try:
            yield
        except OSError as error:
            with explained(kept(folder)):
                raise error


@contextmanager
def trackers(folder: Path, config: Config, step: int, rename: Rename | None = None) -> Iterator[list[Tracker]]:
    """What records the metrics of the steps after `step`; on the first process alone."""
    if jax.process_index() != 0:
        yield []
        return
    with open_trackers(folder, config.tracker, step, read(folder), rename) as opened:
        yield opened


def kept(folder: Path) -> str:
    """What is safe of a run, in words."""
    try:
        step = newest(folder / "checkpoints")
    except OSError:
        step = None
    return f"the checkpoint of step {step} is kept" if step else "no checkpoint was written yet"


def settle(config: Config) -> Config:
    """The configuration with paths that do not depend on the working directory, and data that name their VAE."""
    config = replace(config, data=config.data.recorded())
    if not config.start_from or hub.is_id(config.start_from):
        return config
    return replace(config, start_from=absolute(config.start_from))


def create_or_check(folder: Path, config: Config, command: str) -> None:
    """Start a run in a new or empty folder, or make sure that the run in there is this one; note who trains.

    Raises InputError, listing the fields, if its configuration differs in more than may change.
    """
    path = folder / "run.json"
    if not path.exists():
        on_first_process(lambda: _create(path, config, command), None)
        return
    data, old = read(folder), read_config(folder)
    different = differences(_found(old, folder), config)
    if "start_from" in different and _is_gone(different["start_from"][0]):
        different.pop("start_from")  # It was moved or removed meanwhile: this run has taken from it what it needs.
    if not PLACES.isdisjoint(different) and data.get("identity") == config.data.identity():
        different = {name: values for name, values in different.items() if name not in PLACES}  # They have moved.
    refused = [name for name in different if name not in FREE_TO_CHANGE]
    if refused:
        lines = "".join(f"\n  {name}: {different[name][0]} in the run, {different[name][1]} now" for name in refused)
        raise InputError(f"{folder} holds a run with other settings; use those, or another --run-dir:{lines}")
    step = latest(folder) or 0
    starts = data["starts"] + [start(command, step)] * (step < config.max_steps)
    if starts != data["starts"] or old != config:
        on_first_process(lambda: _write(path, config, starts, data.get("known")), None)


def read(folder: Path) -> dict[str, Any]:
    """run.json of a run folder; raises InputError if it is missing, unreadable or of another version.

    "config" is as it was written, see `read_config`; "starts" are the trainings that took part, oldest
    first, each with its step, command, commit, versions, device, time, host and process.
    """
    path = folder / "run.json"
    if not folder.is_dir():
        raise InputError(f"run folder {folder} does not exist: name a run of `shortcut train`, or a model folder.")
    if not path.exists():
        raise InputError(f"{folder} is not a run folder: it holds no run.json, which `shortcut train` writes.")
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise InputError(f"{path} is damaged (it is larger than any configuration): restore it.")
    try:
        with explained():
            data = json.loads(path.read_text(encoding="utf-8"))
        found = data["format"]
    except RecursionError:
        raise InputError(f"{path} is damaged (it is nested without end): restore it.") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({error}): restore it, or train into another folder.") from error
    if type(found) is not int or found not in READERS:
        raise InputError(
            f"{path} has format {found}, but this version of shortcut-models reads format "
            f"{' and '.join(map(str, READERS))}: use the version that wrote it ({_writer(data)})."
        )
    return READERS[found](data)


def read_config(folder: Path) -> Config:
    """The configuration in run.json; raises InputError as `read` does, or if its fields are not ours."""
    data = read(folder)
    try:
        config = data["config"]
        if data["format"] == 1 and config["dataset_name"] not in catalogue.DATA:
            # A folder of pairs, which was stored as it was given.
            config = {**config, "dataset_name": str(find(config["dataset_name"], folder))}
        return from_json(config, data["format"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{folder / 'run.json'} does not describe a run of this version: {_told(error)}.") from error


def _told(error: Exception) -> str:
    """What an error says, printable and short: the words may be the file's."""
    said = str(error) if isinstance(error, InputError) else next(iter(str(error).splitlines()), "")
    said = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in said.rstrip("."))
    return said if len(said) <= 400 else f"{said[:400]}..."


def read_shown(folder: Path) -> Data:
    """The data that a run's samples are to be compared with; where it trained on pairs, those may be gone.

    Of data that are no longer where they were, what the run noted of them, enough to sample and to decode.
    """
    about = read(folder)
    names, shown = catalogue.DATA, about.get("shows")
    data = read_config(folder).data.shows() if shown is None else choice_json.from_json(names, shown, "data")
    known = about.get("known")
    return data if data.is_here or known is None else choice_json.from_json(names, known, "known")


def on_first_process(action: Callable[[], Result], otherwise: Result) -> Result:
    """Do what only one of several processes may do."""
    return action() if jax.process_index() == 0 else otherwise


def _create(path: Path, config: Config, command: str) -> None:
    if any(item.name != ".lock" for item in path.parent.iterdir()):
        raise InputError(f"{path.parent} exists but holds no run: choose another --run-dir, or empty it.")
    _write(path, config, [start(command, 0)])


def _write(path: Path, config: Config, starts: list[dict[str, Any]], known: dict[str, Any] | None = None) -> None:
    """`known` is what was noted of the data that samples show, which may be gone by now."""
    shown = config.data.shows()
    about: dict[str, Any] = {"shows": choice_json.to_json(catalogue.DATA, shown), "identity": config.data.identity()}
    if hasattr(shown, "path"):
        about["known"] = choice_json.to_json(catalogue.DATA, stand_in(shown)) if shown.is_here else known
    write_json(path, {"format": FORMAT, "config": to_json(config), **about, "starts": starts})


def _first_format(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1; its first files knew one start alone, and kept it beside the configuration."""
    if "starts" in data:
        return data
    begin = {name: data.get(name) for name in ("command", "commit", "versions", "device", "time")}
    return {"format": 1, "config": data.get("config"), "starts": [{"step": 0, **begin}]}


READERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _first_format, FORMAT: lambda data: data}
"""For each format of run.json that can be read, how to make today's of it; `config_json` does so with "config"."""


def _writer(data: dict[str, Any]) -> str:
    """The version of this package that wrote a run.json of another format, as far as it can be told."""
    try:
        versions = data["starts"][-1]["versions"] if "starts" in data else data["versions"]
        return versions["shortcut-models"] or "unknown"
    except (KeyError, IndexError, TypeError):
        return "unknown"


def _is_gone(start_from: str) -> bool:
    return not (Path(start_from).exists() or hub.is_id(start_from))


def _found(old: Config, folder: Path) -> Config:
    """A stored configuration whose paths, which earlier versions kept as they were given, mean what they meant."""
    found = find(old.start_from, folder)
    if not old.start_from or (hub.is_id(old.start_from) and not found.exists()):
        return old
    return replace(old, start_from=str(found))
