"""What all sets of image files have in common: records of bytes, decoded, cropped and resized as they are asked for."""

import hashlib
import math
import os
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, get_args

import numpy as np
from jaxtyping import Int

from shortcut_models.data.base import Batch, Data, Source, check_first, describe, take, whole_path
from shortcut_models.data.crop import Crop, square
from shortcut_models.data.decode import MAX_PIXELS, Alpha, BadImage, Decoded, decode
from shortcut_models.errors import InputError, check_whole

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

MOST_LEFT_OUT = 0.01
"""Share of images that may turn out unreadable while training; more, and it stops."""


MOST_PIXELS = math.isqrt(MAX_PIXELS)
"""Height and width of the largest image that is read, and so of what it is resized to."""

FOUND = "found"
"""In place of a VAE's file: wherever it is found."""


class LeftOut(NamedTuple):
    """An image that is not used, and why: one of `decode.REASONS`."""

    name: str
    reason: str
    detail: str


class Records(Protocol):
    """Image files of one split, wherever they lie; reading is safe from several threads.

    Labels lie in [0, len(class_names)), and are 0 where there are no classes.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; () if there are none."""
        ...

    @property
    def left_out(self) -> list[LeftOut]:
        """What was found, and is none of the records."""
        ...

    @property
    def warnings(self) -> list[str]:
        """What a person should know about them, one sentence each."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """What a report calls a record."""
        ...

    def read(self, index: int, /) -> tuple[bytes | np.ndarray, int]:
        """The bytes of an image file, or pixels uint8 (H, W, C), and the label; raises BadImage."""
        ...


@dataclass(frozen=True, kw_only=True)
class Images(Data):
    """Images in files. A new format is a class derived from this one, with `records`, `splits` and `recognise`."""

    path: str = ""
    """Where they lie."""
    size: int | None = None
    """Height and width to which they are cropped and resized; by default as they are stored."""
    crop: Crop = "center"
    """Crop the middle and resize by a triangle filter, as the original does, or as ADM, DiT and EDM2 do (adm)."""
    flip: bool = False
    """Whether training sees them mirrored left to right half of the time; wrong for letters and flags."""
    alpha: Alpha = "drop"
    """What becomes of transparency: dropped, so that hidden colours appear, or laid on white or black."""
    labels: bool = True
    """Whether to use the classes; without, all have label 0 and there is one class, without a name."""
    first: int = 0
    """Only so many, the first, to see whether they can be learnt by heart; 0 is all."""
    vae: str = ""
    """File of the SD-VAE that encodes them in front of every step; `found` is what SHORTCUT_VAE names, or the hub's
    cache has. Empty: the network sees pixels."""
    vae_dtype: Literal["float32", "bfloat16"] = "float32"
    """What that VAE computes in; bfloat16, for GPUs, is off by 1.5 to 1.8 %."""
    vae_identity: str = ""
    """SHA-256 of that VAE's weights, without which any is taken; a run notes it here."""

    def __post_init__(self) -> None:
        # A run that records its data is read from other working directories.
        object.__setattr__(self, "path", whole_path(self.path))
        if self.vae != FOUND:
            object.__setattr__(self, "vae", whole_path(self.vae))
        if self.size is not None:
            object.__setattr__(self, "size", check_size("data.size", self.size))
        check_crop(self.crop)
        check_first(self.first)

    @classmethod
    @abstractmethod
    def recognise(cls, place: str) -> list[Self]:
        """The data of this kind that lie at a path, or have this name, if any."""

    @abstractmethod
    def records(self, split: str) -> Records:
        """The records of a split; raises InputError if they are missing, damaged or have no such split."""

    def open(self, split: str = "train") -> "ImageSource":
        """Open a split; raises InputError if it is missing, damaged or empty."""
        records = self.records(split)
        if not len(records):
            raise InputError(f"{describe(self)} holds no images in split {split!r}.")
        return ImageSource(self, records, flip=self.flip and split == self.splits[0], first=self.first)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels, of latents if there is a VAE; raises InputError if images have their own sizes."""
        if self.size is None:
            raise InputError(
                f"{describe(self)} holds images of any size: say to which they are resized, --data.size 64."
            )
        return self._encoded((self.size, self.size, 3))

    def _encoded(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what the network sees of an image of that shape."""
        return self.codec.shape(image) if self.vae else image

    @property
    def codec(self) -> "Codec":
        """Pixels, or the VAE that encodes them."""
        if not self.vae:
            return super().codec
        from shortcut_models.codecs.sd_vae_file import find_vae  # It needs JAX; choosing data does not.

        # Weights that are known can be had from anywhere, when the file that a run began with has moved.
        moved = self.vae_identity and not Path(self.vae).exists()
        file = find_vae(None if self.vae == FOUND or moved else self.vae, flag="--data.vae")
        codec = _codec(file, file.stat().st_mtime_ns, self.vae_dtype)
        if self.vae_identity not in ("", codec.identity):
            raise InputError(
                f"{file} is the VAE {codec.identity[:12]}, but the VAE {self.vae_identity[:12]} encodes these data: "
                "name its file by SHORTCUT_VAE."
            )
        return codec

    def recorded(self) -> Self:
        """With the identity of the VAE in front, if there is one."""
        return replace(self, vae_identity=self.codec.identity) if self.vae else self

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); 1 for data without labels."""
        return max(len(self.class_names), 1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of their labels."""
        return self.records(self.splits[0]).class_names if self.labels else ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Over 8x8 averaged pixels, which need no other network."""
        return ("frechet-pixels8x8",)

    @property
    def place(self) -> str:
        """Where the files lie, of data that are named too."""
        return self.path

    @abstractmethod
    def fingerprint(self) -> Iterable[str]:
        """What tells these files from others: names and sizes, but not the times of copies."""

    def identity(self) -> str:
        """A digest of the files and of what is made of them."""
        digest = hashlib.sha256(repr((type(self).__name__, self.size, self.crop, self.alpha, self.labels)).encode())
        for line in (*([f"first {self.first}"] if self.first else []), *self.fingerprint()):
            digest.update(os.fsencode(line) + b"\n")
        return f"images-{digest.hexdigest()[:16]}"

    def decode(self, data: bytes | np.ndarray) -> Decoded:
        """Pixels of a record, cropped and resized if there is a size; raises BadImage."""
        image, notes = Decoded(data, ()) if isinstance(data, np.ndarray) else decode(data, self.alpha)
        if self.size is None:
            return Decoded(image, notes)
        height, width = image.shape[:2]
        smaller = ("smaller_than_target",) if min(height, width) < self.size else ()
        extreme = ("extreme_aspect",) if max(height, width) > 4 * min(height, width) else ()
        return Decoded(square(image, self.size, self.crop), (*notes, *smaller, *extreme))


def check_size(name: str, size: Any) -> int:
    """A height and width, Python's or NumPy's whole number; raises InputError unless images can be of it."""
    try:
        check_whole(name, size, 1, MOST_PIXELS)
    except InputError:
        shown = repr(size) if isinstance(size, str) else size
        raise InputError(f"{name} is {shown}, but images are 1 to {MOST_PIXELS} pixels high and wide.") from None
    return int(size)


def check_crop(crop: str) -> None:
    """Raise InputError unless it is a way to crop."""
    if crop not in get_args(Crop):
        raise InputError(f"data.crop is {crop!r}, but must be one of {', '.join(get_args(Crop))}.")


@lru_cache(maxsize=1)
def _codec(file: Path, changed: int, dtype: str) -> "Codec":
    """The codec of a VAE's file, read once: its shape is asked for before it is used."""
    del changed  # Another time of change is another file.
    import jax

    from shortcut_models.codecs.latents import Latents
    from shortcut_models.codecs.sd_vae_file import load_vae

    vae = load_vae(file, dtype=dtype)
    return Latents.of(vae, at_once=vae.at_once * jax.device_count())


