"""PyTorch's files (`torch.save`), read without PyTorch and without running anything in them.

Since PyTorch 1.6 such a file is a zip: NAME/data.pkl describes the object, and NAME/data/KEY holds the
numbers of storage KEY, never compressed. Before, five pickles followed one another (a magic number, a
version, the system's facts, the object, the storages' keys), then every storage as a count and its
numbers (torch/serialization.py, `_save` and `_legacy_save`). A tensor is a view of a storage: an
offset, sizes and strides, counted in elements.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import Damaged, Grammar, Made, Name, read_pickle, shown
from shortcut_models.interop.pickled_arrays import check_shape, check_total

STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
"""Class of a storage: dtype of its elements. A bfloat16 is the upper half of a float32."""
TENSORS = Grammar(
    calls=frozenset(["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"]),
    makes=frozenset(["argparse.Namespace"]),
    states=frozenset(["argparse.Namespace"]),
    mentions=frozenset(f"torch.{name}" for name in STORAGES),
    persistent=True,
)
"""Every name that a checkpoint of tensors, with the command line's arguments beside them, may use."""
LEGACY_START = b"\x80\x02\x8a\x0a"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
PREFIXES = ("module.", "_orig_mod.")
"""Before every name where a network was saved as torch's DistributedDataParallel or compile wraps it."""


@dataclass(frozen=True)
class _Piece:
    """One storage: its bytes, read once, and their order."""

    raw: memoryview
    order: Literal["<", ">"]


@dataclass
class TorchFile:
    """The object of a file, in which tensors are described, and where their storages lie."""

    path: Path
    content: Any
    there: int
    """Bytes of the file: its tensors cannot be more."""
    find: Callable[[str], _Piece]
    seen: dict[str, tuple[str, int, _Piece]] = field(default_factory=dict)

    @property
    def args(self) -> dict[str, Any]:
        """Plain values among the command line's arguments, if the file has them."""
        kept = self.content.get("args")
        state = kept.state if isinstance(kept, Made) and kept.by == "argparse.Namespace" else kept
        if type(state) is not dict:
            return {}
        return {str(name): v for name, v in state.items() if isinstance(v, str | int | float | bool)}

    @property
    def step(self) -> int | None:
        """Steps of training, where the file says so."""
        steps = self.content.get("steps")
        return steps if type(steps) is int and steps >= 0 else None

    @property
    def is_bare(self) -> bool:
        """Whether the file is a state dict itself, instead of a training's dict of several."""
        return not any(type(self.content.get(name)) is dict for name in ("ema", "model"))

    def which(self, weights: str) -> str:
        """The weights, "ema" or "raw", that are meant; "any" is the averages, or the last ones of a file without."""
        if weights != "any":
            return weights
        return "raw" if not self.is_bare and type(self.content.get("ema")) is not dict else "ema"

    def state_dict(self, weights: str = "ema") -> dict[str, np.ndarray]:
        """Tensors by name, "ema" or "raw"; a bare state dict is whatever its author saved.

        bfloat16 comes as float32, exactly; every other dtype as it is. Raises InputError.
        """
        with reading(self.path):
            kept = self.content
            if not self.is_bare:
                kept = kept.get({"ema": "ema", "raw": "model"}[weights])
            if type(kept) is not dict or not kept:
                raise Damaged(
                    "it has no averaged weights: ask for the raw ones"
                    if weights == "ema"
                    else "it has averaged weights alone: ask for those (ema)"
                )
            tensors = dict(self._tensors(kept))
        return _unwrapped(tensors)

    def _tensors(self, kept: dict[Any, Any]) -> Iterator[tuple[str, np.ndarray]]:
        total = 0
        for name, described in kept.items():
            if type(name) is not str:
                raise Damaged(f"it has a tensor named {shown(str(name))}, which is no text")
            tensor = self._tensor(described)
            total += tensor.nbytes
            check_total(total, self.there)
            yield name, _copied(tensor, described)

    def _tensor(self, kept: Any) -> np.ndarray:
        """A view of the tensor in its storage."""
        match kept:
            case Made(by="torch._utils._rebuild_parameter", args=(Made() as tensor, *_)):
                return self._tensor(tensor) if tensor.by.endswith("_v2") else self._refuse(tensor)
            case Made(by="torch._utils._rebuild_tensor_v2", args=(store, offset, size, stride, _, hooks, *_)):
                piece, dtype, count = self._storage(store)
                size, stride = check_shape(size), check_shape(stride)
                if type(offset) is not int or offset < 0 or len(stride) != len(size) or type(hooks) is not dict:
                    raise Damaged("it has a tensor whose offset and strides do not fit it")
                last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
                if prod(size) * dtype.itemsize > self.there or (prod(size) and last >= count) or offset > count:
                    raise Damaged(f"it has a tensor of shape {size} that reaches beyond its storage of {count:,}")
                if not prod(size):
                    return np.empty(size, dtype) if max(size) <= count + self.there else self._refuse(kept)
                steps = tuple(s * dtype.itemsize for s in stride)
                return np.ndarray(size, dtype, piece.raw, offset * dtype.itemsize, steps)
        return self._refuse(kept)

    def _refuse(self, kept: Any) -> np.ndarray:
        if type(kept) is dict:
            raise Damaged(
                "it keeps its tensors in a dict of another name: save that dict alone, or under 'ema' or 'model'"
            )
        raise Damaged(f"it has {shown(getattr(kept, 'by', kept))} where a tensor should be")

    def _storage(self, kept: Any) -> tuple[_Piece, np.dtype, int]:
        match kept:
            case Made(by="persistent id", args=(("storage", Name() as kind, str(key), str(), int(count), *view),)):
                if kind.name not in STORAGES or view not in ([], [None]) or type(count) is not int or count < 0:
                    raise Damaged("it has a storage that PyTorch does not write")
            case _:
                raise Damaged(f"it has {shown(getattr(kept, 'by', kept))} where a storage should be")
        if key not in self.seen:
            self.seen[key] = (kind.name, count, self.find(key))
        known, size, piece = self.seen[key]
        dtype = np.dtype(STORAGES[kind.name]).newbyteorder(piece.order)
        if known != kind.name or size != count or len(piece.raw) != count * dtype.itemsize:
            raise Damaged(f"its storage {shown(key)} has {len(piece.raw):,} bytes, not those of {count:,} numbers")
        return piece, dtype, count


