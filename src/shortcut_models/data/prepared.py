"""Images or latents that `shortcut prepare` wrote: memory-mapped arrays in shards, and manifest.json.

Shard k holds images-K.npy, or mean-K.npy and deviation-K.npy with mirrored copies, and labels-K.npy.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Int

from shortcut_models.data.base import Batch, Data, Source, check_first, whole_path
from shortcut_models.data.images import Mirrored
from shortcut_models.data.latents import codec_of
from shortcut_models.data.layout import canonical
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

FORMAT = 1
MANIFEST = "manifest.json"

FILES = {
    "images": {"image": "images"},
    "latents": {"mean": "mean", "deviation": "deviation"},
}
"""For each kind of prepared data, the files of what an example holds besides its label."""
MIRRORED = "-mirrored"
"""What the files of mirrored latents have at the end of their names."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Data):
    """What `shortcut prepare SOURCE PATH` made: uint8 images, or unscaled moments of latents in float16.

    Folders in it that are prepared too, such as PATH/validation, are its other splits.
    """

    path: str = ""
    """Folder that `shortcut prepare` wrote."""
    size: int | None = None
    """Height and width that the images must have; by default those that they have."""
    flip: bool | None = None
    """Whether training sees them mirrored half of the time; by default as is right for the source."""
    labels: bool = True
    """Whether to use the classes; without, all have label 0 and there is one class, without a name."""
    first: int = 0
    """Only so many, the first, to see whether they can be learnt by heart; 0 is all."""
    vae_identity: str = ""
    """SHA-256 of the weights of the VAE that the latents must be of; a run notes it here."""

    def __post_init__(self) -> None:
        # A run that records its data is read from other working directories.
        object.__setattr__(self, "path", whole_path(self.path))
        check_first(self.first)

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A folder with a manifest."""
        return [cls(path=place)] if Path(place, MANIFEST).is_file() else []

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json says; raises InputError if the data are missing, damaged or not complete."""
        manifest = read_manifest(Path(self.path))
        if not manifest["complete"]:
            raise InputError(
                f"{self.path} is not complete: run the `shortcut prepare` command that makes it again; it goes on "
                f"where it stopped."
            )
        if self.vae_identity not in ("", manifest["vae"]):
            made = "images, no latents" if manifest["kind"] == "images" else f"latents of {_vae(manifest['vae'])}"
            raise InputError(
                f"{self.path} holds {made}, but {_vae(self.vae_identity)} is needed: use what that one encoded."
            )
        return manifest

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, whatever split of the source it was, and the folders below."""
        below = Path(self.path).iterdir() if Path(self.path).is_dir() else ()
        found = sorted(folder.name for folder in below if (folder / MANIFEST).is_file())
        return ("train", *(canonical(name) for name in found if canonical(name) != "train"))

    def open(self, split: str = "train") -> Source:
        """Map a split; raises InputError if it is missing, damaged, of another size or not complete."""
        split = canonical(split)
        self.check_split(split)
        if split == "train":
            return self._open()
        names = (folder.name for folder in Path(self.path).iterdir() if canonical(folder.name) == split)
        other = replace(self, path=str(Path(self.path, next(names))), flip=False)
        if (other.shape, other.class_names) != (self.shape, self.class_names):
            raise InputError(f"{other.path} has other classes or another shape than {self.path}: prepare it again.")
        kinds = [{key: data.manifest.get(key) or "" for key in ("vae", "scale", "latents")} for data in (self, other)]
        if kinds[0] != kinds[1]:
            raise InputError(f"{other.path} holds latents of another VAE or scale than {self.path}: prepare it again.")
        return other._open()

    def _open(self) -> Source:
        about = self.manifest
        self._check_size()
        flip = about["flip"] if self.flip is None else self.flip
        source = ShardSource(Path(self.path), about, self.labels, first=self.first)
        if not flip:
            return source
        if about["kind"] == "images":
            source.mirror = Mirrored(source)
        elif about["mirrored"]:
            source.mirror = ShardSource(Path(self.path), about, self.labels, MIRRORED, self.first)
        else:
            raise InputError(f"{self.path} holds no mirrored latents: prepare it with them, or use --no-data.flip.")
        return source

    def _check_size(self) -> None:
        size = self.manifest["settings"]["size"]
        if self.size not in (None, size):
            raise InputError(
                f"{self.path} was prepared with --size {size}, but data.size is {self.size}: prepare it with "
                f"--size {self.size}, or choose what takes {size}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a stored item; that of a latent is the network's too."""
        self._check_size()
        return tuple(self.manifest["shape"])

    @property
    def num_classes(self) -> int:
        """As of the source; 1 for data without labels."""
        return max(len(self.class_names), 1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of their labels."""
        return tuple(self.manifest["class_names"]) if self.labels else ()

    @property
    def codec(self) -> "Codec":
        """Pixels, or the VAE that the latents are of."""
        if self.manifest["kind"] == "images":
            return super().codec
        about = self.manifest
        channels, factor = about["shape"][-1], about["settings"]["size"] // about["shape"][0]
        sizes = {"channels": channels, "factor": factor} | ({"scale": about["scale"]} if about.get("scale") else {})
        return codec_of(about.get("latents", ""), about["vae"] or "", **sizes)

    def recorded(self) -> "Prepared":
        """With the identity of the VAE, if its latents name it."""
        return replace(self, vae_identity=self.manifest["vae"] or "")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Over 8x8 averaged pixels, which need no other network."""
        return ("frechet-pixels8x8",)

    def identity(self) -> str:
        """A digest of the manifest, which names the source's files and all settings."""
        about = {name: self.manifest[name] for name in ("settings", "count", "left_out")} | {"labels": self.labels}
        about |= {"first": self.first} if self.first else {}
        return f"prepared-{hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]}"


def _vae(identity: str | None) -> str:
    """What a message calls a VAE."""
    return f"the VAE {identity[:12]}" if identity else "a VAE that they do not name"


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json; raises InputError if it is missing, damaged or of another version."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"]
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no prepared data: make them with `shortcut prepare SOURCE {folder}`."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove {folder}, and prepare the data again.") from error
    if found != FORMAT:
        raise InputError(f"{path} has format {found}, but this version reads {FORMAT}: prepare the data again.")
    return manifest


