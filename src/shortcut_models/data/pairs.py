"""Pairs of noise and sample that a trained network made: the data set of reflow.

A folder with pairs.json, which says where they come from and how many are done, and three
memory-mapped arrays. `shortcut_models.pairs` makes them.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from shortcut_models import catalogue, choice_json
from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.base import Data, View, whole_path
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

FORMAT = 2
"""Format 1, of the first version, had the samples in image.npy and the shown data set's name under "dataset"."""

SAMPLES = {1: "image", 2: "x"}
"""Name of the array of samples in each format."""


@dataclass(frozen=True, kw_only=True)
class Pairs(Data):
    """Pairs of a sample x and its noise, float32 and shaped alike, in the network's range."""

    path: str = ""
    """Folder that `shortcut pairs` wrote."""

    def __post_init__(self) -> None:
        # A run that records its data is read from other working directories.
        object.__setattr__(self, "path", whole_path(self.path))

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A folder with pairs.json."""
        return [cls(path=place)] if is_pairs(Path(place)) else []

    def open(self, split: str = "train") -> ArraySource:
        """All pairs; raises InputError if the folder holds none, or not yet all."""
        self.check_split(split)
        about = self.about
        if about["done"] < about["count"]:
            raise InputError(
                f"{self.path} holds {about['done']} of {about['count']} pairs: run the command that makes them again."
            )
        names = {"x": SAMPLES[about["format"]], "noise": "noise", "label": "label"}
        return ArraySource({name: _map(Path(self.path) / f"{file}.npy") for name, file in names.items()})

    @cached_property
    def about(self) -> dict[str, Any]:
        """What pairs.json says."""
        return read_about(Path(self.path))

    @property
    def paired(self) -> bool:
        """They are."""
        return True

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a sample."""
        return _map(Path(self.path) / "noise.npy").shape[1:]

    @property
    def num_classes(self) -> int:
        """As of the run that made them."""
        return int(self.about["num_classes"])

    @property
    def unlabelled(self) -> bool:
        """Whether all were drawn of no class, or there is only one."""
        return self.about.get("labels") == "none" or super().unlabelled

    @property
    def class_names(self) -> tuple[str, ...]:
        """As of the data that they show."""
        return self.shows().class_names

    @property
    def codec(self) -> "Codec":
        """As of the data that they show; it takes x as it is."""
        return self.shows().codec

    @property
    def view(self) -> View:
        """As of the data that they show."""
        return self.shows().view

    @property
    def metrics(self) -> tuple[str, ...]:
        """As of the data that they show."""
        return self.shows().metrics

    def shows(self) -> Data:
        """The data set that their network was trained on, or, if that were pairs again, the one that those show."""
        if "data" in self.about:
            return choice_json.from_json(catalogue.DATA, self.about["data"], "data").shows()
        name = str(self.about["dataset"])
        shown = catalogue.find("data set", catalogue.DATA, name)() if name in catalogue.DATA else Pairs(path=name)
        return shown.shows()

    def identity(self) -> str:
        """A digest of how they were made, and of the first and the last of them."""
        settings = {name: value for name, value in self.about.items() if name != "seconds"}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        samples = self.open().arrays["x"]
        for index in (0, -1):  # A run folder may have been trained again, and the rest be the same.
            digest.update(samples[index].tobytes())
        return f"pairs-{digest.hexdigest()[:16]}"


def is_pairs(path: Path) -> bool:
    """Whether a folder holds pairs."""
    return (path / "pairs.json").exists()


def read_about(folder: Path) -> dict[str, Any]:
    """pairs.json; raises InputError if it is missing, damaged or of another version."""
    path = folder / "pairs.json"
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} holds no pairs: make them with `shortcut pairs RUN --out {folder}`.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): remove {folder}, and make the pairs again.") from error
    found = about.get("format") if isinstance(about, dict) else None
    if found not in SAMPLES:
        raise InputError(f"{path} has format {found}, but this version reads {FORMAT}: make them again.")
    return about


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}): remove its folder, and make the pairs again."
        ) from None
