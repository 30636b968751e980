"""Files of the safetensors format: a length, a header in JSON, and the numbers after one another.

https://huggingface.co/docs/safetensors: the header maps each name to "dtype", "shape" and
"data_offsets"; tensors fill the rest of the file without overlap and without holes.
"""

import json
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import Damaged, shown
from shortcut_models.interop.pickled_arrays import check_shape

DTYPES = {
    **{"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "BOOL": "b1"},
    **{"I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1"},
}
LONGEST_HEADER = 5_000_000
"""A twentieth of the format's own limit: XL's 28 blocks need 40,000 bytes, and parsing so many a third of a second."""
MOST_TENSORS = 100_000


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, copied into memory; bfloat16 comes as float32, exactly. Raises InputError."""
    data = bytes_of(path)
    with reading(path):
        length = int.from_bytes(data[:8], "little")
        if len(data) < 10 or length > len(data) - 8:
            raise Damaged(f"it promises a header of {length:,} bytes, but {max(0, len(data) - 8):,} are left")
        if length > LONGEST_HEADER:
            raise Damaged(f"it has a header of {length:,} bytes, more than any network needs")
        header = parse_json(bytes(data[8 : 8 + length]))
        metadata = header.pop("__metadata__", {})
        if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
            raise Damaged("its metadata is no text")
        if len(header) > MOST_TENSORS:
            raise Damaged(f"it has {len(header):,} tensors, more than any network")
        body = data[8 + length :]
        ends, tensors = [(0, 0)], {}
        for name, entry in header.items():
            begin, end, tensors[name] = _tensor(name, entry, body)
            ends.append((begin, end))
        ends.sort()
        if any(end != begin for (_, end), (begin, _) in pairwise(ends)) or ends[-1][1] != len(body):
            raise Damaged("its tensors overlap, or leave bytes that are nobody's")
        return {name: _copied(raw, header[name]["dtype"]) for name, raw in tensors.items()}


def _tensor(name: str, entry: Any, body: memoryview) -> tuple[int, int, np.ndarray]:
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if len(entry) == 3:
            sizes = check_shape(tuple(shape[:100]))
        case _:
            raise Damaged(f"its entry for {shown(name)} is not what the format asks for")
    if code not in DTYPES:
        raise Damaged(f"its tensor {shown(name)} has the dtype {shown(code, 20)}, which is not known")
    dtype = np.dtype(DTYPES[code]).newbyteorder("<")
    if not 0 <= begin <= end <= len(body) or prod(sizes) * dtype.itemsize != end - begin:
        raise Damaged(f"its tensor {shown(name)} does not fit the bytes that it is given")
    return begin, end, np.frombuffer(body[begin:end], dtype).reshape(sizes)


def _copied(raw: np.ndarray, code: str) -> np.ndarray:
    if code == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(raw.dtype.newbyteorder("="))


def parse_json(raw: bytes) -> dict[str, Any]:
    """A JSON object without repeated names and without numbers that JSON does not have; raises `Damaged`."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Damaged("it has a name twice")
        return found

    def refuse(word: str) -> float:
        raise Damaged(f"it has the number {shown(word)}")

    try:
        content = json.loads(raw.decode(), object_pairs_hook=once, parse_constant=refuse)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        content = None
    if type(content) is not dict:
        raise Damaged("it has no readable JSON object where one should be")
    return content
