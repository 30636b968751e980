"""Latents as the tools of EDM2 and REPA encode them: a zip or a folder of arrays (8, h, w), mean and deviation.

The two write the same names and shapes, but of images in [0, 1] and in [-1, 1]: nothing in the files
tells them apart, so that whoever has them must say, `--latents edm2` or `--latents repa`.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from shortcut_models.data.arrays import DAMAGED
from shortcut_models.data.base import Data, whole_path
from shortcut_models.data.decode import BadImage, Decoded
from shortcut_models.data.layout import LABELS, Listing, lay_out, read_labels
from shortcut_models.data.zipped import Archive
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

_STEM = "img-mean-std-"

TOOLS = ("edm2", "repa")
"""Those that encode latents in this form."""

DIGESTED = 64
"""Latents of a folder whose contents tell it from others."""


@dataclass(frozen=True, kw_only=True)
class Latents(Data):
    """Unscaled moments of SD-VAE's latents, without mirrored copies."""

    path: str = ""
    """A zip or folder as EDM2's and REPA's tools write it."""
    labels: bool = True
    """Whether to use the classes; without, all have label 0 and there is one class, without a name."""

    def __post_init__(self) -> None:
        # A run that records its data is read from other working directories.
        object.__setattr__(self, "path", whole_path(self.path))

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """Files by the name that both tools give; each declares itself, so that the user has to choose."""
        path = Path(place)
        if path.is_dir():
            found = any(next(path.glob(pattern), None) for pattern in (f"{_STEM}*.npy", f"00000/{_STEM}*.npy"))
        else:
            found = zipfile.is_zipfile(path) and any(map(_is_latent, Archive(path).names))
        return [cls(path=place)] if found else []

    @cached_property
    def _archive(self) -> "Archive | _Tree":
        return _Tree(Path(self.path)) if Path(self.path).is_dir() else Archive(Path(self.path))

    @cached_property
    def _listing(self) -> Listing:
        found = [name for name in self._archive.names if _is_latent(name)]
        if not found:
            raise InputError(f"{self.path} holds no latents: they are called {_STEM}00000000.npy and so on.")
        labels, odd = read_labels(self._archive.labels())
        # Their folders, such as 00000, are no classes.
        listing = lay_out(found, labels=labels or {})["train"]
        listing.warnings.extend(odd)
        return listing

    def records(self, split: str) -> "LatentRecords":
        """All of them, sorted by name."""
        self.check_split(split)
        return LatentRecords(self._archive, self._listing)

    def open(self, split: str = "train") -> "LatentSource":
        """All of them, sorted by name."""
        return LatentSource(self, self.records(split))

    def decode(self, data: bytes | np.ndarray) -> Decoded:
        """Mean and, behind it, deviation of a record, float32 (h, w, 2 c); raises BadImage."""
        try:
            if isinstance(data, np.ndarray):
                moments = data
            else:
                moments = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except DAMAGED as error:
            raise BadImage("corrupt", "no whole array of NumPy's") from error
        if moments.ndim != 3 or moments.shape[0] % 2 or moments.dtype != np.float32:
            raise BadImage("mode", f"{moments.dtype} {moments.shape}: mean and deviation are float32 (8, h, w)")
        if not np.isfinite(moments).all():
            raise BadImage("corrupt", "values that are no numbers")
        return Decoded(np.ascontiguousarray(np.moveaxis(moments, 0, -1)), ())

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of the first latent that can be read."""
        records = self.records("train")
        for index in range(len(records)):
            try:
                height, width, channels = self.decode(records.read(index)[0]).image.shape
            except BadImage:
                continue
            return height, width, channels // 2
        raise InputError(f"{self.path} holds no latent that can be read: encode the images again.")

    @property
    def size(self) -> int:
        """Height and width of the images that were encoded."""
        return 8 * self.shape[0]

    @property
    def codec(self) -> "Codec":
        """That of the tool which encoded them."""
        return codec_of(self.latents)

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); 1 for data without labels."""
        return max(len(self.class_names), 1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The numbers of the classes."""
        return self._listing.class_names if self.labels else ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Over 8x8 averaged pixels, which need no other network."""
        return ("frechet-pixels8x8",)

    def identity(self) -> str:
        """Names, sizes and contents, as far as those are read for it, and which tool's they are."""
        digest = hashlib.sha256(repr((type(self).__name__, self.labels)).encode())
        for line in self._archive.lines():
            digest.update(os.fsencode(line) + b"\n")
        return f"latents-{digest.hexdigest()[:16]}"


@dataclass(frozen=True, kw_only=True)
class Edm2Latents(Latents):
    """Of images in [0, 1], whitened channel by channel (Karras et al., arXiv 2312.02696)."""

    latents: ClassVar[str] = "edm2"


@dataclass(frozen=True, kw_only=True)
class RepaLatents(Latents):
    """Of images in [-1, 1], times 0.18215 (Yu et al., arXiv 2410.06940)."""

    latents: ClassVar[str] = "repa"


def codec_of(latents: str, identity: str = "", **sizes: Any) -> "Codec":
    """The codec of latents that this tool encoded ("" is ours, which does as REPA's), by the VAE of this identity.

    An `identity` of "" is a VAE that the data do not name; `sizes` are fields of the codec.
    """
    from shortcut_models.codecs import edm2  # They need JAX; choosing data does not.
    from shortcut_models.codecs.latents import Latents

    kind = {"": Latents, "repa": Latents, "edm2": edm2.Edm2Latents}[latents]
    return kind(identity=identity, **sizes)


def _is_latent(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith(_STEM) and base.endswith(".npy")


class _Tree:
    """The same questions asked of a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.names = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def labels(self) -> bytes | None:
        return self.read(LABELS) if LABELS in self.names else None

    def lines(self) -> Iterable[str]:
        for name in self.names:
            yield f"{name} {(self._root / name).stat().st_size}"
        # All latents have one size, so that only contents tell those encoded again; but to read a million files would
        # take hours, and another encoder changes every one of them: a few, spread evenly, show it.
        latents = list(filter(_is_latent, self.names))
        count = min(DIGESTED, len(latents))
        spread = [latents[number * len(latents) // count] for number in range(count)]
        for name in [*spread, *([LABELS] if LABELS in self.names else [])]:
            yield f"{name} {self._digest(name)}"

    def _digest(self, name: str) -> str:
        try:
            return hashlib.sha256(self.read(name)).hexdigest()
        except OSError:
            return "unreadable"


class LatentRecords:
    """Files of a listing, each an array."""

    def __init__(self, archive: "Archive | _Tree", listing: Listing) -> None:
        self._archive, self._listing = archive, listing
        self.class_names, self.left_out, self.warnings = listing.class_names, listing.left_out, listing.warnings

    def __len__(self) -> int:
        return len(self._listing.names)

    def name(self, index: int) -> str:
        """The path in the archive or folder."""
        return self._listing.names[index]

    def read(self, index: int) -> tuple[bytes, int]:
        """The file's bytes and the label; raises BadImage if they cannot be read."""
        try:
            return self._archive.read(self.name(index)), int(self._listing.labels[index])
        except OSError as error:
            raise BadImage("unreadable", error.strerror or "not readable") from error


class LatentSource:
    """The seam of a source: {"mean", "deviation": float32 (h, w, c), "label": int}."""

    def __init__(self, data: Latents, records: LatentRecords) -> None:
        self._data, self._records = data, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0 to {len(self) - 1}.")
        try:
            data, label = self._records.read(index)
            mean, deviation = np.split(self._data.decode(data).image, 2, axis=-1)
        except BadImage as bad:
            raise InputError(
                f"{self._records.name(index)} of {self._data.path} is no latent to use ({bad}): encode the images "
                "again, or leave it out by `shortcut prepare`."
            ) from bad
        return {"mean": mean, "deviation": deviation, "label": label if self._data.labels else 0}
