"""Images or latents that `shortcut prepare` wrote: memory-mapped arrays in shards, and manifest.json.

Shard k holds images-K.npy, or mean-K.npy and deviation-K.npy with mirrored copies, and labels-K.npy.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Int

from shortcut_models.data.base import Batch, Data, Source, check_first, whole_path
from shortcut_models.data.images import Mirrored, check_size
from shortcut_models.data.latents import TOOLS, codec_of
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
DTYPES = {
    "image": np.dtype(np.uint8),
    "mean": np.dtype(np.float16),
    "deviation": np.dtype(np.float16),
    "label": np.dtype(np.int32),
}
"""What the arrays hold."""
HELD: dict[str, type] = {
    "kind": str,
    "complete": bool,
    "count": int,
    "shape": list,
    "num_classes": int,
    "class_names": list,
    "flip": bool,
    "mirrored": bool,
    "settings": dict,
}
"""What a manifest holds from the start, of which types."""
HELD_AT_LAST: dict[str, type] = {"left_out": list, "shards": list}
"""What it holds besides when it is complete."""
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
        if self.size is not None:
            object.__setattr__(self, "size", check_size("data.size", self.size))
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
    def is_here(self) -> bool:
        """Whether what was prepared is where it was; or nothing says yet where that is."""
        return not self.path or Path(self.path, MANIFEST).is_file()

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, whatever split of the source it was, and the folders below."""
        found = sorted({canonical(folder.name) for folder in self._below} - {"train"})
        return ("train", *found)

    @property
    def _below(self) -> list[Path]:
        """The folders of other splits."""
        below = Path(self.path).iterdir() if Path(self.path).is_dir() else ()
        return sorted(folder for folder in below if (folder / MANIFEST).is_file())

    def open(self, split: str = "train") -> Source:
        """Map a split; raises InputError if it is missing, damaged, of another size or not complete."""
        split = canonical(split)
        self.check_split(split)
        if split == "train":
            return self._open()
        others = [folder for folder in self._below if canonical(folder.name) == split]
        if len(others) > 1:
            named = " and ".join(folder.name for folder in others)
            raise InputError(f"the folders {named} in {self.path} are both called as the {split} split: remove one.")
        other = replace(self, path=str(others[0]), flip=False)
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
            raise InputError(f"{self.path} holds no mirrored latents: prepare it with them, or use --data.flip 0.")
        return source

    def _check_size(self) -> None:
        size = self.manifest["settings"]["size"]
        if self.size not in (None, size):
            raise InputError(
                f"{self.path} was prepared with --size {size}, but data.size is {self.size}: prepare it with "
                f"--size {self.size}, or use --data.size {size} with a network of that size."
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: remove {folder}, and prepare the data again.") from error
    if found != FORMAT:
        raise InputError(f"{path} has format {found}, but this version reads {FORMAT}: prepare the data again.")
    held = HELD | (HELD_AT_LAST if manifest.get("complete") else {})
    odd = [name for name, kind in held.items() if type(manifest.get(name)) is not kind]
    wrong = f"in {' and '.join(odd)}" if odd else next(_contradictions(manifest), None)
    if wrong:
        raise InputError(f"{path} is damaged ({wrong}): remove {folder}, and prepare the data again.")
    return manifest


def _contradictions(manifest: dict[str, Any]) -> Iterator[str]:
    """What cannot be in a manifest whose fields are of the right types, each if what is before it can."""
    shape, size = manifest["shape"], manifest["settings"].get("size")
    named, scale = len(manifest["class_names"]), manifest.get("scale")
    if manifest["kind"] not in FILES:
        yield "in kind"
    if len(shape) != 3 or not all(_is_whole(length, 1) for length in shape):
        yield f"shape is {shape}, but height, width and channels are whole numbers"
    if not _is_whole(size, 1) or size < shape[0]:
        yield f"size in settings is {size}, but must be a whole number"
    if not all(type(name) is str for name in manifest["class_names"]) or manifest["num_classes"] != max(named, 1):
        names = f"{named} names" if all(type(name) is str for name in manifest["class_names"]) else "no texts"
        yield f"num_classes is {manifest['num_classes']}, but class_names holds {names}"
    if type(manifest.get("vae", 0)) not in (str, type(None)) or not (scale is None or type(scale) in (int, float)):
        yield "in vae and scale"
    if manifest.get("latents", "") not in ("", *TOOLS):
        yield "in latents"
    if not manifest["complete"]:
        return
    shards = manifest["shards"]
    if not all(type(shard) is dict and _is_whole(shard.get("count"), 0) for shard in shards):
        yield "in shards"
    stored = sum(shard["count"] for shard in shards)
    if stored < 1 or stored != manifest["count"]:
        yield f"count is {manifest['count']}, but its shards hold {stored}"


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


class ShardSource:
    """The seam of a source over shards of arrays, each mapped when something in it is asked for."""

    def __init__(
        self, folder: Path, manifest: dict[str, Any], labelled: bool, ending: str = "", first: int = 0
    ) -> None:
        self._folder, self._kind, self._num_classes = folder, manifest["kind"], manifest["num_classes"]
        self._labelled, self._shape = labelled and self._num_classes > 1, tuple(manifest["shape"])
        self._files = {name: file + ending for name, file in FILES[self._kind].items()} | {"label": "labels"}
        self._counts = [shard["count"] for shard in manifest["shards"]]
        self._ends = np.cumsum(self._counts)
        self._count = min(first or sum(self._counts), sum(self._counts))
        self._mapped: dict[tuple[str, int], memoryview] = {}
        self.mirror: Source | None = None
        for number, count in enumerate(self._counts):
            for name, file in self._files.items() if count else ():
                check_size_of(folder / f"{file}-{number:05}.npy", math.prod(self._shape_of(name, count)), DTYPES[name])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0 to {len(self) - 1}.")
        example: dict[str, Any] = {name: array[0] for name, array in self.batch(np.array([index])).items()}
        return example | {"label": int(example["label"])}

    def labels(self) -> Int[np.ndarray, " count"]:
        """The label of every example; no image is read for it."""
        return self._labels[: len(self)] if self._labelled else np.zeros(len(self), np.int32)

    def batch(self, indices: Int[np.ndarray, " count"]) -> Batch:
        """The examples of these indices, one after the other."""
        shards = np.searchsorted(self._ends, indices, side="right")
        rows = indices - (self._ends - self._counts)[shards]
        places = list(zip(shards.tolist(), rows.tolist(), strict=True))
        batch: Batch = {}
        for name in FILES[self._kind]:
            size = math.prod(self._shape) * DTYPES[name].itemsize
            mapped = {number: self._map(name, number) for number in set(shards.tolist())}
            # Each row is copied once, from its shard to its place: NumPy would gather the rows of every shard apart
            # and then put them in order.
            joined = bytearray().join([mapped[number][row * size : (row + 1) * size] for number, row in places])
            batch[name] = np.frombuffer(joined, DTYPES[name]).reshape(-1, *self._shape)
        labels = self._labels[indices] if self._labelled else np.zeros(len(indices), np.int32)
        return batch | {"label": labels}

    @cached_property
    def _labels(self) -> Int[np.ndarray, " all"]:
        """Of all shards; raises InputError for one that is none of the classes'."""
        parts = (self._map("label", number) for number, count in enumerate(self._counts) if count)
        labels = np.frombuffer(b"".join(parts), DTYPES["label"])
        if labels.min() < 0 or labels.max() >= self._num_classes:
            raise InputError(
                f"{self._folder} has labels from {labels.min()} to {labels.max()}, but {self._num_classes} classes: "
                "prepare the data again."
            )
        return labels

    def _map(self, name: str, number: int) -> memoryview:
        """The bytes of a shard's array."""
        if (name, number) not in self._mapped:
            path = self._folder / f"{self._files[name]}-{number:05}.npy"
            array = map_array(path, self._shape_of(name, self._counts[number]), DTYPES[name])
            self._mapped[name, number] = array.data.cast("B")
        return self._mapped[name, number]

    def _shape_of(self, name: str, count: int) -> tuple[int, ...]:
        return (count, *(self._shape if name != "label" else ()))


def check_size_of(path: Path, items: int, dtype: np.dtype) -> None:
    """Raise InputError for an array that is missing, or cut short by more than its header: found before it is read."""
    try:
        size = path.stat().st_size
    except OSError:
        raise InputError(f"{path} is missing: run the command that prepared it again.") from None
    if size < items * dtype.itemsize:
        raise InputError(f"{path} is damaged (it is cut short): run the command that prepared it again.")


def map_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array of a file, mapped; raises InputError unless it is whole, and of this shape and type."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}): run the command that prepared it again.") from error
    if (array.shape, array.dtype) != (shape, dtype) or not array.flags.c_contiguous:
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}, but the manifest says {dtype} {shape}: run the command that "
            "prepared it again."
        )
    return array
