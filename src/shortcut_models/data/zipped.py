"""Image files in a zip: class folders or one folder as in `folder`, or the layout of EDM2 and StyleGAN.

Members are read by their place in the file, from any thread: `zipfile` itself takes some 0.5 ms
for each, under a lock.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from shortcut_models.data.decode import BadImage, check_bytes
from shortcut_models.data.images import Images
from shortcut_models.data.layout import (
    LABELS,
    Listing,
    canonical,
    common_folder,
    is_ignored,
    lay_out,
    looks_like_image,
    read_labels,
)
from shortcut_models.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Zip(Images):
    """Image files in a zip, laid out as in a folder, or with labels in dataset.json as EDM2 and StyleGAN write them."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A zip that holds image files."""
        if not zipfile.is_zipfile(place):
            return []
        archive = Archive(Path(place))
        return [cls(path=place)] if any(map(archive.is_image, archive.names)) else []

    @cached_property
    def _archive(self) -> "Archive":
        return Archive(Path(self.path))

    @cached_property
    def _listings(self) -> dict[str, Listing]:
        names = self._archive.names
        folders = [
            name.rstrip("/") for name in names if name.endswith("/") and not any(map(is_ignored, name.split("/")))
        ]
        images = list(filter(self._archive.is_image, names))
        tops = {f"{name.split('/', 1)[0]}/" for name in images}
        inner = next(iter(tops)) if len(tops) == 1 else ""
        above = inner if LABELS not in names and f"{inner}{LABELS}" in names else ""
        labels, odd = read_labels(self._archive.labels(above))
        if labels is None:
            above = common_folder(images)
        inside, below = ([n.removeprefix(above) for n in all_ if n.startswith(above)] for all_ in (images, folders))
        listings = lay_out(inside, below, labels)
        next(iter(listings.values())).warnings.extend(odd)
        if above:
            for listing in listings.values():
                listing.names = [above + name for name in listing.names]
                listing.left_out = [left._replace(name=above + left.name) for left in listing.left_out]
            told = f"all lies in one folder, {above[:-1]!r}: it is no class, the folders in it are"
            if labels is not None:
                told = f"all lies in one folder, {above[:-1]!r}, whose {LABELS} has the labels"
            next(iter(listings.values())).warnings.append(told)
        return listings

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that the folders at the top name; else train alone."""
        return tuple(self._listings)

    def records(self, split: str) -> "ZipRecords":
        """The image files of a split, sorted by name."""
        self.check_split(canonical(split))
        return ZipRecords(self._archive, self._listings[canonical(split)])

    def fingerprint(self) -> Iterable[str]:
        """Names, sizes and checksums."""
        return self._archive.lines()


@lru_cache(maxsize=1)
def _members(path: Path, size: int, changed: int) -> dict[str, zipfile.ZipInfo]:
    """The table at a zip's end, read once for all who ask what the file is: with many members, that takes seconds."""
    del size, changed  # Another size or time of change is another file.
    with zipfile.ZipFile(path) as archive:
        return {_unpacked(info): info for info in archive.infolist()}


def _unpacked(info: zipfile.ZipInfo) -> str:
    """A member's name as unpacking would have it: it may begin with / or ./, and Windows may write backslashes."""
    name = info.filename.replace("\\", "/") if info.create_system == 0 else info.filename
    return name.lstrip("/").removeprefix("./")


class Archive:
    """Reads members of a zip by name; raises InputError if the file is missing or no whole zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
            self.members = _members(path, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist.") from None
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read as a zip ({error}): it may be cut short.") from error

    @property
    def names(self) -> Collection[str]:
        """Names of the members; folders end with a slash."""
        return self.members.keys()

    def lines(self) -> Iterable[str]:
        """Name, size and checksum of each member."""
        for name, info in sorted(self.members.items()):
            yield f"{name} {info.file_size} {info.CRC}"

    def _stored(self, name: str) -> bytes:
        """A member's bytes as they lie in the file; raises BadImage if its header is damaged."""
        info = self.members[name]
        with self.path.open("rb", buffering=0) as file:
            header = os.pread(file.fileno(), 30, info.header_offset)
            return os.pread(file.fileno(), info.compress_size, self._place(info, header))

    def _place(self, info: zipfile.ZipInfo, header: bytes) -> int:
        # The local header's lengths, which may differ from the central directory's.
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise BadImage("corrupt", "member of the zip: header")
        return info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))

    def read(self, name: str) -> bytes:
        """A member's bytes; raises BadImage if they are damaged, encrypted, or packed in another way than usual."""
        info = self.members[name]
        if info.flag_bits & 1:
            raise BadImage("unreadable", "member of the zip: encrypted")
        check_bytes(max(info.file_size, info.compress_size))
        try:
            data = self._stored(name)
        except OSError as error:
            raise BadImage("unreadable", f"member of the zip: {error.strerror}") from error
        except OverflowError:  # A place beyond the end of any file.
            raise BadImage("corrupt", "member of the zip: header") from None
        if info.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
            except zlib.error:
                raise BadImage("corrupt", "member of the zip: compressed data") from None
        elif info.compress_type != zipfile.ZIP_STORED:
            raise BadImage("unreadable", f"member of the zip: compression {info.compress_type}")
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise BadImage("corrupt", "member of the zip: checksum")
        return data

    def is_image(self, name: str) -> bool:
        """Whether a member is an image file: by its suffix, or, if it has none, by its first bytes."""
        *folders, base = name.split("/")
        if not base or any(map(is_ignored, (*folders, base))):
            return False
        if "." in base:
            return looks_like_image(base)
        try:
            return looks_like_image(base, self.read(name)[:16])
        except BadImage:
            return False

    def labels(self, above: str = "") -> bytes | None:
        """EDM2's file of labels in a folder, None without one; raises InputError if it is damaged."""
        try:
            return self.read(above + LABELS) if above + LABELS in self.members else None
        except BadImage as bad:
            raise InputError(f"{LABELS} in {self.path} cannot be read ({bad}): copy the zip again.") from bad


class ZipRecords:
    """Members of a zip."""

    def __init__(self, archive: Archive, listing: Listing) -> None:
        self._archive, self._listing = archive, listing
        self.class_names, self.left_out, self.warnings = listing.class_names, listing.left_out, listing.warnings

    def __len__(self) -> int:
        return len(self._listing.names)

    def name(self, index: int) -> str:
        """The member's name."""
        return self._listing.names[index]

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The member's bytes; raises BadImage if they are damaged."""
        return self._archive.read(self._listing.names[index]), int(self._listing.labels[index])
