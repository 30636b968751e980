"""Files made to do harm: each is refused in one plain sentence, and costs neither memory nor time.

The pickles are written opcode by opcode, as no pickler would; see pickletools for what each does.
"""

import io
import json
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.interop.diffusers_folder import read_diffusers
from shortcut_models.interop.importing import read_weights
from shortcut_models.interop.official import read_checkpoint
from shortcut_models.interop.safetensors_file import read_safetensors
from shortcut_models.interop.torch_file import read_state_dict, read_torch

GOLDEN = Path(__file__).parents[1] / "golden/weights"
MEMORY, SECONDS = 128 << 20, 5.0


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


def refused(read: Callable[[Path], Any], path: Path, message: str = "") -> None:
    """Refused with this message, in one printable sentence, within the bounds."""
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message) as error:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = str(error.value)
    assert said.isprintable() and len(said) < 600 and said.endswith(".")
    assert peak < MEMORY and time.process_time() - start < SECONDS


@pytest.mark.parametrize("attack", OFFICIAL)
def test_hostile_official_checkpoints(tmp_path: Path, attack: str) -> None:
    content, message = OFFICIAL[attack]
    (tmp_path / "x.ckpt").write_bytes(content)
    refused(read_checkpoint, tmp_path / "x.ckpt", message)


def test_more_opcodes_than_a_checkpoint_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortcut_models.interop.pickle_reader.MOST_OPCODES", 1000)
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02" + b"]" * 2000 + b".")
    refused(read_checkpoint, tmp_path / "x.ckpt", "more than 1,000 opcodes")


def test_the_harmless_frame_of_these_attacks_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(official(Deep={"1": array(), "2": array()}))
    assert read_checkpoint(tmp_path / "x.ckpt").step == 1


def storage(kind: Any = None, key: Any = "0", count: Any = 8, word: str = "storage") -> Op:
    return Op(op((word, kind or name("torch.FloatStorage"), key, "cpu", count)) + b"Q")


def tensor(size: Any = (2, 4), stride: Any = (4, 1), offset: Any = 0, store: Op | None = None) -> Op:
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", store or storage(), offset, size, stride, False, hooks)


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for entry, content in files.items():
            file.writestr(entry, content)
    return made.getvalue()


def torch(weights: Any, numbers: bytes = bytes(32), **more: bytes) -> bytes:
    own = {f"a/{key}": content for key, content in more.items()}
    return zipped({"a/data.pkl": pickled(weights), "a/data/0": numbers, **own})


def with_namespace(state: Any) -> bytes:
    return torch({"ema": {"a": tensor()}, "args": build(Op(name("argparse.Namespace") + b")\x81"), state)})


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


@pytest.mark.parametrize("attack", TORCH)
def test_hostile_torch_files(tmp_path: Path, attack: str) -> None:
    content, message = TORCH[attack]
    (tmp_path / "x.pt").write_bytes(content)
    refused(read_state_dict, tmp_path / "x.pt", message)


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


@pytest.mark.parametrize("attack", LEGACY)
def test_hostile_legacy_torch_files(tmp_path: Path, attack: str) -> None:
    content, message = LEGACY[attack]
    (tmp_path / "x.pt").write_bytes(content)
    refused(read_state_dict, tmp_path / "x.pt", message)


def test_the_harmless_frames_of_these_attacks_are_read(tmp_path: Path) -> None:
    for content in (GOOD, legacy({}), with_namespace({"a": 1})):
        (tmp_path / "x.pt").write_bytes(content)
        np.testing.assert_array_equal(read_state_dict(tmp_path / "x.pt")["a"], np.zeros((2, 4), np.float32))


@pytest.mark.parametrize("file", ["torch_formats.pt", "torch_formats_legacy.pt"])
def test_every_dtype_view_and_stride_is_read_to_the_bit(file: str) -> None:
    expected = dict(np.load(GOLDEN / "torch_formats.npz"))
    found = read_state_dict(GOLDEN / file)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert (found[key].shape, found[key].dtype) == (value.shape, value.dtype)
        np.testing.assert_array_equal(found[key], value)
        assert found[key].flags.c_contiguous and found[key].flags.writeable


