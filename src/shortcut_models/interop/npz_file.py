"""Arrays of an .npz that is not trusted: every length is compared with what is allowed before anything is read.

An .npz is a zip of .npy files (numpy/lib/format.py): a magic word, a header in Python's notation, then the numbers.
NumPy's own reader believes the header: a few bytes make it allocate terabytes, or unpack gigabytes of zeros.
"""

import re
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import Damaged, shown

LONGEST_HEADER = 10_000
MOST_ENTRIES = 10_000
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
HEADER = re.compile(
    r"\{'descr': '(?P<order>[<>|=])(?P<code>[fiu][1248]|b1|U\d{1,9})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,12}, ?)*(?:\d{1,12})?),?\), ?\}\s*",
    re.ASCII,
)


def read_npz(path: Path, limits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays of an .npz that `limits` names, each with the most bytes that it may have; those that are there.

    They are numbers or text, never objects. Raises InputError for a file that is none, damaged, or larger.
    """
    bytes_of(path)  # It is a regular file, with something in it.
    with reading(path):
        try:
            with zipfile.ZipFile(path) as file:
                entries = file.infolist()
                if len(entries) > MOST_ENTRIES or len({entry.filename for entry in entries}) != len(entries):
                    raise Damaged("it has a name twice, or more arrays than a file of statistics")
                there = {entry.filename.removesuffix(".npy"): entry for entry in entries}
                return {name: _read(file, there[name], most) for name, most in limits.items() if name in there}
        except (zipfile.BadZipFile, EOFError):
            raise Damaged("it is no zip, or a damaged one") from None


def _read(file: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> np.ndarray:
    name = shown(entry.filename)
    if entry.flag_bits & 1 or entry.compress_type not in PACKED:
        raise Damaged(f"its array {name} is packed in a way that NumPy does not write")
    if entry.file_size > most + LONGEST_HEADER:
        raise Damaged(f"its array {name} promises {entry.file_size:,} bytes, but {most:,} are the most it can have")
    with file.open(entry) as stream:
        dtype, shape, fortran = _header(stream, name)
        size = prod(shape) * dtype.itemsize
        # One more, so that its end is seen and its checksum compared.
        raw = stream.read(size + 1) if size <= most else b""
    if len(raw) != size:
        raise Damaged(f"its array {name} of shape {shape} does not fit its {len(raw):,} bytes")
    array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="))


def _header(stream: Any, name: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8 or start[6] not in (1, 2, 3):
        raise Damaged(f"its entry {name} is no array of NumPy's")
    length = int.from_bytes(stream.read(2 if start[6] == 1 else 4), "little")
    if length > LONGEST_HEADER:
        raise Damaged(f"its array {name} promises a header of {length:,} bytes")
    found = HEADER.fullmatch(stream.read(length).decode("latin-1"))
    if found is None:
        raise Damaged(f"its array {name} holds neither numbers nor text, or says so in a way that NumPy does not")
    shape = tuple(int(size) for size in found["shape"].replace(" ", "").split(",") if size)
    if len(shape) > 8:
        raise Damaged(f"its array {name} has {len(shape)} axes")
    order = "<" if found["order"] == "|" else found["order"]
    return np.dtype(f"{order}{found['code']}"), shape, found["fortran"] == "True"
