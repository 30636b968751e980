"""IDX files, the format of MNIST and its family: a header of big-endian sizes, then bytes. Gzip or not."""

import gzip
import hashlib
import io
import math
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from shortcut_models.data.images import Images, LeftOut
from shortcut_models.data.layout import canonical, numbered
from shortcut_models.errors import InputError

MAGIC, GZIP = b"\0\0\x08", b"\x1f\x8b"
"""How a file of bytes begins, and how one that is compressed."""

PART = 1 << 24
"""Bytes that are read at once."""

_NAME = re.compile(r"(?P<before>.*?)(?P<split>train|t10k|test)(?P<gap>[-_])images(?P<after>[-.]idx[34]-ubyte(\.gz)?)")


@dataclass(frozen=True, kw_only=True)
class Idx(Images):
    """A folder of IDX files called `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and the like."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A folder with a file of images by such a name."""
        return [cls(path=place)] if cls is Idx and _files(Path(place)) else []

    @cached_property
    def _found(self) -> dict[str, tuple[Path, Path]]:
        found = _files(Path(self.path))
        if not found:
            raise InputError(
                f"{self.path} holds no IDX files such as train-images-idx3-ubyte or t10k-images-idx3-ubyte.gz."
            )
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """As the files say; `t10k` is test."""
        return tuple(self._found)

    @cached_property
    def _read(self) -> dict[str, "IdxRecords"]:
        return {}

    def records(self, split: str) -> "IdxRecords":
        """Images and labels of a split."""
        self.check_split(canonical(split))
        split = canonical(split)
        if split not in self._read:
            images, labels = self._found[split]
            self._read[split] = IdxRecords(images.name, read_idx(images), read_idx(labels), str(labels))
        return self._read[split]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        stored = self.records(self.splits[0]).images.shape[1:]
        return self._encoded(stored if self.size is None else (self.size, self.size, stored[2]))

    def fingerprint(self) -> Iterable[str]:
        """A digest of every file."""
        for files in self._found.values():
            for file in files:
                yield f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}"


SHAPE = (28, 28, 1)
"""Height, width and channels of Fashion-MNIST."""


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Idx):
    """60,000 + 10,000 photographs of clothes, 28x28 in grey, in 10 classes: Xiao et al., arXiv 1708.07747."""

    path: str = "/usr/share/datasets/fashion-mnist"
    """Where they lie: by default where Debian's package puts them."""

    @cached_property
    def _found(self) -> dict[str, tuple[Path, Path]]:
        found = _files(Path(self.path))
        if not found:
            raise InputError(
                f"Fashion-MNIST is not in {self.path}: install Debian's package dataset-fashion-mnist, or name the "
                f"folder of its four IDX files by --data.path."
            )
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        """As in the paper's table."""
        names = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
        return names if self.labels else ()

    def records(self, split: str) -> "IdxRecords":
        """Images and labels of a split; raises InputError if they are of another size."""
        records = super().records(split)
        if records.images.shape[1:] != SHAPE:
            found = "x".join(map(str, records.images.shape[1:]))
            raise InputError(
                f"{self.path} holds images of {found}, but Fashion-MNIST's are 28x28x1: read them with idx:{self.path}."
            )
        return records

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels, known before the files are there."""
        return self._encoded(SHAPE if self.size is None else (self.size, self.size, 1))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Over features of our classifier, and over averaged pixels; of images resized over those alone."""
        if self.shape != SHAPE:
            return super().metrics
        return ("frechet-fashionnet1", "frechet-pixels7x7", "agreement-fashionnet1")


def _files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """For each split its images and labels; raises InputError where one is there twice, or without labels."""
    found: dict[str, tuple[Path, Path]] = {}
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    for images in names:
        match = _NAME.fullmatch(images.name)
        if match is None:
            continue
        split = "train" if match["split"] == "train" else "test"
        stem = f"{match['before']}{match['split']}{match['gap']}labels"
        after = match["after"].replace("idx3", "idx1").replace("idx4", "idx1").removesuffix(".gz")
        labels = next((file for file in names if file.name in (stem + after, f"{stem}{after}.gz")), None)
        if labels is None:
            raise InputError(f"{images} has no labels beside it: {stem}{after} is missing.")
        if split in found and images.name.removesuffix(".gz") != found[split][0].name:
            raise InputError(
                f"{folder} holds several sets of images ({found[split][0].name}, {images.name}): keep one."
            )
        found.setdefault(split, (images, labels))
    return dict(sorted(found.items(), reverse=True))


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes; raises InputError if the file is missing, damaged, or holds anything else."""
    try:
        with path.open("rb") as stored:
            packed = stored.read(len(GZIP)) == GZIP
            stored.seek(0)
            return _read_array(path, gzip.GzipFile(fileobj=stored) if packed else stored, packed)
    except EOFError:
        raise InputError(f"{path} is truncated, its gzip ends too early: copy it again.") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): copy it again.") from error


def _read_array(path: Path, file: io.BufferedIOBase, packed: bool) -> np.ndarray:
    """What the header names, and no more than one byte beyond: a small gzip may unpack to more than memory holds."""
    head = file.read(4)
    axes = head[3] if len(head) > 3 else 1
    if not (MAGIC.startswith(head[:3]) or head == GZIP[:1]) or not 1 <= axes <= 4:
        raise InputError(f"{path} is no IDX file of bytes: copy it again.")
    start = 4 + 4 * axes
    data = bytearray(head + file.read(start - len(head)))
    if len(data) < start:
        raise InputError(f"{path} is truncated, it holds {len(data)} bytes of its header: copy it again.")
    shape = struct.unpack(f">{axes}I", data[4:start])
    named = math.prod(shape)
    # In parts, because the header may name more than there is, and more than memory holds.
    while part := file.read(min(start + named + 1 - len(data), PART)):
        data += part
    stored = len(data) - start
    if stored != named:
        odd = f"is truncated, it holds {stored} bytes"
        if stored > named:
            odd = f"holds more than {named} bytes" if packed else f"holds {path.stat().st_size - start} bytes"
        raise InputError(f"{path} {odd}, but should hold {' x '.join(map(str, shape))}: copy it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class IdxRecords:
    """Images and labels in memory."""

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray, where: str) -> None:
        if images.ndim not in (3, 4) or 0 in images.shape[1:] or labels.shape != images.shape[:1]:
            raise InputError(
                f"{where} has shape {labels.shape}, but its images have {images.shape}: one label an image."
            )
        self.images = images if images.ndim == 4 else images[..., None]
        self._name, self._labels = name, labels
        self.class_names = numbered(labels.tolist(), where)
        self.left_out: list[LeftOut] = []
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """The file and the number of the image in it."""
        return f"{self._name}:{index}"

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """Pixels and label."""
        return self.images[index], int(self._labels[index])
