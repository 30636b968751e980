"""From what a user names, a data set's name or a path, to a choice of data."""

import dataclasses
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, SupportsIndex

from shortcut_models import catalogue
from shortcut_models.data.base import Data, Source, describe
from shortcut_models.data.compressed import compressed_tars, refuse_compressed
from shortcut_models.data.crop import Crop
from shortcut_models.data.images import check_crop, check_size
from shortcut_models.data.layout import is_ignored, looks_like_image
from shortcut_models.errors import InputError
from shortcut_models.files import check_local, explained

OWN = {"path", "names", "prefix", "flip"}
"""Fields that say which data they are, or what is right for those alone: other data do not take them over."""

ARCHIVES = (".zip", ".tar")
"""Suffixes of files that may hold the images of the folder in which they lie."""


def choose(name_or_path: str | Path, base: Data | None = None, latents: str = "") -> Data:
    """The data of this name in the catalogue, or those that lie at this path: `KIND:PATH` says how to read them.

    Where both are there, `NAME:` is the data set and `./NAME` the path. `latents` says whose tool encoded latents,
    "edm2" or "repa", where the files do not. Settings of `base` that differ from its class's defaults are taken over
    where the chosen data have such a field, all but those in `OWN`. Raises InputError for what is neither a name nor a
    path that exists, is both, or can be read in several ways or in none.
    """
    place = os.fspath(name_or_path)
    kind, _, rest = place.partition(":")
    if not place:
        raise InputError("no data are named: say which, by a name or a path.")
    check_local("the data set", place)
    if kind in catalogue.DATA and not rest:
        chosen = _by_name(place, kind, base, latents)
    elif rest and kind in catalogue.DATA:
        chosen = _with(_named(kind), kind, path=rest)
        if not Path(rest).expanduser().exists():
            raise InputError(f"data {place!r} do not exist: there is no {rest}.")
    else:
        chosen = recognise(place, latents)
    if latents and chosen.latents != latents:
        raise InputError(f"--latents {latents} does not fit {place!r}, which is read as {_kind(chosen)}: leave it out.")
    return dataclasses.replace(chosen, **_settings(base, chosen)) if base is not None else chosen


def _by_name(place: str, name: str, base: Data | None, latents: str) -> Data:
    """What `NAME` stands for, or `NAME:`, which never is what lies here; raises InputError if it may be either.

    The name of a kind, such as `folder`, stands for what lies here. Else a path has to follow it, unless there is a
    `base`, whose user may say the path in a flag of its own.
    """
    found, here = _named(name), f"./{name}"
    is_here = place == name and _holds_data(here)
    if found.unnamed and is_here:
        return recognise(here, latents)
    if found.unnamed and base is None:
        raise InputError(f"data {place!r} name only a way to read a path: say which path, {name}:PATH.")
    if is_here:
        raise InputError(
            f"data {place!r} are both the name of a data set and a path here: say {here} for the path, or {name}: for "
            "the data set."
        )
    return found


def _holds_data(place: str) -> bool:
    """Whether anything is recognised at a path; a run, or a folder of runs, holds images that are none to train on."""
    path = Path(place)
    if not path.exists() or any(next(path.glob(runs), None) for runs in ("run.json", "*/run.json")):
        return False
    try:
        return any(cls.recognise(place) for cls in _classes())
    except InputError:  # Damaged or half-built data are meant to be data too.
        return True


def _named(name: str) -> Data:
    found = catalogue.find("data set", catalogue.DATA, name)
    return found() if isinstance(found, type) else found


def _with(data: Data, name: str, **fields: Any) -> Data:
    """The same data with other settings; raises InputError for one that they do not have."""
    known = {field.name for field in dataclasses.fields(data)}
    odd = [field for field in fields if field not in known]
    if odd:
        raise InputError(f"{name} takes no {odd[0]}.")
    return dataclasses.replace(data, **fields)


def _settings(base: Data, chosen: Data) -> dict[str, Any]:
    """What `base` sets and `chosen` can take."""
    names = {field.name for field in dataclasses.fields(chosen)} - OWN
    fields = [field for field in dataclasses.fields(base) if field.name in names]
    return {f.name: getattr(base, f.name) for f in fields if getattr(base, f.name) != f.default}


