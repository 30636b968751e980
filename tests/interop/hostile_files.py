"""Files made to do harm, by form: content, and what the refusal must say. `benchmarks/hostile.py` reads them too."""

import hashlib
import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models import catalogue, choice_json
from shortcut_models.data.points import Points
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.flow_matching import FlowMatching
from tests.interop.pickling import Op, build, call, name, op, pickled, storage, tensor, zipped

RUN = call("os.system", "touch canary")


def dtype(code: str = "f4", order: str = "<") -> Op:
    return build(call("numpy.dtype", code, False, True), (3, order, None, None, None, -1, -1, 0))


def array(shape: Any = (2, 3), raw: Any = bytes(24), kind: Op | None = None) -> Op:
    empty = call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), (0,), b"b")
    return build(empty, (1, shape, kind or dtype(), False, raw))


def official(step: Any = 1, opt: Any = (), **more: Any) -> bytes:
    params = {"PatchEmbed_0": {"kernel": array()}, **more}
    return pickled({"train_state": {"params": params, "params_ema": params, "opt_state": opt, "step": step}})


def leaf(value: Any) -> bytes:
    return official(Embed_0={"embedding": value})


def endless_dict() -> Op:
    return Op(b"}q\x05(" + op("PatchEmbed_0") + b"h\x05u")


def shared_tree() -> bytes:
    """2^12 arrays by sharing: every dict holds the one before twice, all of them made in a first tuple."""
    body = op({"a": array()}) + b"q\x00"
    for level in range(12):
        get = b"h" + bytes([level])
        body += b"}(" + op("l") + get + op("r") + get + b"uq" + bytes([level + 1])
    top = op(
        {
            "train_state": {
                "params": {"PatchEmbed_0": Op(b"h\x0c")},
                "params_ema": {"PatchEmbed_0": Op(b"h\x0c")},
                "step": 1,
            }
        }
    )
    return b"\x80\x04}(" + op("first") + b"(" + body + b"t" + top[2:-1] + b"u."


BUFFER = Op(op(bytes(400_000)) + b"q\x09")
SHARED = {"first": array((100_000,), BUFFER)} | {f"n{i}": array((100_000,), Op(b"h\x09")) for i in range(40)}