def _whole_rows(array: np.ndarray) -> np.ndarray:
    """The same memory with a row as one opaque item, which NumPy copies at once and not number by number."""
    return array.reshape(len(array), -1).view(np.dtype((np.void, array.nbytes // len(array))))[:, 0]


class ShardSource:
    """The seam of a source over shards of arrays, each mapped when something in it is asked for."""

    def __init__(
        self, folder: Path, manifest: dict[str, Any], labelled: bool, ending: str = "", first: int = 0
    ) -> None:
        self._folder, self._labelled = folder, labelled and manifest["num_classes"] > 1
        self._shape = tuple(manifest["shape"])
        self._files = {name: file + ending for name, file in FILES[manifest["kind"]].items()} | {"label": "labels"}
        self._counts = [shard["count"] for shard in manifest["shards"]]
        self._ends = np.cumsum(self._counts)
        self._count = min(first or sum(self._counts), sum(self._counts))
        self._mapped: dict[tuple[str, int], np.ndarray] = {}
        self.mirror: Source | None = None
        for number, count in enumerate(self._counts):
            for file in self._files.values() if count else ():
                if not (folder / f"{file}-{number:05}.npy").is_file():
                    raise InputError(
                        f"{folder / f'{file}-{number:05}.npy'} is missing: run the command that prepared it again."
                    )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0 to {len(self) - 1}.")
        example: dict[str, Any] = {name: array[0] for name, array in self.batch(np.array([index])).items()}
        return example | {"label": int(example["label"])}

    def batch(self, indices: Int[np.ndarray, " count"]) -> Batch:
        """The examples of these indices, one after the other."""
        shards = np.searchsorted(self._ends, indices, side="right")
        batch: Batch = {}
        # In the order of the file, which a disk likes, shard by shard.
        order = np.argsort(indices, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else []
        for part in parts:
            number = int(shards[part[0]])
            rows = indices[part] - (self._ends[number] - self._counts[number])
            for name in self._files:
                array = self._map(name, number)
                if name not in batch:
                    batch[name] = np.empty((len(indices), *array.shape[1:]), array.dtype)
                _whole_rows(batch[name])[part] = _whole_rows(array)[rows]
        return batch if self._labelled else batch | {"label": np.zeros(len(indices), np.int32)}

    def _map(self, name: str, number: int) -> np.ndarray:
        if (name, number) not in self._mapped:
            path = self._folder / f"{self._files[name]}-{number:05}.npy"
            try:
                # The plain view: indexing a memmap object takes several times as long.
                array = np.load(path, mmap_mode="r").view(np.ndarray)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(
                    f"{path} is damaged ({error}): remove it, and run the command that prepared it again."
                ) from error
            if array.shape != (self._counts[number], *(self._shape if name != "label" else ())):
                raise InputError(f"{path} has shape {array.shape}, which is not what the manifest says: prepare again.")
            self._mapped[name, number] = array
        return self._mapped[name, number]