def recognise(place: str, latents: str = "") -> Data:
    """The data that lie at a path; raises InputError if there are none, or several readings of them."""
    known = sorted({cls.latents for cls in _classes()} - {""})
    if latents and latents not in known:
        raise InputError(f"--latents {latents} is unknown: the tools whose latents are read are {', '.join(known)}.")
    readings = [reading for cls in _classes() for reading in cls.recognise(place)]
    readings = [reading for reading in readings if reading.latents == latents] or readings
    if len(readings) == 1:
        return readings[0]
    if all(reading.latents for reading in readings) and readings:
        ways = " or ".join(f"--latents {reading.latents}" for reading in readings)
        raise InputError(f"{place!r} holds latents that several tools write alike: say whose they are, {ways}.")
    if readings:
        ways = ", ".join(f"{_kind(reading)}:{getattr(reading, 'path', '') or place}" for reading in readings)
        raise InputError(f"data {place!r} can be read in several ways: name one of {ways}.")
    if compressed := compressed_tars(Path(place)):
        refuse_compressed(compressed[0])
    raise InputError(f"data {place!r} {_why_none(Path(place))}")


def _why_none(path: Path) -> str:
    """Why nothing is recognised at a path, and what to do."""
    if not path.exists():
        names = ", ".join(catalogue.offered(catalogue.DATA))
        return f"are neither a name nor a path that exists: the names are {names}."
    if path.is_dir():
        if not any(path.iterdir()):
            return "are an empty folder: name the one in which the images lie."
        if archives := _archives(path):
            others = f" and {len(archives) - 1} more" if len(archives) > 1 else ""
            return f"hold {archives[0]}{others}, but no images: name that file, or unpack it."
        what = "hold no images, nor anything else that is read"
    else:
        with path.open("rb") as file:
            head = file.read(16)
        if not head:
            return "are an empty file: copy it again."
        if head[:2] == b"\x1f\x8b":
            return "are a file compressed by gzip: unpack it first."
        if head.startswith(b"PK\3\4") and not zipfile.is_zipfile(path):
            return "are a zip without its end, so it is cut short: copy it again."
        if looks_like_image(path.name, head):
            return f"are one image file: name the folder in which the images lie, such as {path.parent}."
        what = "are a file of no kind that is read"
    return f"{what}: KIND:PATH says why one kind does not fit, with KIND one of {', '.join(_kinds())}."


def _archives(path: Path) -> list[Path]:
    """Archives in a folder or one below it, without the folder's own name."""
    files = (file for pattern in ("*", "*/*") for file in path.glob(pattern))
    found = [file for file in files if file.suffix.lower() in ARCHIVES and not is_ignored(file.name)]
    return sorted(file.relative_to(path) for file in found)


def _kinds() -> Iterator[str]:
    """Names in the catalogue that say how to read a path."""
    for name in catalogue.offered(catalogue.DATA):
        found = catalogue.find("data set", catalogue.DATA, name)
        if isinstance(found, type) and any(field.name == "path" for field in dataclasses.fields(found)):
            yield name


def _kind(data: Data) -> str:
    return catalogue.kind_of(catalogue.DATA, data)


def _classes() -> Iterator[type[Data]]:
    for name in catalogue.DATA:
        found = catalogue.find("data set", catalogue.DATA, name)
        if isinstance(found, type):
            yield found


def open_data(
    name_or_path: str | Path,
    split: str = "train",
    size: SupportsIndex | None = None,
    crop: Crop = "center",
    latents: str = "",
) -> Source:
    """Open data by name or path: `len(s)` examples, each a dict `s[i]` with "label" (int).

    Images have "image", uint8 (H, W, C): as they are stored, or cropped and resized if `size` is
    given. Latents have "mean" and "deviation", float (h, w, c), unscaled; `latents` says whose tool
    encoded them, "edm2" or "repa", where the files do not. Raises InputError for data that are missing or
    damaged, or that have a size of their own other than `size`.
    """
    with explained():
        data = choose(name_or_path, latents=latents)
    known = {field.name for field in dataclasses.fields(data)}
    check_crop(crop)
    if "crop" not in known and crop != "center":
        raise InputError(f"{describe(data)} is cropped already: leave crop={crop!r} out, or prepare it again so.")
    side = None if size is None else check_size("data.size", size)
    wanted = {"crop": crop} | ({} if side is None else {"size": side})
    data = dataclasses.replace(data, **{name: value for name, value in wanted.items() if name in known})
    fixed = side is not None and "size" not in known
    if fixed and data.shape[:2] != (side, side) and getattr(data, "size", None) != side:
        raise InputError(f"{describe(data)} has shape {data.shape}, and cannot be resized to {side}.")
    return data.open(split)
