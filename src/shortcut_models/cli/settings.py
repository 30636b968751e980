"""A preset with other choices and settings: what `train`, `compare` and `presets` share.

Nothing here is imported before it is needed: the names of all choices are in the catalogue, and JAX stays out.
"""

import difflib
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shortcut_models import catalogue
from shortcut_models.cli import parsing
from shortcut_models.cli.original_flags import check_original
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.config import Config
    from shortcut_models.data.base import Data

CHOICES = {
    "data": ("data set", catalogue.DATA, "train on other data: a name, or a path"),
    "model": ("network", catalogue.NETWORKS, "train another network"),
    "objective": ("objective", catalogue.OBJECTIVES, "train with another objective"),
}
"""For each switch: the word for it, the names, what it does."""


def check_preset(arguments: list[str], command: str) -> str:
    """The preset, a command's only argument; raises InputError if it is missing or unknown, or there is more."""
    names = ", ".join(catalogue.PRESETS)
    if not arguments:
        raise InputError(f"the first argument of shortcut {command} must be a preset: one of {names}.")
    catalogue.check("preset", catalogue.PRESETS, arguments[0])
    if len(arguments) > 1:
        near = difflib.get_close_matches(arguments[1], ["dry-run", "run-dir", *CHOICES], 1)
        hint = f"did you mean --{near[0]}?" if near else "settings are flags, such as --max-steps 500."
        raise InputError(f"argument {arguments[1]!r} is one too many: {hint}")
    return arguments[0]


def resolve(preset: str, line: parsing.Line, own: list[str]) -> "Config":
    """The preset's configuration with the line's choices and settings; `own` are flags that are the command's.

    The order of flags does not matter. Raises InputError for an unknown choice or flag, and for settings that do
    not go together.
    """
    check_original(line)
    config = choose(preset, line)
    known = [*parsing.settings(config), *CHOICES, *own]
    parsing.check_known(line, known)
    config = parsing.override(config, line)
    if config.data.unnamed:
        raise InputError(f"preset {preset} trains on data of your own: say which, --data NAME_OR_PATH.")
    return config


def choose(preset: str, line: parsing.Line) -> "Config":
    """The preset's configuration with the line's choices, which are taken out of it, and no other settings yet."""
    from shortcut_models.data import opening
    from shortcut_models.presets import get_preset

    config = get_preset(preset)
    name, latents = line.take("data", "dataset_name"), line.take("latents") or ""
    if latents and name is None:
        raise InputError(f"--latents {latents} says whose tool encoded latents: name them too, --data PATH.")
    model, objective, start_from = (line.take(name) for name in ("model", "objective", "start_from"))
    chosen = None if name is None else opening.choose(name, config.data, latents)
    config = _configure(config, chosen, line, {"model": model, "objective": objective, "start_from": start_from})
    if start_from is None or model is not None:
        return config
    from shortcut_models.starting import follow_start

    heads = line.flags.get("model.num_heads")
    return follow_start(
        config,
        line.flags.get("start_as", config.start_as),
        None if heads is None else parsing.read("--model.num-heads", int, heads),
    )


def _configure(base: "Config", chosen: "Data | None", line: parsing.Line, others: dict[str, Any]) -> "Config":
    """The base with other choices, and the data's settings on the line, from which the network's sizes follow."""
    from shortcut_models.config import configure

    data = parsing.override(chosen or base.data, line, "data.")
    if chosen is None and data == base.data:
        return configure(base, **others)
    try:
        return configure(base, data=data, **others)
    except InputError:
        if chosen is not None and not chosen.unnamed:
            raise
        # Settings alone say where the data lie, and they are not here: what they are for may be told as well.
        return replace(configure(base, data=chosen, **others), data=data)


def describe(config: "Config") -> str:
    """Help on all settings of a configuration, a section for each of its parts, with the values that they have."""
    known = parsing.settings(config)
    parts = {name.partition(".")[0] for name in known if "." in name}
    own = {name: setting for name, setting in known.items() if "." not in name}
    sections = [f"Settings, with their values in this preset:\n{parsing.describe(own)}"]
    for part in sorted(parts):
        inner = {name: setting for name, setting in known.items() if name.startswith(f"{part}.")}
        sections.append(f"{_title(config, part)}\n{parsing.describe(inner)}")
    return "\n\n".join(sections)


def _title(config: "Config", part: str) -> str:
    chosen = getattr(config, part)
    if part not in CHOICES:
        return f"{part.capitalize()}: {(type(chosen).__doc__ or '').splitlines()[0]}"
    kind, names, _ = CHOICES[part]
    name = catalogue.kind_of(names, chosen)
    return f"{kind.capitalize()} {name}: {names[name].about}"


def flags(config: "Config") -> list[str]:
    """The flags that turn any preset into this configuration."""
    switches = [(part, catalogue.kind_of(names, getattr(config, part))) for part, (_, names, _) in CHOICES.items()]
    values = [(name, parsing.write(setting.value)) for name, setting in parsing.settings(config).items()]
    return [f"{parsing.flag(name)} {shlex.quote(value)}" for name, value in switches + values]


def preset_list() -> str:
    """A line for each preset."""
    return name_list(catalogue.PRESETS)


def name_list(names: dict[str, catalogue.Entry]) -> str:
    """A line or more for each choice of one kind; those of the official code are told in a word."""
    own = {name: found for name, found in catalogue.offered(names).items() if not name.endswith("-original")}
    lines = [parsing.entry(name, found.about) for name, found in own.items()]
    if any(name.endswith("-original") for name in names):
        lines.append(parsing.entry("NAME-original", "the same with the official code's constants"))
    return "\n".join(lines)


def choices_help() -> str:
    """Help on the switches."""
    lines = [parsing.entry(f"--{part} NAME", f"{about}.") for part, (_, _, about) in CHOICES.items()]
    about = "whose tool encoded the latents that --data names, where nothing in them says so."
    return "\n".join([*lines, parsing.entry("--latents edm2|repa", about)])