class ImageSource:
    """The seam of a source: {"image": uint8 (H, W, C), "label": int}.

    One image by its index is that image, or an InputError that says why there is none. In a batch
    one that cannot be read is replaced by the next that can, because an hour of training is not to
    end for it, until more than `MOST_LEFT_OUT` of all are like that.
    """

    def __init__(self, data: Images, records: Records, flip: bool = False, first: int = 0) -> None:
        self._data, self.records, self._labelled = data, records, data.labels and bool(records.class_names)
        self.bad: dict[int, BadImage] = {}
        """Images that turned out unreadable, by index."""
        self.mirror = Mirrored(self) if flip else None
        self.in_order: bool = getattr(records, "in_order", False)
        """Whether a random image costs as much as its neighbours together."""
        self._count = min(first, len(records)) if first else len(records)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0 to {len(self) - 1}.")
        return self.noted(index)[0]

    def noted(self, index: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The example, and what was done or ignored to read it; raises InputError if it cannot be read."""
        try:
            return self._read(index)
        except BadImage as bad:
            raise InputError(
                f"{self.records.name(index)} of {describe(self._data)} is no image to use: {bad}; repair or remove it."
            ) from bad

    def remarks(self) -> list[str]:
        """What is odd about the files, and how many are not used, or could not be read so far."""
        name, left_out = describe(self._data), self.records.left_out
        found = [f"{name}: {warning}." for warning in self.records.warnings]
        lists = "`shortcut prepare --check` lists them"
        if left_out:
            bad = left_out[0]
            found.append(
                f"{name}: {_files(len(left_out))} not used, such as {bad.name} ({bad.reason}, {bad.detail}); {lists}."
            )
        if self.bad:
            place, reason = next(iter(self.bad.items()))
            found.append(
                f"{name}: {_files(len(self.bad))} not readable, such as {self.records.name(place)} ({reason}), and "
                f"others stood in for them; {lists}."
            )
        return found

    def labels(self) -> Int[np.ndarray, " count"]:
        """The label of every record that can be read; none is decoded for it."""
        found = []
        for index in range(len(self)):
            try:
                found.append(self.records.read(index)[1] if self._labelled else 0)
            except BadImage as bad:
                self.bad[index] = bad
                self._check_share(index, bad)
        return np.array(found, np.int32)

    def batch(self, indices: Int[np.ndarray, " count"]) -> Batch:
        """The images of these indices, one after the other, all of one size."""
        found = [self._read_near(int(index)) for index in indices]
        return {
            "image": np.stack([example["image"] for example in found]),
            "label": np.array([example["label"] for example in found], np.int32),
        }

    def _read(self, index: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        data, label = self.records.read(index)
        found = self._data.decode(data)
        return {"image": found.image, "label": label if self._labelled else 0}, found.notes

    def _read_near(self, index: int) -> dict[str, Any]:
        for place in (*range(index, len(self)), *range(index)):
            if place in self.bad:
                continue
            try:
                return self._read(place)[0]
            except BadImage as bad:
                self.bad[place] = bad
                self._check_share(place, bad)
        raise InputError(f"{describe(self._data)} holds no image that can be read.")

    def _check_share(self, place: int, bad: BadImage) -> None:
        if len(self.bad) > MOST_LEFT_OUT * len(self):
            raise InputError(
                f"{len(self.bad)} of the {len(self)} images of {describe(self._data)} cannot be read, at last "
                f"{self.records.name(place)} ({bad}): `shortcut prepare --check` lists them, and `shortcut prepare` "
                f"leaves them out."
            )


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


class Mirrored:
    """A source's images flipped left to right."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        return example | {"image": example["image"][:, ::-1]}

    def batch(self, indices: Int[np.ndarray, " count"]) -> Batch:
        """The images of these indices, one after the other."""
        batch = take(self._source, indices)
        return batch | {"image": batch["image"][:, :, ::-1]}
