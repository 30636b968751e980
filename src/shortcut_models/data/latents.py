"""Latents as the tools of EDM2 and REPA encode them: a zip or a folder of arrays (8, h, w), mean and deviation.

The two write the same names and shapes, but of images in [0, 1] and in [-1, 1]: nothing in the files
tells them apart, so that whoever has them must say.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from shortcut_models.data.base import Data, whole_path
from shortcut_models.data.decode import BadImage
from shortcut_models.data.layout import LABELS, Listing, lay_out
from shortcut_models.data.zipped import Archive
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

_STEM = "img-mean-std-"


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
        names = self._archive.names
        found = [name for name in names if _is_latent(name)]
        if not found:
            raise InputError(f"{self.path} holds no latents: they are called {_STEM}00000000.npy and so on.")
        return lay_out(found, labels=self._archive.read(LABELS) if LABELS in names else b'{"labels": null}')["train"]

    def open(self, split: str = "train") -> "LatentSource":
        """All of them, sorted by name."""
        self.check_split(split)
        return LatentSource(self._archive, self._listing, self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of a latent."""
        return self.open()[0]["mean"].shape

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
        """Names and sizes, and which tool's they are."""
        digest = hashlib.sha256(repr((type(self).__name__, self.labels)).encode())
        for line in self._archive.lines():
            digest.update(os.fsencode(line) + b"\n")
        return f"latents-{digest.hexdigest()[:16]}"


@dataclass(frozen=True, kw_only=True)
class Edm2Latents(Latents):
    """Of images in [0, 1], whitened channel by channel (Karras et al., arXiv 2312.02696)."""

    @property
    def codec(self) -> "Codec":
        """Not there yet: it is (x - [5.81, 3.25, 0.12, -2.15]) * 0.5 / [4.17, 4.62, 3.71, 3.28]; raises InputError."""
        raise InputError(
            f"{self.path} holds EDM2's latents, of images in [0, 1], with a scale for each channel: "
            "they can be opened, but not yet be trained on; encode the images with `shortcut prepare --vae`."
        )


@dataclass(frozen=True, kw_only=True)
class RepaLatents(Latents):
    """Of images in [-1, 1], times 0.18215 (Yu et al., arXiv 2410.06940)."""

    @property
    def codec(self) -> "Codec":
        """SD-VAE as everywhere else."""
        return sd_vae()


def sd_vae(identity: str = "") -> "Codec":
    """The codec of latents of the SD-VAE with this identity; "" is one that the data do not name."""
    from shortcut_models.codecs.sd_vae import Latents as Codec  # It needs JAX; choosing data does not.

    return Codec(identity=identity)


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

    def lines(self) -> Iterable[str]:
        for name in self.names:
            yield f"{name} {(self._root / name).stat().st_size}"


class LatentSource:
    """The seam of a source: {"mean", "deviation": float32 (h, w, c), "label": int}."""

    def __init__(self, archive: "Archive | _Tree", listing: Listing, labelled: bool) -> None:
        self._archive, self._listing, self._labelled = archive, listing, labelled

    def __len__(self) -> int:
        return len(self._listing.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0 to {len(self) - 1}.")
        name = self._listing.names[index]
        try:
            moments = np.load(io.BytesIO(self._archive.read(name)), allow_pickle=False)
        except (BadImage, OSError, ValueError, EOFError) as error:
            raise InputError(f"{name} is damaged ({error}): encode the latents again.") from error
        if moments.ndim != 3 or moments.shape[0] % 2 or moments.dtype != np.float32:
            raise InputError(
                f"{name} is {moments.dtype} {moments.shape}, but mean and deviation are float32 (8, h, w)."
            )
        mean, deviation = np.split(np.moveaxis(moments, 0, -1), 2, axis=-1)
        label = int(self._listing.labels[index]) if self._labelled else 0
        return {"mean": np.ascontiguousarray(mean), "deviation": np.ascontiguousarray(deviation), "label": label}
