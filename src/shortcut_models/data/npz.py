"""Images in an .npz as the samplers of ADM and DiT write them: arr_0 (N, H, W, 3) uint8, maybe arr_1 with labels."""

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from shortcut_models.data.arrays import DAMAGED
from shortcut_models.data.images import Images, LeftOut
from shortcut_models.data.layout import numbered
from shortcut_models.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Npz(Images):
    """Images in an .npz: the first array, and labels in the second if there is one."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A zip with a member arr_0.npy; or with statistics for FID, of which it is told what they are."""
        if not (Path(place).is_file() and zipfile.is_zipfile(place)):
            return []
        with zipfile.ZipFile(place) as archive:
            names = set(archive.namelist())
        return [cls(path=place)] if "arr_0.npy" in names or {"mu.npy", "sigma.npy"} <= names else []

    @cached_property
    def _records(self) -> "NpzRecords":
        return NpzRecords(Path(self.path))

    def records(self, split: str) -> "NpzRecords":
        """All of them, in memory."""
        self.check_split(split)
        return self._records

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        stored = self._records.images.shape[1:]
        return self._encoded(stored if self.size is None else (self.size, self.size, stored[2]))

    def fingerprint(self) -> Iterable[str]:
        """A digest of the file."""
        with Path(self.path).open("rb") as file:
            yield hashlib.file_digest(file, "sha256").hexdigest()


class NpzRecords:
    """Images and labels in memory; raises InputError if the file holds anything else."""

    def __init__(self, path: Path) -> None:
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is missing, cut short or no .npz: copy it again.")
        try:
            with np.load(path, allow_pickle=False) as stored:
                names = stored.files
                found = {name: stored[name] for name in ("arr_0", "arr_1") if name in names}
        except DAMAGED as error:
            raise InputError(f"{path} cannot be read ({error}): copy it again.") from error
        if "arr_0" not in found:
            if {"mu", "sigma"} <= set(names):
                raise InputError(f"{path} holds statistics for FID, no images: give it as --stats.")
            raise InputError(f"{path} holds {', '.join(names)}, but images are expected as arr_0.")
        self.images, labels = found["arr_0"], found.get("arr_1")
        if (
            self.images.ndim != 4
            or self.images.dtype != np.uint8
            or self.images.shape[3] not in (1, 3)
            or 0 in self.images.shape[1:]
        ):
            raise InputError(
                f"arr_0 of {path} is {self.images.dtype} {self.images.shape}, but images are uint8 (N, H, W, 3)."
            )
        if labels is not None and (labels.shape != self.images.shape[:1] or labels.dtype.kind not in "iu"):
            raise InputError(
                f"arr_1 of {path} is {labels.dtype} {labels.shape}, but labels are one whole number an image."
            )
        self._path, self._labels = path, labels
        self.class_names = () if labels is None else numbered(labels.tolist(), f"arr_1 of {path}")
        self.left_out: list[LeftOut] = []
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """The file and the number of the image in it."""
        return f"{self._path.name}:{index}"

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """Pixels and label."""
        return self.images[index], 0 if self._labels is None else int(self._labels[index])
