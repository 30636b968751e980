"""Configurations on disk: nested plain values, a choice's name as its "kind", and upgrades of older forms."""

from typing import Any

from shortcut_models import catalogue, choice_json
from shortcut_models.config import Config
from shortcut_models.errors import InputError

FORMAT = 2
"""Raised when the form changes in a way that `upgrade` must know of."""

CHOICES = {"data": catalogue.DATA, "model": catalogue.NETWORKS, "objective": catalogue.OBJECTIVES}
"""Fields of a configuration that are a choice of the catalogue."""


def to_json(config: Config) -> dict[str, Any]:
    """A nested dict of plain values."""
    choices = {name: choice_json.to_json(names, getattr(config, name)) for name, names in CHOICES.items()}
    return choice_json.fields_to_json(config) | choices


def from_json(data: Any, version: int = FORMAT) -> Config:
    """Undo `to_json`, from this form or an older one.

    Raises InputError naming any field that is unknown or missing.
    """
    if not isinstance(data, dict):
        raise InputError("its configuration is no set of fields.")
    data = upgrade(data, version)
    choices = {name: choice_json.from_json(names, data.pop(name, None), name) for name, names in CHOICES.items()}
    return choice_json.build(Config, {**data, **choices}, "", "")


def upgrade(data: dict[str, Any], version: int) -> dict[str, Any]:
    """A configuration of an older format in the form of this one; a run of it goes on under its own rules."""
    data = {name: dict(value) if isinstance(value, dict) else value for name, value in data.items()}
    if version == 1:
        name = data.pop("dataset_name", None)
        data["data"] = {"kind": name} if name in catalogue.DATA else {"kind": "pairs", "path": name}
        data["model"] = {"kind": "dit", "attention": "xla", **data.get("model", {})}
        objective = data["objective"] = {"averaging": "constant", "noise_floor": 0.0, **data.get("objective", {})}
        added: dict[Any, dict[str, Any]] = {
            "live-reflow": {"pair_dropout": True},
            "consistency-distillation": {"sampler": "renoise"},
        }
        objective |= added.get(objective.get("kind"), {})
        data["optimizer"] = {"decayed": "kernels", **data.get("optimizer", {})}
    return data


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