OFFICIAL = {
    "a call": (leaf(RUN), r"asks for 'os\.system'"),
    "a call in what is skipped": (official(opt=RUN), r"asks for 'os\.system'"),
    "a call for a name": (official(**{"x": {RUN: 1}}), r"asks for 'os\.system'"),
    "an allowed module": (leaf(call("numpy.core.multiarray.os.system", "x")), "asks for"),
    "a dotted name": (b"\x80\x04" + op("numpy") + op("ndarray.tofile") + b"\x93.", "asks for"),
    "a module that drives a terminal": (
        b"\x80\x04" + op("\x1b[2Jos\n") + op("\r\x1b") + b"\x93.",
        r"asks for '\\x1b\[2J",
    ),
    "a module of a megabyte": (b"\x80\x04" + op("o" * 1_000_000) + op("s") + b"\x93.", "longer than any name"),
    "INST": (b"\x80\x04(ios\nsystem\n.", "no opcode"),
    "OBJ": (b"\x80\x04(" + name("os.system") + b"o.", "asks for"),
    "an extension": (b"\x80\x04\x82\x01.", "no opcode"),
    "a persistent id": (leaf(Op(op("x") + b"Q")), "outside of itself"),
    "NEWOBJ of a function": (leaf(Op(name("numpy.dtype") + b")\x81")), "in a way that no checkpoint does"),
    "state on a class": (leaf(build(name("numpy.ndarray"), {})), "sets the state"),
    "a memo of 2^31": (b"\x80\x02Nr\xff\xff\xff\x7f.", "numbers an object"),
    "no such memo": (b"\x80\x02h\x07.", "refers to an object"),
    "a frame too long": (b"\x80\x04\x95" + bytes([255] * 7) + b"\x3fN.", "bytes are left|are left"),
    "bytes too long": (b"\x80\x05\x8e" + struct.pack("<Q", 2**62) + b"abc.", "but 4 are left"),
    "a long integer": (b"\x80\x02\x8a\xc8" + bytes(200) + b".", "an integer of 200 bytes"),
    "an empty stack": (b"\x80\x02R.", "needs an object"),
    "no mark": (b"\x80\x02Nt.", "no start"),
    "no end": (b"\x80\x02N", "ends in the middle"),
    "protocol 99": (b"\x80\x63N.", "protocol 99"),
    "text": (b"<html>404 Not Found</html>", "no pickle"),
    "more after the end": (official() + b"x", "goes on"),
    "shared dicts": (shared_tree(), "a dict twice"),
    "a dict in itself": (
        pickled({"train_state": {"params": endless_dict(), "params_ema": Op(b"h\x05"), "step": 1}}),
        "dict twice",
    ),
    "a deep dict": (official(Deep=Op((b"}" + op("a")) * 300 + array() + b"s" * 300)), "nested"),
    "1 and '1'": (official(**{"a": {1: array(), "1": array()}}), "name '1' twice"),
    "a name twice": (official(a=Op(b"}(" + (op("k") + array()) * 2 + b"u")), "name 'k' twice"),
    "a tuple for a name": (official(a=Op(b"}(" + op(("a",)) + b"Nu")), "a tuple where a name should be"),
    "True for a name": (official(a=Op(b"}(" + op(True) + b"Nu")), "a bool where a name should be"),
    "one buffer forty times": (official(Many=SHARED), "bytes together, but the file only"),
    "2^40 numbers": (leaf(array((2**39,), b"abcd")), "with 4 bytes instead of"),
    "no numbers, 2^62 columns": (leaf(array((0, 2**62), b"")), "no whole number"),
    "negative sizes": (leaf(array((-2, -3))), "no whole number"),
    "sizes of True": (leaf(array((True, 6))), "no whole number"),
    "100 axes": (leaf(array((1,) * 100, bytes(4))), "no tuple of up to 8"),
    "text for bytes": (leaf(array((2, 3), "x" * 24)), "made of a str"),
    "objects": (leaf(array((3,), bytes(24), dtype("O8", "|"))), "dtype 'O8'"),
    "a byte order": (leaf(array(kind=dtype("f4", "x"))), "without a dtype"),
    "no state": (leaf(call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), (0,), b"b")), "parts are not"),
    "a class": (leaf(name("numpy.ndarray")), "where an array should be"),
    "a step that is no number": (official(step="7"), "step is no whole number"),
}


def torch(weights: Any, numbers: bytes = bytes(32), **more: bytes) -> bytes:
    own = {f"a/{key}": content for key, content in more.items()}
    return zipped({"a/data.pkl": pickled(weights), "a/data/0": numbers, **own})


def with_namespace(state: Any) -> bytes:
    made = build(Op(name("argparse.Namespace") + b")\x81"), state)
    return torch({"ema": {"a": tensor()}, "args": made})


