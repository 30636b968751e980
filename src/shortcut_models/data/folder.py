"""A folder of image files: one folder a class, or all in one, with or without splits above."""

import heapq
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from shortcut_models.data.decode import BadImage, check_bytes
from shortcut_models.data.images import Images, LeftOut
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
class Folder(Images):
    """Image files in class folders, or in one folder without classes; `train`, `val`, `test` on top are splits."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A folder with an image file in it, or in a folder of it."""
        path = Path(place)
        return [cls(path=place)] if path.is_dir() and any(True for _ in Scan(path).images()) else []

    @cached_property
    def _scan(self) -> "tuple[dict[str, Listing], Scan]":
        if not self.path:
            raise InputError("no data are named: say where the images lie, --data PATH.")
        if not Path(self.path).is_dir():
            raise InputError(f"data folder {self.path} does not exist, or is no folder.")
        scan = Scan(Path(self.path))
        names = list(scan.images())
        file = Path(self.path, LABELS)
        labels, odd = read_labels(file.read_bytes() if file.is_file() else None)
        listings = lay_out(names, scan.folders, labels)
        first = next(iter(listings.values()))
        first.left_out.extend(scan.left_out)
        first.warnings.extend(odd + scan.warnings())
        if labels is None and (above := common_folder(names)):
            first.warnings.append(
                f"all lies in one folder, {above[:-1]!r}, which counts as one class: if the folders in it are the "
                f"classes, name {Path(self.path, above)}"
            )
        return listings, scan

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that the folders at the top name; else train alone."""
        return tuple(self._scan[0])

    def records(self, split: str) -> "FileRecords":
        """The files of a split, sorted by name."""
        self.check_split(canonical(split))
        listing = self._scan[0][canonical(split)]
        if not listing.names and not listing.left_out:
            raise InputError(f"{self.path} holds no images: none of its files has an image's suffix.")
        return FileRecords(Path(self.path), listing)

    def fingerprint(self) -> Iterable[str]:
        """Names and sizes."""
        for listing in self._scan[0].values():
            for name, label in zip(listing.names, listing.labels, strict=True):
                try:
                    size = Path(self.path, name).stat().st_size
                except OSError:
                    size = -1
                yield f"{name} {size} {label}"


NAMED = 5
"""Links that a warning names."""


class Scan:
    """Image files below a folder: links are followed, what is no regular file is passed over.

    A folder that is there several times is entered once: by its own name before any link's, so that a
    link never takes the place of a class. That cuts loops too.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self.folders: list[str] = []
        """Folders that were entered, below the root."""
        self.left_out: list[LeftOut] = []
        """Links to nothing, and folders that may not be read."""
        self._again: list[tuple[str, str]] = []
        """Folders that were not entered, and what the same one is called where it was."""

    def warnings(self) -> list[str]:
        """What was met again and left out, by its name."""
        if not self._again:
            return []
        pairs = [f"{name!r} is {first or self._root!r}" for name, first in self._again[:NAMED]]
        more = [f"and {len(self._again) - NAMED} more"] if len(self._again) > NAMED else []
        return [f"folders that are there under another name too are left out: {', '.join(pairs + more)}"]

    def images(self) -> Iterable[str]:
        """Paths below the root, with slashes, in no order."""
        seen: dict[tuple[int, int], str] = {}
        waiting, links = [""], list[str]()
        while waiting or links:
            folder = waiting.pop() if waiting else heapq.heappop(links)
            if not self._is_new(folder, seen):
                continue
            try:
                entries = sorted(os.scandir(os.path.join(self._root, folder)), key=lambda entry: entry.name)  # noqa: PTH118
            except OSError as error:
                self.left_out.append(LeftOut(folder, "unreadable", error.strerror or "not readable"))
                continue
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    status = entry.stat()
                except OSError:
                    if looks_like_image(entry.name):
                        self.left_out.append(LeftOut(name, "missing", "a link to nothing"))
                    continue
                if stat.S_ISDIR(status.st_mode):
                    if entry.is_symlink():
                        heapq.heappush(links, name)
                    else:
                        waiting.append(name)
                elif stat.S_ISREG(status.st_mode) and looks_like_image(entry.name, _head(entry)):
                    yield name

    def _is_new(self, folder: str, seen: dict[tuple[int, int], str]) -> bool:
        """Note a folder as entered, or as one that was entered before."""
        try:
            status = Path(self._root, folder).stat()
        except OSError:
            return True  # Why it cannot be read is found when it is.
        first = seen.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            self._again.append((folder, first))
        elif folder:
            self.folders.append(folder)
        return first == folder


def _head(entry: "os.DirEntry[str]") -> bytes:
    """First bytes of a file whose name has no suffix."""
    if "." in entry.name:
        return b""
    try:
        with Path(entry.path).open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


class FileRecords:
    """The files of a listing."""

    def __init__(self, root: Path, listing: Listing) -> None:
        self._root, self._listing = os.fspath(root), listing
        self.class_names, self.left_out, self.warnings = listing.class_names, listing.left_out, listing.warnings

    def __len__(self) -> int:
        return len(self._listing.names)

    def name(self, index: int) -> str:
        """The path below the root."""
        return self._listing.names[index]

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The file's bytes; raises BadImage if it is gone, or may not be read."""
        try:
            with open(os.path.join(self._root, self._listing.names[index]), "rb") as file:  # noqa: PTH118, PTH123
                check_bytes(os.fstat(file.fileno()).st_size)
                return file.read(), int(self._listing.labels[index])
        except FileNotFoundError:
            raise BadImage("missing", "it is there no longer") from None
        except OSError as error:
            raise BadImage("unreadable", error.strerror or "not readable") from error
