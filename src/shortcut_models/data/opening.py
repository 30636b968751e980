"""From what a user names, a data set's name or a path, to a choice of data."""

import dataclasses
from pathlib import Path
from typing import Any

from shortcut_models import catalogue
from shortcut_models.data.base import Data, Source
from shortcut_models.data.pairs import Pairs, is_pairs
from shortcut_models.errors import InputError


def choose(name_or_path: str, base: Data | None = None) -> Data:
    """The data of this name in the catalogue, or those that lie at this path.

    Settings of `base` that differ from its class's defaults are taken over where the chosen data have
    such a field, all but the path. Raises InputError, listing the names, for what is neither.
    """
    if name_or_path in catalogue.DATA:
        found = catalogue.find("data set", catalogue.DATA, name_or_path)
        chosen = found() if isinstance(found, type) else found
    else:
        chosen = recognise(name_or_path)
    return dataclasses.replace(chosen, **_settings(base, chosen)) if base is not None else chosen


def _settings(base: Data, chosen: Data) -> dict[str, Any]:
    """What `base` sets and `chosen` can take."""
    names = {field.name for field in dataclasses.fields(chosen)} - {"path"}
    fields = [field for field in dataclasses.fields(base) if field.name in names]
    return {f.name: getattr(base, f.name) for f in fields if getattr(base, f.name) != f.default}


def recognise(path: str) -> Data:
    """The data that lie at a path; raises InputError if there are none that this version reads."""
    if is_pairs(Path(path)):
        return Pairs(path=path)
    if Path(path).exists():
        raise InputError(f"data {path!r} are of no kind that this version reads.")
    raise InputError(
        f"data {path!r} are neither a name nor a path that exists: the names are {', '.join(catalogue.DATA)}."
    )


def open_data(name_or_path: str, split: str = "train") -> Source:
    """Open data by name or path: `len(s)` examples `s[i]`, each a dict as `data.base.Source` says."""
    return choose(name_or_path).open(split)