GOOD = torch({"a": tensor()})
BOMB = zipped({"a/data.pkl": pickled({"a": tensor()}), "a/data/0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED)

TORCH = {
    "a call": (torch({"a": RUN}), "asks for"),
    "a call in the arguments": (with_namespace({"model": RUN}), "asks for"),
    "a parser": (torch({"args": call("argparse.ArgumentParser", "x")}), "asks for"),
    "another class of torch": (torch({"a": call("torch._tensor._rebuild_from_type_v2", 1)}), "asks for"),
    "a pickle within": (torch({"a": call("torch.storage._load_from_bytes", b"x")}), "asks for"),
    "an untyped storage": (torch({"a": tensor(store=storage(name("torch.storage.UntypedStorage")))}), "asks for"),
    "text for a class": (torch({"a": tensor(store=storage("FloatStorage"))}), "where a storage should be"),
    "source code": (torch({"a": tensor(store=storage(word="module"))}), "where a storage should be"),
    "a path": (torch({"a": tensor(store=storage(key="../data.pkl"))}), "lacks its storage"),
    "more numbers than there are": (torch({"a": tensor(store=storage(count=9))}), "has 32 bytes, not those of 9"),
    "2^62 numbers": (torch({"a": tensor(store=storage(count=2**62))}), "not those of"),
    "two kinds": (
        torch({"a": tensor(), "b": tensor((1,), (1,), 0, storage(name("torch.IntStorage")))}),
        "not those of",
    ),
    "beyond the end": (torch({"a": tensor(offset=1)}), "beyond its storage"),
    "a negative offset": (torch({"a": tensor(offset=-1)}), "do not fit"),
    "negative strides": (torch({"a": tensor(stride=(-4, 1), offset=4)}), "no whole number"),
    "stride 0": (torch({"a": tensor((2**33,), (0,))}), "beyond its storage"),
    "many views": (
        torch(
            {f"n{i}": tensor((100,), (1,), 0, storage(count=100)) for i in range(9)}
            | {f"m{i}": tensor((90, 90), (0, 0), 0, storage(count=100)) for i in range(9)},
            bytes(400),
        ),
        "beyond|together",
    ),
    "fewer strides": (torch({"a": tensor(stride=(1,))}), "do not fit"),
    "state on a tensor": (torch({"a": build(tensor(), {"data": 1})}), "sets the state"),
    "a number for a name": (torch({0: tensor(), "a": tensor()}), "is no text"),
    "no tensor": (torch({"\x1b[2Jx": "y"}), "has 'y' where a tensor should be"),
    "a byte order": (torch({"a": tensor()}, byteorder=b"middle"), "no byte order"),
    "two pickles": (zipped({"a/data.pkl": pickled({}), "b/data.pkl": pickled({})}), "exactly one"),
    "no pickle": (zipped({"a/data/0": b""}), "exactly one"),
    "TorchScript": (torch({"a": tensor()}, **{"constants.pkl": b""}), "TorchScript"),
    "compressed": (BOMB, "compressed"),
    "a wrong checksum": (GOOD.replace(struct.pack("<I", zlib.crc32(bytes(32))), b"abcd"), "another checksum"),
    "cut off": (GOOD[:-30], "damaged|cannot be read"),
    "a tar": (b"pickle" + bytes(2000), "oldest form"),
    "no dict": (torch([tensor()]), "no weights by name"),
}


def legacy(weights: Any, keys: Any = ("0",), tail: bytes = struct.pack("<q", 8) + bytes(32), **facts: Any) -> bytes:
    store = Op(op(("storage", name("torch.FloatStorage"), "0", "cpu", 8, None)) + b"Q")
    known = {"protocol_version": 1001, "little_endian": True, **facts}
    parts = (0x1950A86A20F9469CFC6C, 1001, known, {"a": tensor(store=store), **weights}, list(keys))
    return b"".join(b"\x80\x02" + op(part) + b"." for part in parts) + tail


LEGACY = {
    "a call among the facts": (legacy({}, x=RUN), "asks for"),
    "a call among the keys": (legacy({}, keys=(RUN,)), "asks for"),
    "2^60 numbers": (legacy({}, tail=struct.pack("<q", 2**60) + bytes(32)), "promises more than is left"),
    "a negative count": (legacy({}, tail=struct.pack("<q", -8) + bytes(32)), "promises more than is left"),
    "fewer numbers": (legacy({}, tail=struct.pack("<q", 4) + bytes(16)), "not those of 8 numbers"),
    "an unknown key": (legacy({}, keys=("7",)), "no tensor names"),
    "no keys": (legacy({}, keys=(), tail=b""), "not those that its tensors name"),
    "a tail": (legacy({}) + b"x", "not those that its tensors name"),
    "source code": (legacy({"b": Op(op(("module", "x", "y", "import os")) + b"Q")}), "other than tensors"),
}


def safe(header: Any, data: bytes = bytes(32), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: Any = (2, 4), ends: Any = (0, 32), kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": ends}


SAFE = {
    "a long header": (safe(b"{}", length=2**63), "promises a header"),
    "a deep header": (safe(b'{"a":' + b"[" * 100_000), "no readable JSON"),
    "a list": (safe([]), "no readable JSON"),
    "a name twice": (safe(b'{"a":1,"a":2}'), "a name twice"),
    "NaN": (safe(b'{"a":NaN}'), "number 'NaN'"),
    "overlap": (safe({"a": entry(), "b": entry()}), "overlap"),
    "a hole": (safe({"a": entry((2,), (0, 8)), "b": entry((2,), (24, 32))}), "overlap"),
    "a tail": (safe({"a": entry()}, bytes(40)), "nobody's"),
    "beyond the end": (safe({"a": entry((9,), (0, 36))}), "does not fit"),
    "reversed": (safe({"a": entry(ends=(32, 0))}), "does not fit"),
    "sizes": (safe({"a": entry((-2, -4))}), "no whole number"),
    "a dtype": (safe({"\x1b[2Jx": entry(kind="F17")}), r"'\\x1b\[2Jx' has the dtype 'F17'"),
    "metadata": (safe({"__metadata__": {"a": 1}, "a": entry()}), "metadata is no text"),
    "empty": (b"", "is empty"),
}


def array_file(header: str, raw: bytes = b"") -> bytes:
    """An .npy with this header, as NumPy writes it."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + raw


def described(shape: str, kind: str = "<f8", fortran: str = "False") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}"


def statistics(packed: bool = False, **changes: bytes | None) -> bytes:
    """A file of statistics with some of its entries replaced or left out."""
    size = 2048
    files: dict[str, bytes | None] = {
        "mu.npy": array_file(described(f"({size},)"), bytes(8 * size)),
        "sigma.npy": array_file(described(f"({size}, {size})", "<f4"), bytes(4 * size**2)),
        **{f"{key}.npy": content for key, content in changes.items()},
    }
    kept = {key: content for key, content in files.items() if content is not None}
    return zipped(kept, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)


def text_array(text: str) -> bytes:
    made = io.BytesIO()
    np.save(made, np.array(text))
    return made.getvalue()


def promising(content: bytes, size: int) -> bytes:
    """A zip whose directory says that its first entry has this many bytes."""
    at = content.index(b"PK\x01\x02") + 24
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


NPZ = {
    "objects": (statistics(mu=array_file(described("(3,)", "|O"), pickled(RUN))), "neither numbers nor text"),
    "2^40 numbers": (statistics(mu=array_file(described("(999999999999,)"))), "does not fit"),
    "sizes that multiply to 0": (statistics(mu=array_file(described("(0, 999999999999)"))), "of shape"),
    "a negative size": (statistics(mu=array_file(described("(-1,)"))), "neither numbers nor text"),
    "code in the header": (statistics(mu=array_file("__import__('os').system('touch canary')")), "neither numbers"),
    "a header nested without end": (statistics(mu=array_file("(" * 9000)), "neither numbers nor text"),
    "a header of 20,000 bytes": (statistics(mu=array_file(" " * 20_000)), "a header of"),
    "a structured dtype": (statistics(mu=array_file(described("(3,)", "<f8,<i8"))), "neither numbers nor text"),
    "zeros packed a thousandfold": (
        statistics(True, mu=array_file(described("(20000000,)"), bytes(160_000_000))),
        "the most it can have",
    ),
    "more than its directory says": (
        promising(statistics(True, mu=array_file(described("(20000000,)"), bytes(160_000_000))), 100),
        "of shape|damaged|no zip",
    ),
    "text of 30 MB": (statistics(about=text_array("x" * 7_500_000)), "the most it can have"),
    "JSON nested without end": (statistics(about=text_array("[" * 100_000)), "does not say of itself"),
    "a list for facts": (statistics(about=text_array("[1]")), "does not say of itself"),
    "a protocol that is no text": (statistics(about=text_array('{"protocol": [1]}')), "does not say of itself"),
    "integers": (statistics(mu=array_file(described("(2048,)", "<i8"), bytes(8 * 2048))), "no floating-point"),
    "no array": (statistics(mu=b"x" * 100), "no array of NumPy's"),
    "no sigma": (statistics(sigma=None), "lacks the array sigma"),
    "no zip": (b"MZ" + bytes(100), "no zip"),
}

GOLDEN = Path(__file__).parents[1] / "golden/weights/diffusers_dit"
Write = Callable[[Path], Any]


def copied(source: Path, change: Write) -> Write:
    """Write a copy of a folder, changed."""

    def write(path: Path) -> None:
        shutil.copytree(source, path)
        change(path)

    return write


def edited(file: str, **changes: Any) -> Write:
    """Change fields of a JSON file; a dotted name lies within others."""

    def write(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        for key, value in changes.items():
            *outer, last = key.split("__")
            node = content
            for part in outer:
                node = node[part]
            node[last] = value
        (folder / file).write_text(json.dumps(content))

    return write


def replaced(file: str, content: bytes) -> Write:
    def write(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return write


def endless(file: str) -> Write:
    """A link to a device in place of a file."""

    def write(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to("/dev/zero")

    return write


def nested(depth: int = 200_000) -> bytes:
    return b'{"a":' * depth


DIFFUSERS: dict[str, Write] = {
    "a class to run": copied(GOLDEN, edited("config.json", _class_name="os.system")),
    "a billion layers": copied(GOLDEN, edited("config.json", num_layers=10**9)),
    "code for a number": copied(GOLDEN, edited("config.json", num_layers="__import__('os')")),
    "JSON nested without end": copied(GOLDEN, replaced("config.json", nested())),
    "a config of 20 MB": copied(GOLDEN, replaced("config.json", b" " * 20_000_000 + b"{}")),
    "a config that never ends": copied(GOLDEN, endless("config.json")),
    "weights that never end": copied(GOLDEN, endless("diffusion_pytorch_model.safetensors")),
    "a folder for its config": copied(GOLDEN, lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir())),
    "a good folder": copied(GOLDEN, lambda _: None),
}

NETWORK = MLP(hidden_size=4, depth=1, frequencies=2)
SHAPES: dict[str, tuple[int, ...]] = {
    "hidden0.bias": (4,),
    "hidden0.kernel": (7, 4),
    "out.bias": (2,),
    "out.kernel": (4, 2),
}


def tensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[key], end = entry(list(shape), (end, end + size)), end + size
    return safe(header, bytes(end))


def model_folder(content: bytes | None = None, change: Write = lambda _: None) -> Write:
    """Write a model folder with other weights, whose checksum is right, and changed."""

    def write(path: Path) -> None:
        path.mkdir()
        raw = tensors(SHAPES) if content is None else content
        (path / "model.safetensors").write_bytes(raw)
        config = {
            **{"library": "shortcut-models", "format": 1, "step": 1, "weights": "ema", "dtype": "float32", "about": {}},
            "network": choice_json.to_json(catalogue.NETWORKS, NETWORK),
            "objective": choice_json.to_json(catalogue.OBJECTIVES, FlowMatching()),
            "shows": choice_json.to_json(catalogue.DATA, Points()),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        (path / "config.json").write_text(json.dumps(config))
        change(path)

    return write


SIZES: dict[str, dict[str, Any]] = {
    "a billion layers": {"depth": 10**9},
    "a width of 10^12": {"hidden_size": 10**12},
    "10^30 classes": {"num_classes": 10**30},
    "text for a size": {"hidden_size": "__import__('os')"},
    "a list for a size": {"hidden_size": [[[]]]},
    "a fraction for a size": {"hidden_size": 1e308},
    "a network to run": {"kind": "os.system"},
    "a list for a kind": {"kind": ["dit"]},
}
MODEL_FOLDERS: dict[str, Write] = {
    **{
        key: model_folder(change=edited("config.json", **{f"network__{field}": v for field, v in fields.items()}))
        for key, fields in SIZES.items()
    },
    "JSON nested without end": model_folder(change=replaced("config.json", nested())),
    "a config that never ends": model_folder(change=endless("config.json")),
    "weights that never end": model_folder(change=endless("model.safetensors")),
    "a list for an objective": model_folder(change=edited("config.json", objective=[1])),
    "a step that is no number": model_folder(change=edited("config.json", step="1; rm")),
    "a checksum of something else": model_folder(change=edited("config.json", sha256="0" * 64)),
    "other tensors": model_folder(tensors({**SHAPES, "\x1b[2J" * 100: (1,)})),
    "fewer tensors": model_folder(tensors({"out.bias": (2,)})),
    "other shapes": model_folder(tensors({**SHAPES, "out.kernel": (2, 4)})),
    **{f"weights: {key}": model_folder(content) for key, (content, _) in SAFE.items()},
    "a good model folder": model_folder(),
}


def run_folders(good: Path) -> dict[str, Write]:
    """Changes of a run of the points, whose network is an MLP."""
    file = "run.json"
    return {
        **{
            key: copied(good, edited(file, **{f"config__model__{field}": v for field, v in fields.items()}))
            for key, fields in SIZES.items()
        },
        "JSON nested without end": copied(good, replaced(file, nested())),
        "30 MB of JSON": copied(good, replaced(file, b"[" + b"0," * 15_000_000 + b"0]")),
        "a file that never ends": copied(good, endless(file)),
        "a list for a run": copied(good, replaced(file, b"[]")),
        "a list for a format": copied(good, edited(file, format=[2])),
        "text for a configuration": copied(good, edited(file, config="x")),
        "a good run": copied(good, lambda _: None),
    }
