"""Images in the tar files of WebDataset: members side by side whose names agree up to the first dot are one sample."""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from shortcut_models.data.decode import BadImage, check_bytes
from shortcut_models.data.images import Images, LeftOut
from shortcut_models.data.layout import SPLITS, SUFFIXES, canonical, numbered
from shortcut_models.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WebDataset(Images):
    """A tar file, a folder of them, or a folder with a folder of them for each split; labels in `cls` members."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """Tar files by their suffix."""
        return [cls(path=place)] if _tars(Path(place)) else []

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        found = _tars(Path(self.path))
        if not found:
            raise InputError(f"{self.path} holds no .tar files.")
        return found

    @cached_property
    def _records(self) -> dict[str, "TarRecords"]:
        return {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that the folders name; else train alone."""
        return tuple(self._files)

    def records(self, split: str) -> "TarRecords":
        """The samples of a split, in the order of the files."""
        split = canonical(split)
        self.check_split(split)
        if split not in self._records:
            self._records[split] = TarRecords(self._files[split])
        return self._records[split]

    def fingerprint(self) -> Iterable[str]:
        """Names and sizes of the tar files, and of what is in them."""
        for split in self.splits:
            for sample in self.records(split).samples:
                yield f"{split} {sample.file.name} {sample.name} {sample.offset} {sample.size} {sample.label}"


def _tars(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        return {"train": [path]} if path.suffix == ".tar" else {}
    if not path.is_dir():
        return {}
    if own := sorted(path.glob("*.tar")):
        return {"train": own}
    found = {}
    for split, names in SPLITS.items():
        if tars := [tar for name in names for tar in sorted((path / name).glob("*.tar"))]:
            found[split] = tars
    return found


class Sample(NamedTuple):
    """Where an image lies."""

    file: Path
    name: str
    offset: int
    size: int
    label: int | None


class TarRecords:
    """Samples of tar files; raises InputError if one is cut short or compressed, or some samples have no label."""

    def __init__(self, files: list[Path]) -> None:
        self.left_out: list[LeftOut] = []
        self.samples = [sample for file in files for sample in _samples(file, self.left_out)]
        labelled = [sample.label for sample in self.samples if sample.label is not None]
        if labelled and len(labelled) < len(self.samples):
            bare = next(sample for sample in self.samples if sample.label is None)
            raise InputError(
                f"{bare.file} has a sample without a label, {bare.name}: all need a `cls` member, or none."
            )
        self.class_names = numbered(labelled, files[0].parent if len(files) > 1 else files[0])
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        """The tar file, and the member in it."""
        sample = self.samples[index]
        return f"{sample.file.name}/{sample.name}"

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The member's bytes and the label."""
        sample = self.samples[index]
        check_bytes(sample.size)
        try:
            with sample.file.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), sample.size, sample.offset)
        except OSError as error:
            raise BadImage("unreadable", error.strerror or "not readable") from error
        if len(data) < sample.size:
            raise BadImage("corrupt", "member of the tar: cut short")
        return data, sample.label or 0


def _samples(path: Path, left_out: list[LeftOut]) -> Iterator[Sample]:
    """The samples of a tar file that have an image: the first, if there are several."""
    key, image, label = "", None, None
    for member, found in _members(path):
        head, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if f"{head}/{stem}" != key:
            if image is not None:
                yield Sample(path, image.name, image.offset_data, image.size, label)
            key, image, label = f"{head}/{stem}", None, None
        if f".{suffix.lower()}" in SUFFIXES:
            if image is None:
                image = member
            else:
                left_out.append(LeftOut(f"{path.name}/{member.name}", "format", "a second image of one sample"))
        elif suffix == "cls":
            if not found.strip().isdigit() or len(found) > 20:
                raise InputError(f"{path} has a label that is no whole number: {member.name} holds {found[:20]!r}.")
            label = int(found)
    if image is not None:
        yield Sample(path, image.name, image.offset_data, image.size, label)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Regular files of a tar, and the bytes of those that are labels."""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                raise InputError(f"{path} is compressed by gzip: unpack it first.")
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, tarfile.BLOCKSIZE), os.SEEK_END)
            if any(file.read()):  # A whole tar ends with empty blocks; Python's reader does not ask for them.
                raise InputError(f"{path} is cut short: it lacks a tar's end; copy it again.")
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if member.offset_data + member.size > size:
                    raise InputError(f"{path} is cut short within {member.name}: copy it again.")
                stored = archive.extractfile(member) if member.name.endswith(".cls") else None
                yield member, stored.read() if stored is not None else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an uncompressed tar ({error}): it may be cut short.") from error
