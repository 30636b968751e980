"""Images in the tar files of WebDataset: members side by side whose names agree up to the first dot are one sample."""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from tqdm import tqdm

from shortcut_models.data.cache import remembered
from shortcut_models.data.compressed import compressed_tars, refuse_compressed
from shortcut_models.data.decode import BadImage, check_bytes
from shortcut_models.data.images import Images, LeftOut
from shortcut_models.data.layout import SPLITS, SUFFIXES, canonical, numbered
from shortcut_models.errors import InputError

LONGEST_NAME = 1_000
"""In characters: names lie in a table as wide as the longest."""


@dataclass(frozen=True, kw_only=True)
class WebDataset(Images):
    """A tar file, a folder of them, or a folder with a folder of them for each split; labels in `cls` members."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """Tar files by their suffix."""
        return [cls(path=place)] if _tars(Path(place)) else []

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        path = Path(self.path)
        if packed := compressed_tars(path):
            refuse_compressed(packed[0])
        found = _tars(path)
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
            yield from self.records(split).lines(split)


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
    """Where an image lies in a tar file."""

    name: str
    offset: int
    size: int
    label: int


UNLABELLED, SECOND = -1, -2
"""In place of a label: the sample has none; or the image is the second of a sample, and not used."""


class TarRecords:
    """Samples of tar files; raises InputError if one is cut short or compressed, or some samples have no label."""

    def __init__(self, files: list[Path]) -> None:
        # Tar files have no table of contents: to walk a million samples takes a minute or two.
        # The number in the name is of the rules by which a table is made: others make another table.
        table = remembered("webdataset-2", files, lambda: _table(files))
        self._files, self._samples = files, table[table["label"] != SECOND]
        self.left_out = [
            LeftOut(self._name(row), "format", "a second image of one sample: names that agree up to the first dot")
            for row in table[table["label"] == SECOND]
        ]
        where = files[0].parent if len(files) > 1 else files[0]
        if not len(table):
            raise InputError(f"{where} holds no images: no member's name ends with an image's suffix, such as .jpg.")
        labelled = self._samples["label"][self._samples["label"] != UNLABELLED]
        if 0 < len(labelled) < len(self._samples):
            bare = self._samples[self._samples["label"] == UNLABELLED][0]
            raise InputError(
                f"{files[bare['file']]} has a sample without a label, {_text(bare)}: all need a `cls` member, or none."
            )
        self.class_names = numbered(labelled.tolist(), where)
        self.warnings: list[str] = []
        folders = {_text(row).rpartition("/")[0] for row in self._samples[:: max(1, len(self._samples) // 1000)]}
        if not len(labelled):
            told = "no sample has a label, which is a `cls` member and nothing else"
            in_folders = "; the folders in a tar are not taken for classes: unpack it if they are"
            self.warnings.append(told + in_folders * (len(folders) > 1))

    def __len__(self) -> int:
        return len(self._samples)

    def _name(self, row: np.void) -> str:
        return f"{self._files[row['file']].name}/{_text(row)}"

    def lines(self, split: str) -> Iterator[str]:
        """What and where each sample is."""
        for row in self._samples:
            label = None if row["label"] == UNLABELLED else row["label"]
            yield f"{split} {self._files[row['file']].name} {_text(row)} {row['offset']} {row['size']} {label}"

    def name(self, index: int) -> str:
        """The tar file, and the member in it."""
        return self._name(self._samples[index])

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The member's bytes and the label."""
        sample = self._samples[index]
        number, offset, size, label = (int(sample[field]) for field in ("file", "offset", "size", "label"))
        check_bytes(size)
        try:
            with self._files[number].open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise BadImage("unreadable", error.strerror or "not readable") from error
        if len(data) < size:
            raise BadImage("corrupt", "member of the tar: cut short")
        return data, max(label, 0)


def _table(files: list[Path]) -> np.ndarray:
    """The samples of all files, a row each: the number of its file, and the fields of `Sample`."""
    rows = []
    for number, file in enumerate(tqdm(files, desc="reading what is in the tar files", unit="file", delay=2)):
        for name, *place in _samples(file):
            rows.append((number, name.encode(errors="surrogateescape"), *place))
    width = max((len(row[1]) for row in rows), default=0)
    return np.array(rows, [("file", "i4"), ("name", f"S{max(width, 1)}"), *((f, "i8") for f in Sample._fields[1:])])


def _text(row: np.void) -> str:
    return row["name"].decode(errors="surrogateescape")


def _samples(path: Path) -> Iterator[Sample]:
    """The images of a tar file: one for each sample, and then those that are second to it."""
    for _, members in groupby(_members(path), lambda pair: _key(pair[0].name)):
        images, labels = {}, {}
        for member, found in members:
            # A field goes by its last suffix, as WebDataset's own decoders have it: `v0.png` is an image.
            field, _, suffix = f".{member.name.rpartition('/')[2].partition('.')[2]}".rpartition(".")
            if f".{suffix.lower()}" in SUFFIXES:
                images[member] = field
            elif suffix == "cls":
                labels[field] = member, found
        # The image itself rather than what was derived from it, such as `depth.png` beside `jpg`; else the first.
        for number, (image, field) in enumerate(sorted(images.items(), key=lambda pair: pair[1] != "")):
            label = SECOND if number else _label(path, labels, field)
            yield Sample(image.name, image.offset_data, image.size, label)


def _key(name: str) -> str:
    """What the members of a sample have in common: the folder, and the name up to its first dot."""
    head, _, base = name.rpartition("/")
    return f"{head}/{base.partition('.')[0]}"


def _label(path: Path, labels: dict[str, tuple[tarfile.TarInfo, bytes]], field: str) -> int:
    """The label of an image among those of its sample: that of the same field, else `cls`, else the only one."""
    if not labels:
        return UNLABELLED
    for name in (field, "", *(labels if len(labels) == 1 else ())):
        if name in labels:
            member, found = labels[name]
            if not found.strip().isdigit() or len(found) > 18:
                raise InputError(f"{path} has a label that is no whole number: {member.name} holds {found[:20]!r}.")
            return int(found)
    names = " and ".join(member.name for member, _ in labels.values())
    raise InputError(f"{path} has several labels for one sample, {names}: call the one to use `cls`.")


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Regular files of a tar, and the bytes of those that are labels."""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                refuse_compressed(path)
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, tarfile.BLOCKSIZE), os.SEEK_END)
            if any(file.read()):  # A whole tar ends with empty blocks; Python's reader does not ask for them.
                raise InputError(f"{path} is cut short: it lacks a tar's end; copy it again.")
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if len(member.name) > LONGEST_NAME:
                    raise InputError(
                        f"{path} has a member whose name has {len(member.name)} characters, {member.name[:20]}...: "
                        f"at most {LONGEST_NAME} are read."
                    )
                if member.offset_data + member.size > size:
                    raise InputError(f"{path} is cut short within {member.name}: copy it again.")
                stored = archive.extractfile(member) if member.name.endswith(".cls") else None
                yield member, stored.read() if stored is not None else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an uncompressed tar ({error}): it may be cut short.") from error
