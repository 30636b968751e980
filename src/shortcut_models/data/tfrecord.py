"""TFRecord files of tf.train.Example, read at random and without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of these, the data, and a checksum of
them. There is no table of contents: walking the lengths makes one.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from shortcut_models.errors import InputError


def index_file(path: Path) -> Int[np.ndarray, "2 records"]:
    """Offset and size of each record's data; raises InputError if the file is cut short, damaged or compressed."""
    places: list[tuple[int, int]] = []
    with path.open("rb") as file:
        number, end, at = file.fileno(), os.fstat(file.fileno()).st_size, 0
        while at < end:
            head = os.pread(number, 12, at)
            if at == 0 and head[:2] == b"\x1f\x8b":
                raise InputError(f"{path} is compressed by gzip, which TFDS never does: unpack it first.")
            if len(head) < 12:
                raise InputError(f"{path} is cut short: it ends within record {len(places)}; copy it again.")
            length, checksum = struct.unpack("<QI", head)
            if masked_crc(head[:8]) != checksum:
                raise InputError(f"{path} is damaged at byte {at}: record {len(places)} has a wrong checksum.")
            places.append((at + 12, length))
            at += 12 + length + 4
        if at > end:
            raise InputError(f"{path} is cut short: its last record needs {at - end} more bytes; copy it again.")
    return np.array(places, np.int64).reshape(-1, 2).T


def _crc_table() -> list[int]:
    """CRC-32C (Castagnoli) of each byte, least significant bit first."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as in TFRecord files, so that a checksum of checksums is no fixed point."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def parse_example(data: bytes) -> dict[str, Any]:
    """The features of an Example: the first value of each, as bytes, int or float; raises ValueError for damage.

    The messages are Example {Features features = 1}, Features {map<string, Feature> feature = 1} and
    Feature {BytesList = 1 | FloatList = 2 | Int64List = 3}, each list with `value` = 1.
    """
    found: dict[str, Any] = {}
    view = memoryview(data)
    for features in _parts(view, 1):
        for entry in _parts(features, 1):
            key, feature = b"", memoryview(b"")
            for number, part in _fields(entry):
                if number == 1 and isinstance(part, memoryview):
                    key = bytes(part)
                elif number == 2 and isinstance(part, memoryview):
                    feature = part
            found[key.decode()] = _first_value(feature)
    return found


def _first_value(feature: memoryview) -> bytes | int | float | None:
    for kind, values in _fields(feature):
        for number, value in _fields(values) if isinstance(values, memoryview) else ():
            if number != 1:
                continue
            if kind == 1:
                return bytes(value) if isinstance(value, memoryview) else None
            if kind == 2:  # Packed or not: four bytes each.
                return struct.unpack_from("<f", value)[0] if isinstance(value, memoryview) else None
            if kind == 3:
                whole = _varint(value, 0)[0] if isinstance(value, memoryview) else value
                return whole - (1 << 64) if whole >> 63 else whole
    return None


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The nested messages with this field number."""
    for number, part in _fields(message):
        if number == wanted and isinstance(part, memoryview):
            yield part


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message, by number: integers, or the bytes of anything else."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > end:
            raise ValueError("a field that is longer than its message")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number without end")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
