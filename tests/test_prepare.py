"""Prepared data: the same bytes however often it was stopped, every image's fate, and what reads it."""

import json
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError, cli
from shortcut_models import prepare as prepare_module
from shortcut_models.codecs.latents import Latents as Codec
from shortcut_models.data import choose, open_data, take
from shortcut_models.data.folder import Folder
from shortcut_models.data.pipeline import batch_dataset, flips
from shortcut_models.data.prepared import Prepared, ShardSource
from shortcut_models.prepare import prepare, read
from shortcut_models.prepare_check import check

NASTY = Path(__file__).parent / "golden" / "nasty"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty images in two classes and an empty one, of two sizes."""
    rng = np.random.default_rng(0)
    for i in range(20):
        file = tmp_path / "source" / "ab"[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24 + i, 30, 3), np.uint8)).save(file)
    (tmp_path / "source" / "aa").mkdir()
    return tmp_path / "source"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of six images."""
    monkeypatch.setattr(prepare_module, "SHARD_ITEMS", 6)


class Fake:
    """A VAE whose mean is the average of 8x8 pixels, and whose deviation is their largest."""

    identity, file_sha256, dtype, scale = "fake", "of its file", "float32", 0.5

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert images.min() >= -1
        assert images.max() <= 1
        count, side = len(images), images.shape[1] // 8
        parts = images.reshape(count, side, 8, side, 8, 3)
        return parts.mean(axis=(2, 4)), 2 * np.log(2 + parts.max(axis=(2, 4)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_prepared_images_are_those_of_the_source_in_its_order(source: Path, tmp_path: Path) -> None:
    manifest = prepare(str(source), tmp_path / "out", size=16)
    expected = {"count": 20, "shape": [16, 16, 3], "num_classes": 3, "class_names": ["a", "aa", "b"], "left_out": []}
    assert {name: manifest[name] for name in expected} == expected
    assert manifest["complete"] is True
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["class_counts"] == [10, 0, 10]
    data, straight = choose(str(tmp_path / "out")), Folder(path=str(source), size=16)
    assert isinstance(data, Prepared)
    assert (data.shape, data.num_classes, data.class_names) == ((16, 16, 3), 3, ("a", "aa", "b"))
    order = np.random.default_rng(1).permutation(20)
    found, wanted = take(data.open(), order), take(straight.open(), order)
    assert (found["image"].dtype, found["label"].dtype) == (np.uint8, np.int32)
    for name in ("image", "label"):
        np.testing.assert_array_equal(found[name], wanted[name])
    assert isinstance(data.open()[19]["label"], int)
    np.testing.assert_array_equal(data.open()[19]["image"], straight.open()[19]["image"])
    with pytest.raises(IndexError, match="index 20 is outside"):
        data.open()[20]


def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    prepare(str(source), whole, size=16, vae=Fake())
    steps = 0

    def stop_at(number: int, name: str) -> None:
        """Be killed at the `number`-th write: before it, or with the file aside and not renamed."""
        real = getattr(Path, name)

        def method(self: Path, *words: Any, **options: Any) -> Any:
            nonlocal steps
            if str(tmp_path / "out") in str(self) and (name == "replace" or ".part" in self.name):
                steps += 1
                if steps == number:
                    raise KeyboardInterrupt
            return real(self, *words, **options)

        monkeypatch.setattr(Path, name, method)

    for number in range(1, 200):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        steps, killed = 0, False
        for name in ("replace", "open"):
            with monkeypatch.context() as patch:
                monkeypatch, kept = patch, monkeypatch
                stop_at(number, name)
                try:
                    prepare(str(source), tmp_path / "out", size=16, vae=Fake())
                except KeyboardInterrupt:
                    killed = True
                monkeypatch = kept
            steps = 0
        prepare(str(source), tmp_path / "out", size=16, vae=Fake())
        assert contents(tmp_path / "out") == contents(whole)
        if not killed:
            break
    assert number > 20


@pytest.mark.parametrize("moment", ["listed", "written"])
def test_parts_that_start_at_the_same_moment_do_not_disturb_each_other(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    out, replace, listing, others = tmp_path / "out", Path.replace, Path.iterdir, [2]

    def other() -> None:
        if others:
            others.pop()
            assert prepare(str(source), out, size=16, part=(2, 2)) == {}

    def late(path: Path, target: Path) -> Path:
        other()
        return replace(path, target)

    def early(path: Path) -> list[Path]:
        if path == out:
            other()
        return list(listing(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, *(("iterdir", early) if moment == "listed" else ("replace", late)))
        assert prepare(str(source), out, size=16, part=(1, 2)) == {}
    assert prepare(str(source), out, size=16)["complete"]
    assert not list(out.glob(".*"))


def test_parts_are_merged_by_the_plain_command(source: Path, tmp_path: Path) -> None:
    prepare(str(source), tmp_path / "whole", size=16)
    for k in (2, 1, 3):
        assert prepare(str(source), tmp_path / "out", size=16, part=(k, 3)) == {}
        with pytest.raises(InputError, match="out is not complete: run the `shortcut prepare` command that makes it"):
            choose(str(tmp_path / "out")).open()
    written = {name: data for name, data in contents(tmp_path / "out").items() if name != "manifest.json"}
    prepare(str(source), tmp_path / "out", size=16)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert written.items() <= contents(tmp_path / "whole").items()  # The last did nothing but merge.
    for part in ((0, 3), (4, 3)):
        with pytest.raises(InputError, match=rf"part is {part[0]}/3, but must be K/N with K from 1 to N"):
            prepare(str(source), tmp_path / "out", size=16, part=part)


def test_every_odd_file_is_left_out_for_its_reason_and_listed(tmp_path: Path) -> None:
    fates = json.loads((NASTY / "nasty.json").read_text())["files"]
    root = tmp_path / "flat"
    root.mkdir()
    for file in NASTY.iterdir():
        if file.is_file():
            shutil.copy(file, root)
    expected = {name: fate for name, fate in fates.items() if "/" not in name}
    with pytest.raises(
        InputError, match=r"18 of 70 images are left out \(5 corrupt, 2 empty, .* more than the share 0.01"
    ):
        prepare(str(root), tmp_path / "out", size=16)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"] is False
    with pytest.raises(InputError, match="is not complete"):
        choose(str(tmp_path / "out")).open()
    found = {bad["name"]: (bad["reason"], bad["detail"]) for bad in manifest["left_out"]}
    assert found == {n: (f["reason"], f["detail"]) for n, f in expected.items() if f["fate"] == "left_out"}
    manifest = prepare(str(root), tmp_path / "out", size=16, most_left_out=0.5)
    assert manifest["complete"]
    assert manifest["count"] == len(expected) - 18
    notes: dict[str, int] = {}
    for fate in expected.values():
        for note in fate.get("notes", ()):
            notes[note] = notes.get(note, 0) + 1
    assert {name: count for name, count in manifest["notes"].items() if name in notes} == notes
    assert manifest["notes"]["extreme_aspect"] == 2
    assert manifest["notes"]["smaller_than_target"] == 4
    assert (manifest["num_classes"], manifest["class_names"]) == (1, [])


def test_what_out_holds_already_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(str(source), out, size=16)
    before = contents(out)
    with pytest.raises(
        InputError, match=r"other settings; choose another OUT:\n  identity: .*\n  size: 16 there, 8 now"
    ):
        prepare(str(source), out, size=8)
    (source / "a" / "00.png").unlink()
    with pytest.raises(InputError, match=r"other files or with other settings; choose another OUT:\n  identity"):
        prepare(str(source), out, size=16)
    assert contents(out) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists but holds no prepared data: choose another OUT"):
        prepare(str(source), tmp_path / "other", size=16)
    with pytest.raises(InputError, match="cannot be prepared: prepare takes files of images"):
        prepare(str(out), tmp_path / "again", size=16)
    with pytest.raises(InputError, match="digits cannot be prepared: prepare takes files of images"):
        prepare("digits", tmp_path / "again", size=16)


def test_a_disk_that_refuses_is_told_in_a_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "images-00000.npy")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(InputError, match=r"images-00000.npy: no space left on device \(what is done is kept"):
        prepare(str(source), tmp_path / "out", size=16)


def test_a_file_that_may_not_grow_is_told_with_its_reason(source: Path, tmp_path: Path) -> None:
    """Half of an array is written, as where a disk fills up, which NumPy tells without a reason."""
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(InputError, match=r"out.*: file too large \(what is done is kept.*: raise the limit"):
            prepare(str(source), tmp_path / "out", size=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    prepare(str(source), tmp_path / "out", size=16)
    prepare(str(source), tmp_path / "whole", size=16)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shard_that_another_part_is_writing_is_waited_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of different numbers of parts have shards in common."""
    out = tmp_path / "out"
    prepare(str(source), out, size=16, part=(4, 4))
    reading, go_on = threading.Event(), threading.Event()
    indices: list[int] = []

    def read_slowly(*given: Any) -> Any:
        indices.append(given[-1])
        reading.set()
        assert go_on.wait(60)
        return read(*given)

    def prepare_part(*part: int) -> None:
        prepare(str(source), out, size=16, part=(part[0], part[1]), threads=1)

    monkeypatch.setattr(prepare_module, "read", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare_part, 1, 4)  # The first of four shards.
        assert reading.wait(60)
        second = pool.submit(prepare_part, 1, 2)  # The first and the third.
        time.sleep(0.2)
        assert indices == [0]
        go_on.set()
        first.result(), second.result()
    assert indices == [*range(6), *range(12, 18)]  # None was read twice.
    prepare(str(source), tmp_path / "whole", size=16)
    prepare(str(source), out, size=16)
    assert contents(out) == contents(tmp_path / "whole")


def test_latents_are_moments_with_a_mirrored_copy(source: Path, tmp_path: Path) -> None:
    manifest = prepare(str(source), tmp_path / "out", size=16, vae=Fake())
    assert (manifest["shape"], manifest["vae"], manifest["count"]) == ([2, 2, 3], "fake", 20)
    assert manifest["vae_file"] == "of its file"
    images = take(Folder(path=str(source), size=16).open(), np.arange(20))["image"].astype(np.float32) / 127.5 - 1
    data = Prepared(path=str(tmp_path / "out"), flip=True)
    assert data.shape == (2, 2, 3)
    for name, source_now, pixels in (
        ("plain", data.open(), images),
        ("mirrored", cast(ShardSource, data.open()).mirror, images[:, :, ::-1]),
    ):
        mean, logvar = Fake().encode(pixels)
        assert source_now is not None
        found = take(source_now, np.arange(20))
        assert found["mean"].dtype == np.float16, name
        np.testing.assert_allclose(found["mean"], mean, atol=2e-3)
        np.testing.assert_allclose(found["deviation"], np.exp(logvar / 2), atol=2e-3)
    batch, turned = batch_dataset(data.open(), 20, seed=1)[0], flips(1, 0, 20)
    order = batch_dataset(Prepared(path=str(tmp_path / "out")).open(), 20, seed=1)[0]
    np.testing.assert_array_equal(batch["mean"][~turned], order["mean"][~turned])
    assert not np.array_equal(batch["mean"][turned], order["mean"][turned])
    prepare(str(source), tmp_path / "plain", size=16, vae=Fake(), mirror=False)
    with pytest.raises(InputError, match="holds no mirrored latents"):
        Prepared(path=str(tmp_path / "plain"), flip=True).open()
    with pytest.raises(InputError, match=r"other settings; .*\n  vae: fake there, None now"):
        prepare(str(source), tmp_path / "plain", size=16)
    with pytest.raises(InputError, match="the VAE takes RGB of a size that 8 divides"):
        prepare(str(source), tmp_path / "odd", size=12, vae=Fake())


def test_splits_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    golden, out = NASTY.parent / "data" / "imagefolder", tmp_path / "out"
    prepare(str(golden), out / "validation", size=16, split="val")  # In whatever order.
    prepare(str(golden), out, size=16)
    data = choose(str(out))
    assert (data.splits, data.held_out) == (("train", "validation"), "validation")
    assert take(data.open("val"), np.arange(2))["label"].tolist() == [1, 2]
    assert len(open_data(out, size=16)) == 7
    with pytest.raises(InputError, match=r"was prepared with --size 16, but data.size is 32"):
        open_data(out, size=32)
    with pytest.raises(InputError, match="split 'test' is unknown"):
        data.open("test")
    # A split is the same by any of its names, but lies in one place.
    before = (out / "validation" / "manifest.json").read_bytes()
    prepare(str(golden), out / "validation", size=16, split="validation")
    assert (out / "validation" / "manifest.json").read_bytes() == before
    prepare(str(golden), out / "valid", size=16, split="valid")
    assert choose(str(out)).splits == ("train", "validation")
    with pytest.raises(InputError, match=r"valid and validation in .* are both called as the validation split: remove"):
        choose(str(out)).open("validation")


def test_damaged_prepared_data_are_told_in_a_sentence(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(str(source), out, size=16)
    data: Callable[[], Any] = lambda: take(Prepared(path=str(out)).open(), np.arange(20))  # noqa: E731
    whole = (out / "images-00001.npy").read_bytes()
    (out / "images-00001.npy").write_bytes(whole[:-5])
    with pytest.raises(InputError, match=r"images-00001.npy is damaged"):
        data()
    np.save(out / "images-00001.npy", np.zeros((6, 32, 32, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"images-00001.npy holds uint8 \(6, 32, 32, 3\), but the manifest says uint8 \(6, 16,"
    ):
        data()
    for array in (np.zeros((6, 16, 16, 3)), np.asfortranarray(np.ones((6, 16, 16, 3), np.uint8))):
        np.save(out / "images-00001.npy", array)
        with pytest.raises(InputError, match=r"images-00001.npy holds .*: run the command"):
            data()
    (out / "images-00001.npy").unlink()
    with pytest.raises(InputError, match=r"images-00001.npy is missing: run the command"):
        data()
    (out / "images-00001.npy").write_bytes(whole)
    np.save(out / "labels-00000.npy", np.full(6, 3, np.int32))
    with pytest.raises(InputError, match=r"out has labels from 0 to 3, but 3 classes: prepare the data again"):
        data()
    manifest = json.loads((out / "manifest.json").read_text())
    for name, value in {"settings": None, "shards": {}, "shape": "8", "kind": "sounds"}.items():
        (out / "manifest.json").write_text(json.dumps(manifest | {name: value}))
        with pytest.raises(InputError, match=rf"manifest.json is damaged \(in {name}\): remove .*out, and prepare"):
            data()
    (out / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        data()
    (out / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match="has format 9, but this version reads 1"):
        data()


def test_a_shard_of_which_nothing_is_left_is_counted(tmp_path: Path) -> None:
    for number in range(8):  # The second shard holds the last two.
        file = tmp_path / "source" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
        if number > 5:
            file.write_bytes(b"no image")
    manifest = prepare(str(tmp_path / "source"), tmp_path / "out", size=8, most_left_out=0.5)
    assert (manifest["complete"], manifest["count"], manifest["class_counts"]) == (True, 6, [6])
    assert len(open_data(tmp_path / "out")) == 6
    for number in range(6):
        (tmp_path / "source" / f"{number}.png").unlink()
    with pytest.raises(InputError, match=r"2 of 2 images are left out \(2 format\), more than the share 1 that may be"):
        prepare(str(tmp_path / "source"), tmp_path / "none", size=8, most_left_out=1)
    assert json.loads((tmp_path / "none" / "manifest.json").read_text())["complete"] is False


def test_what_was_damaged_is_made_again_by_the_command_that_made_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(str(source), out, size=16, vae=Fake())
    whole = contents(out)
    for name in ("mean-00001.npy", "deviation-mirrored-00002.npy", "labels-00000.npy"):
        (out / name).unlink()
        with pytest.raises(InputError, match=rf"{name} is missing: run the command that prepared it again"):
            Prepared(path=str(out), flip=True).open()
        prepare(str(source), out, size=16, vae=Fake())
        assert contents(out) == whole
    for name, kept in (("mean-00000.npy", 200), ("labels-00002.npy", -1)):  # Half of it, and all but a byte.
        (out / name).write_bytes((out / name).read_bytes()[:kept])
        with pytest.raises(InputError, match=rf"{name} is damaged \(.*\): run the command that prepared it again"):
            take(Prepared(path=str(out)).open(), np.arange(20))
        prepare(str(source), out, size=16, vae=Fake())
        assert contents(out) == whole
    (out / "mean-00001.npy").write_bytes((out / "mean-00001.npy").read_bytes()[:140])
    with pytest.raises(InputError, match=r"mean-00001.npy is damaged \(it is cut short\)"):
        Prepared(path=str(out)).open()  # Before a training has begun.
    prepare(str(source), out, size=16, vae=Fake())
    for text in ("{", "[]", '{"count": 6}'):
        (out / "shard-00001.json").write_text(text)
        with pytest.raises(InputError, match=r"shard-00001.json is damaged: remove it, and run the same command again"):
            prepare(str(source), out, size=16, vae=Fake())


def test_nothing_is_written_among_the_source_s_files(source: Path, tmp_path: Path) -> None:
    before = contents(source)
    (tmp_path / "link").symlink_to(source)
    for out in (source / "out", source / "a" / "deep" / "out", tmp_path / "link" / "out"):
        with pytest.raises(InputError, match=r"out lies within .*source, which is only read: choose an OUT elsewhere"):
            prepare(str(source), out, size=16)
    assert contents(source) == before
    with pytest.raises(InputError, match=r"00.png is a file: choose another OUT"):
        prepare(str(source / "b"), source / "a" / "00.png", size=16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size is 0, but images are 1 to 9459 pixels high and wide"),
        ({"size": 10**8}, "size is 100000000, but images are 1 to 9459 pixels high and wide"),
        ({"size": 8, "threads": 0}, "threads is 0, but must be at least 1"),
        ({"size": 8, "most_left_out": 1.5}, "most-left-out is 1.5, but must be a share between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    source: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(str(source), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_check_counts_and_writes_nothing(source: Path) -> None:
    (source / "a" / "bad.jpg").touch()
    before = contents(source)
    found = check(str(source))
    assert contents(source) == before
    assert (found["count"], found["class_names"], found["class_counts"]) == (20, ["a", "aa", "b"], [10, 0, 10])
    assert (found["heights"], found["widths"]) == ([24, 34, 43], [30, 30, 30]) or found["heights"][1] == 33
    assert found["left_out"] == [{"name": "a/bad.jpg", "reason": "empty", "detail": "zero bytes"}]
    assert found["left_out_by_reason"] == {"empty": 1}
    assert found["warnings"] == ["class 'aa' has no images; it keeps its label"]


def test_a_run_s_latents_stay_those_of_its_vae(source: Path, tmp_path: Path) -> None:
    prepare(str(source), tmp_path / "out", size=16, vae=Fake())
    data = choose(tmp_path / "out")
    codec = cast(Codec, data.codec)
    assert (codec.identity, codec.scale, codec.factor, codec.channels) == ("fake", 0.5, 8, 3)
    noted = cast(Prepared, data.recorded())
    assert noted.vae_identity == "fake"
    assert noted.shape == (2, 2, 3)
    with pytest.raises(InputError, match="holds latents of the VAE fake, but the VAE other is needed"):
        Prepared(path=str(tmp_path / "out"), vae_identity="other").open()
    prepare(str(source), tmp_path / "pixels", size=16)
    with pytest.raises(InputError, match="holds images, no latents, but the VAE fake is needed"):
        Prepared(path=str(tmp_path / "pixels"), vae_identity="fake").open()
    assert cast(Prepared, choose(tmp_path / "pixels").recorded()).vae_identity == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vae-dtype", "bfloat16"], "--vae-dtype bfloat16 says what a VAE computes in, but no --vae is given"),
        (["--threads=-1"], "threads is -1, but must be at least 1"),
        (["more"], "prepare takes SOURCE and OUT, but was given"),
        (["--latents", "edm2"], "--latents edm2 does not fit"),
    ],
)
def test_no_flag_is_accepted_and_ignored(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["prepare", str(source), str(tmp_path / "out"), "--size", "8", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_outputs_stay_on_this_machine(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["prepare", str(source), "gs://bucket/out", "--size", "8"]) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]
