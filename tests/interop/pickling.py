"""Pickles written opcode by opcode, as no pickler would, and PyTorch's files made of them without PyTorch.

See pickletools for what each opcode does.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


class Op(bytes):
    """Opcodes that leave one object on the stack."""


def op(value: Any) -> Op:
    if isinstance(value, Op):
        return value
    match value:
        case None | True | False:
            return Op({None: b"N", True: b"\x88", False: b"\x89"}[value])
        case int():
            return Op(
                b"\x8a" + bytes([(n := (value.bit_length() + 8) // 8)]) + value.to_bytes(n, "little", signed=True)
            )
        case str():
            return Op(b"X" + struct.pack("<I", len(value.encode())) + value.encode())
        case bytes():
            return Op(b"B" + struct.pack("<I", len(value)) + value)
        case tuple():
            return Op(b"(" + b"".join(map(op, value)) + b"t")
        case dict():
            return Op(b"}(" + b"".join(op(k) + op(v) for k, v in value.items()) + b"u")
        case list():
            return Op(b"](" + b"".join(map(op, value)) + b"e")
    raise TypeError(value)


def name(path: str) -> Op:
    module, _, last = path.rpartition(".")
    return Op(b"c" + module.encode() + b"\n" + last.encode() + b"\n")


def call(path: str, *args: Any) -> Op:
    return Op(name(path) + op(args) + b"R")


def build(made: Op, state: Any) -> Op:
    return Op(made + op(state) + b"b")


def pickled(value: Any) -> bytes:
    return b"\x80\x04" + op(value) + b"."


def storage(kind: Any = None, key: Any = "0", count: Any = 8, word: str = "storage") -> Op:
    return Op(op((word, kind or name("torch.FloatStorage"), key, "cpu", count)) + b"Q")


def tensor(size: Any = (2, 4), stride: Any = (4, 1), offset: Any = 0, store: Op | None = None) -> Op:
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", store or storage(), offset, size, stride, False, hooks)


def namespace(**values: Any) -> Op:
    return build(Op(name("argparse.Namespace") + b")\x81"), values)


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for entry, content in files.items():
            file.writestr(entry, content)
    return made.getvalue()


def write_torch(path: Path, state_dict: dict[str, np.ndarray], **args: Any) -> Path:
    """A `.pt` file of float32 tensors: a bare state dict, or with `args` a training's dict of "ema" and "args"."""
    described, files = {}, {}
    for i, (key, array) in enumerate(state_dict.items()):
        numbers = np.ascontiguousarray(array, np.float32)
        stride = tuple(step // 4 for step in numbers.strides)
        described[key] = tensor(numbers.shape, stride, 0, storage(None, str(i), numbers.size))
        files[f"a/data/{i}"] = numbers.tobytes()
    content = {"ema": described, "args": namespace(**args)} if args else described
    path.write_bytes(zipped({"a/data.pkl": pickled(content), **files}))
    return path