def test_arguments_and_prefixes_of_a_training(tmp_path: Path) -> None:
    file = read_torch(GOLDEN / "sit_gvp.pt")
    assert (file.args["path_type"], file.args["num_classes"]) == ("GVP", 5)
    for prefix in ("module.", "_orig_mod."):
        (tmp_path / "x.pt").write_bytes(torch({f"{prefix}a": tensor(), f"{prefix}b": tensor()}))
        assert list(read_state_dict(tmp_path / "x.pt")) == ["a", "b"]


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


@pytest.mark.parametrize("attack", SAFE)
def test_hostile_safetensors(tmp_path: Path, attack: str) -> None:
    content, message = SAFE[attack]
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(read_safetensors, tmp_path / "x.safetensors", message)


def test_half_precision_in_safetensors_is_exact(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safe({"a": entry((2,), (0, 4), "BF16")}, b"\x80\x3f\x40\xc0"))
    np.testing.assert_array_equal(read_safetensors(tmp_path / "x")["a"], np.asarray([1, -3], np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "os.system"}, "config of 'os.system'"),
        ({"num_layers": 10**9}, "num_layers is no whole number"),
        ({"num_layers": "2; rm"}, "num_layers is no whole number"),
        ({"patch_size": 0}, "patch_size is no whole number"),
        ({"activation_fn": "geglu"}, "activation_fn is not 'gelu-approximate'"),
        ({"num_layers": 3}, "lacks transformer_blocks.2"),
        ({"num_layers": 1}, "tensors besides"),
        ({"num_attention_heads": 8}, "not those of its tensors"),
    ],
)
def test_hostile_configs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((GOLDEN / "diffusers_dit/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    name = "diffusion_pytorch_model.safetensors"
    (tmp_path / name).write_bytes((GOLDEN / "diffusers_dit" / name).read_bytes())
    refused(read_weights, tmp_path, message)


def test_hostile_folders(tmp_path: Path) -> None:
    config, weights = (GOLDEN / "diffusers_dit/config.json").read_text(), "diffusion_pytorch_model.safetensors"
    refused(read_weights, tmp_path, "folder without weights")
    (tmp_path / "config.json").write_text(config)
    refused(read_diffusers, tmp_path, "is no file")
    (tmp_path / weights).symlink_to("/dev/zero")
    refused(read_diffusers, tmp_path, "is no file")
    (tmp_path / weights).unlink()
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"x")
    refused(read_diffusers, tmp_path, "only as a .bin")
    (tmp_path / f"{weights}.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    refused(read_diffusers, tmp_path, "something other than")


def test_shards_are_put_together(tmp_path: Path) -> None:
    whole = read_safetensors(GOLDEN / "diffusers_dit/diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text((GOLDEN / "diffusers_dit/config.json").read_text())
    names, places = sorted(whole), {}
    for i, part in enumerate((names[::2], names[1::2])):
        header, data = {}, b""
        for key in part:
            raw = whole[key].tobytes()
            header[key], data = entry(whole[key].shape, (len(data), len(data) + len(raw))), data + raw
        (tmp_path / f"{i}.safetensors").write_bytes(safe(header, data))
        places |= dict.fromkeys(part, f"{i}.safetensors")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    found, expected = read_diffusers(tmp_path)[1], read_diffusers(GOLDEN / "diffusers_dit")[1]
    assert all(np.array_equal(found[key], expected[key]) for key in expected) and set(found) == set(expected)


def test_mutations_of_good_files_are_read_or_refused(tmp_path: Path) -> None:
    """What no rule above foresees: any other exception than InputError fails here."""
    drawn = random.Random(0)
    for suffix, read, good in (
        ("ckpt", read_checkpoint, official()),
        ("pt", read_state_dict, GOOD),
        ("pt", read_state_dict, legacy({})),
        ("safetensors", read_safetensors, safe({"a": entry()})),
    ):
        outcomes = set()
        for _ in range(150):
            damaged = bytearray(good)
            for _ in range(drawn.choice((1, 1, 3))):
                damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
            (tmp_path / f"x.{suffix}").write_bytes(damaged[: drawn.choice((None, None, drawn.randrange(len(good))))])
            try:
                read(tmp_path / f"x.{suffix}")
                outcomes.add("read")
            except InputError as error:
                assert str(error).isprintable() and len(str(error)) < 600
                outcomes.add("refused")
        assert "refused" in outcomes