def _unwrapped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same without the prefixes that all names have, in whatever order a network was wrapped."""
    while tensors:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _copied(tensor: np.ndarray, described: Any) -> np.ndarray:
    """The tensor in memory of its own, in the machine's byte order and C order."""
    own = np.array(tensor.astype(tensor.dtype.newbyteorder("=")), order="C")
    while described.by.endswith("_rebuild_parameter"):
        described = described.args[0]
    if described.args[0].args[0][1].name == "BFloat16Storage":
        return (own.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return own


def read_torch(path: Path) -> TorchFile:
    """The object of a `.pt` file, new or old; raises InputError for anything else."""
    data = bytes_of(path)
    with reading(path):
        start = bytes(data[:4])
        if start == b"PK\x03\x04":
            content, find = _zip(path, data)
        elif start == LEGACY_START:
            content, find = _legacy(data)
        else:
            raise Damaged("it is no file that PyTorch 1.0 or later writes (its oldest form, a tar, is not read)")
        if type(content) is not dict:
            raise Damaged("it is a file of PyTorch's, but holds no weights by name")
        return TorchFile(path, content, len(data), find)


def read_state_dict(path: Path, weights: str = "ema") -> dict[str, np.ndarray]:
    """Tensors by name, from whichever of the two kinds of file."""
    return read_torch(path).state_dict(weights)


def _zip(path: Path, data: memoryview) -> tuple[Any, Callable[[str], _Piece]]:
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        entries = {info.filename: info for info in file.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(entries) != len(names) or len(pickles) != 1 or pickles[0].count("/") != 1:
        raise Damaged("it is a zip, but not one that PyTorch writes: exactly one NAME/data.pkl belongs in it")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise Damaged("it is a TorchScript program: save the network's state_dict() instead")
    order = _entry(data, entries[f"{root}byteorder"]) if f"{root}byteorder" in entries else b"little"
    orders: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
    if bytes(order[:16]) not in orders:
        raise Damaged("it has no byte order")

    def find(key: str) -> _Piece:
        info = entries.get(f"{root}data/{key}")
        if info is None:
            raise Damaged(f"it lacks its storage {shown(key)}")
        return _Piece(_entry(data, info), orders[bytes(order)])

    content, _ = _whole_pickle(_entry(data, entries[pickles[0]]))
    return content, find


def _whole_pickle(data: memoryview) -> tuple[Any, int]:
    content, end = read_pickle(data, TENSORS)
    if end != len(data):
        raise Damaged("its data.pkl goes on after its end")
    return content, end


def _entry(data: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed entry, where they lie, with the checksum found right."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise Damaged("its zip is compressed or encrypted, which PyTorch's never are: save it again")
    start = info.header_offset
    if start < 0 or start + 30 > len(data) or bytes(data[start : start + 4]) != b"PK\x03\x04":
        raise Damaged("an entry of its zip is not where it should be")
    start += 30 + sum(struct.unpack_from("<HH", data, start + 26))
    if start + info.file_size > len(data):
        raise Damaged(f"an entry of its zip promises {info.file_size:,} bytes, more than are left")
    raw = data[start : start + info.file_size]
    if zlib.crc32(raw) != info.CRC:
        raise Damaged("an entry of its zip has another checksum than it should: download or copy it again")
    return raw


def _legacy(data: memoryview) -> tuple[Any, Callable[[str], _Piece]]:
    parts: list[Any] = []
    at = 0
    for _ in range(5):
        part, at = read_pickle(data, TENSORS, at)
        parts.append(part)
    magic, version, facts, content, keys = parts
    if magic != MAGIC or version != PROTOCOL or type(facts) is not dict or type(keys) is not list:
        raise Damaged("it begins like a file of PyTorch's, but does not go on like one")
    order: Literal["<", ">"] = ">" if facts.get("little_endian") is False else "<"
    named = _storages_named(content)
    pieces: dict[str, _Piece] = {}
    for key in keys:
        if type(key) is not str or key in pieces or key not in named:
            raise Damaged("it lists a storage twice, or one that no tensor names")
        raw_count = data[at : at + 8]
        count = struct.unpack(f"{order}q", raw_count)[0] if len(raw_count) == 8 else -1
        length = count * np.dtype(STORAGES[named[key]]).itemsize
        if count < 0 or at + 8 + length > len(data):
            raise Damaged(f"its storage {shown(key)} promises more than is left of the file")
        pieces[key] = _Piece(data[at + 8 : at + 8 + length], order)
        at += 8 + length
    if set(named) != set(pieces) or at != len(data):
        raise Damaged("its storages are not those that its tensors name")

    def find(key: str) -> _Piece:
        return pieces[key]

    return content, find


def _storages_named(content: Any) -> dict[str, str]:
    """Key and class of every storage that the object names, wherever."""
    named: dict[str, str] = {}
    todo, seen = [content], set()
    while todo:
        kept = todo.pop()
        if not isinstance(kept, dict | list | tuple | Made) or id(kept) in seen:
            continue
        seen.add(id(kept))
        match kept:
            case Made(by="persistent id", args=(("storage", Name() as kind, str(key), *_),)):
                if kind.name not in STORAGES or named.setdefault(key, kind.name) != kind.name:
                    raise Damaged(f"its storage {shown(key)} has two kinds of numbers")
            case Made(by="persistent id"):
                raise Damaged("it holds something other than tensors")
            case Made():
                todo += [kept.args, kept.state]
            case dict():
                todo += kept.values()
            case _:
                todo += kept
    return named
