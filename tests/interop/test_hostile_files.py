"""Files made to do harm: each is refused in one plain sentence, and costs neither memory nor time."""

import json
import random
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import cli, load
from shortcut_models.errors import InputError
from shortcut_models.interop.diffusers_folder import read_diffusers
from shortcut_models.interop.importing import read_weights
from shortcut_models.interop.npz_file import read_npz
from shortcut_models.interop.official import read_checkpoint
from shortcut_models.interop.safetensors_file import read_safetensors
from shortcut_models.interop.torch_file import read_state_dict, read_torch
from shortcut_models.metrics.statistics import read_stats
from tests.interop.hostile_files import (
    GOOD,
    LEGACY,
    MODEL_FOLDERS,
    NPZ,
    OFFICIAL,
    SAFE,
    SIZES,
    TORCH,
    Write,
    array,
    entry,
    legacy,
    official,
    run_folders,
    safe,
    torch,
    with_namespace,
)
from tests.interop.pickling import tensor

GOLDEN = Path(__file__).parents[1] / "golden/weights"
MEMORY, SECONDS = 128 << 20, 5.0


def refused(read: Callable[[Path], Any], path: Path, message: str = ".", traced: bool = True) -> None:
    """Refused with this message, in one printable sentence, within the bounds.

    Not `traced` is what has read checkpoints: TensorStore's threads may call Python a moment later, and crash where
    tracemalloc then ends. The process's peak sees less, but all that would hurt.
    """
    start, highest = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if traced:
        tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message) as error:
            read(path)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - highest) * (
            1 if sys.platform == "darwin" else 1024
        )
        peak = tracemalloc.get_traced_memory()[1] if traced else grown
    finally:
        if traced:
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


@pytest.mark.parametrize("attack", TORCH)
def test_hostile_torch_files(tmp_path: Path, attack: str) -> None:
    content, message = TORCH[attack]
    (tmp_path / "x.pt").write_bytes(content)
    refused(read_state_dict, tmp_path / "x.pt", message)


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
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        (tmp_path / "x.pt").write_bytes(torch({f"{prefix}a": tensor(), f"{prefix}b": tensor()}))
        assert list(read_state_dict(tmp_path / "x.pt")) == ["a", "b"]


@pytest.mark.parametrize("attack", SAFE)
def test_hostile_safetensors(tmp_path: Path, attack: str) -> None:
    content, message = SAFE[attack]
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(read_safetensors, tmp_path / "x.safetensors", message)


def test_a_header_longer_than_any_network_s_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safe({"a": entry(), "b": " " * 5_000_000}))
    refused(read_safetensors, tmp_path / "x", "a header of 5,000,.* bytes, more than any network needs")


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
    refused(read_diffusers, tmp_path, r"only 'diffusion_pytorch_model\.bin': save it again")
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


@pytest.mark.parametrize("attack", NPZ)
def test_hostile_statistics(tmp_path: Path, attack: str) -> None:
    content, message = NPZ[attack]
    (tmp_path / "x.npz").write_bytes(content)
    refused(lambda path: read_stats(path, "adm"), tmp_path / "x.npz", message)


def test_harmless_statistics_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    kept: dict[str, Any] = {"a": drawn.random((3, 5)), "b": np.asfortranarray(drawn.random((4, 2)).astype(">f4"))}
    kept |= {"c": np.array("text, \u00fc"), "d": np.float64(2.5), "e": drawn.random((0, 3)), "f": drawn.random(7) > 0.5}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "x.npz", **kept)
        found = read_npz(tmp_path / "x.npz", dict.fromkeys([*kept, "missing"], 1000))
        assert set(found) == set(kept)
        for key, value in kept.items():
            np.testing.assert_array_equal(found[key], value)
    with pytest.raises(InputError, match="does not fit"):
        read_npz(tmp_path / "x.npz", {"a": 119})


@pytest.mark.parametrize("attack", ["a good model folder", *(a for a in MODEL_FOLDERS if "good" not in a)])
def test_hostile_model_folders(tmp_path: Path, attack: str) -> None:
    MODEL_FOLDERS[attack](tmp_path / "x")
    if "good" in attack:
        load(tmp_path / "x")  # What JAX loads at first counts for nobody.
    else:
        refused(load, tmp_path / "x")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "points"
    words = ["--max-steps", "1", "--batch-size", "8", "--model.hidden-size", "4", "--model.depth", "1"]
    assert cli.main(["train", "points", "--run-dir", str(folder), *words]) == 0
    return folder


def test_hostile_run_folders(run: Path, tmp_path: Path) -> None:
    attacks: dict[str, Write] = run_folders(run)
    assert set(SIZES) < set(attacks)
    load(run)
    for number, (attack, write) in enumerate(attacks.items()):
        write(tmp_path / str(number))
        if "good" not in attack:
            refused(load, tmp_path / str(number), traced=False)
