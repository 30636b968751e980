"""IDX, .npz, tar files, Hugging Face's tables and latents: as the real tools write them, and damaged."""

import gzip
import io
import json
import re
import shutil
import struct
import sys
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError
from shortcut_models.data import choose, open_data, take
from shortcut_models.data.huggingface import HuggingFace
from shortcut_models.data.idx import FashionMnist, Idx
from shortcut_models.data.latents import Edm2Latents, RepaLatents
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.data.webdataset import WebDataset
from tests.data.source_files import GOLDEN, needs_pyarrow


def labels(place: Path, split: str = "train") -> list[int]:
    source = open_data(place, split)
    return [source[i]["label"] for i in range(len(source))]


# --- IDX


def write_idx(path: Path, array: np.ndarray) -> None:
    data = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist(root: Path, ending: str = "", before: str = "", side: tuple[int, int] = (5, 4)) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (6, *side), np.uint8)
    root.mkdir(exist_ok=True)
    write_idx(root / f"{before}train-images-idx3-ubyte{ending}", images)
    write_idx(root / f"{before}train-labels-idx1-ubyte{ending}", np.arange(6, dtype=np.uint8) % 4)
    write_idx(root / f"{before}t10k-images-idx3-ubyte{ending}", images[:2])
    write_idx(root / f"{before}t10k-labels-idx1-ubyte{ending}", np.zeros(2, np.uint8))
    return images


@pytest.mark.parametrize(("ending", "before"), [("", ""), (".gz", ""), (".gz", "emnist-letters-")])
def test_idx_files(tmp_path: Path, ending: str, before: str) -> None:
    images = write_mnist(tmp_path / "mnist", ending, before)
    data = choose(str(tmp_path / "mnist"))
    assert isinstance(data, Idx)
    assert (data.splits, data.held_out, data.shape, data.num_classes) == (("train", "test"), "test", (5, 4, 1), 4)
    found = take(data.open(), np.arange(6))
    np.testing.assert_array_equal(found["image"], images[..., None])
    assert found["label"].tolist() == [0, 1, 2, 3, 0, 1]
    assert len(data.open("test")) == 2
    assert open_data(tmp_path / "mnist", size=8)[0]["image"].shape == (8, 8, 1)


def test_fashion_mnist_is_found_by_path_or_said_how_to_get(tmp_path: Path) -> None:
    write_mnist(tmp_path / "fashion", side=(28, 28))
    data = choose(f"fashion-mnist:{tmp_path / 'fashion'}")
    assert isinstance(data, FashionMnist)
    assert (len(data.open()), len(data.open("test")), data.held_out) == (6, 2, "test")
    assert (data.class_names[9], data.num_classes) == ("ankle boot", 10)
    assert take(data.open(), np.arange(2))["image"].shape == (2, *data.shape)
    assert data.metrics == ("frechet-fashionnet1", "frechet-pixels7x7", "agreement-fashionnet1")
    resized = replace(data, size=16)
    assert take(resized.open(), np.arange(2))["image"].shape == (2, *resized.shape) == (2, 16, 16, 1)
    assert resized.metrics == ("frechet-pixels8x8",)
    write_mnist(tmp_path / "small")
    with pytest.raises(InputError, match=r"holds images of 5x4x1, but Fashion-MNIST's are 28x28x1: read them with idx"):
        choose(f"fashion-mnist:{tmp_path / 'small'}").open()
    with pytest.raises(InputError, match=r"Fashion-MNIST is not in .*: install Debian's package dataset-fashion-mnist"):
        FashionMnist(path=str(tmp_path / "nowhere")).open()


def test_damaged_idx_files(tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    write_mnist(root)
    file = root / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    for data, message in (
        (whole[:-1], "is truncated, it holds 119 bytes, but should hold 6 x 5 x 4"),
        (whole + b"?", "holds 121 bytes, but should hold 6 x 5 x 4"),
        (whole[:9], "is truncated, it holds 9 bytes of its header"),
        (b"\0\0\x0d\x03" + whole[4:], "is no IDX file of bytes"),
        (whole[8:], "is no IDX file of bytes"),
        *((part, "is truncated, it") for part in (b"", whole[:1], whole[:3], b"\x1f")),
        *((gzip.compress(whole)[:end], "is truncated, its gzip ends too early") for end in (2, 15, 60, -1)),
    ):
        file.write_bytes(data)
        with pytest.raises(InputError, match=message):
            open_data(root)
    # No more is unpacked than the header names.
    for packed in (gzip.compress(whole + b"?"), gzip.compress(whole + bytes(1 << 26), 1)):
        file.write_bytes(packed)
        tracemalloc.start()
        with pytest.raises(InputError, match="holds more than 120 bytes, but should hold 6 x 5 x 4"):
            open_data(root)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()
    file.write_bytes(gzip.compress(whole[:4] + b"\xff" * 12 + whole[16:]))
    with pytest.raises(InputError, match="is truncated, it holds 120 bytes, but should hold 4294967295 x 4294967295 x"):
        open_data(root)
    file.write_bytes(whole)
    write_idx(root / "train-labels-idx1-ubyte", np.zeros(5, np.uint8))
    with pytest.raises(InputError, match=r"has shape \(5,\), but its images have \(6, 5, 4\)"):
        open_data(root)
    (root / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="has no labels beside it: train-labels-idx1-ubyte is missing"):
        open_data(root)


# --- .npz


def test_npz_of_adm(tmp_path: Path) -> None:
    file = GOLDEN / "latents" / "adm_samples.npz"
    stored = np.load(file)
    source = open_data(file)
    np.testing.assert_array_equal(source[3]["image"], stored["arr_0"][3])
    assert labels(file) == stored["arr_1"].tolist()
    fid = {"mu": np.zeros(3), "sigma": np.eye(3)}
    np.savez(tmp_path / "fid.npz", **fid)
    with pytest.raises(InputError, match="holds statistics for FID, no images"):
        open_data(tmp_path / "fid.npz")
    np.savez(tmp_path / "both.npz", **fid, arr_0=stored["arr_0"])  # As ADM's reference batches are.
    np.testing.assert_array_equal(open_data(tmp_path / "both.npz")[3]["image"], stored["arr_0"][3])
    np.savez(tmp_path / "float.npz", np.zeros((2, 4, 4, 3)))
    with pytest.raises(InputError, match=r"is float64 \(2, 4, 4, 3\), but images are uint8"):
        open_data(tmp_path / "float.npz")


# --- WebDataset


@pytest.mark.parametrize(("name", "expected"), [("jpg", [0, 2, 1, 0, 2]), ("mixed", [0, 1, 2, 0])])
def test_webdataset(name: str, expected: list[int], tmp_path: Path) -> None:
    folder = GOLDEN / "webdataset" / name
    assert labels(folder) == expected == labels(folder / "shard-000000.tar")
    assert choose(str(folder)).num_classes == 3
    assert open_data(folder, size=16)[0]["image"].shape == (16, 16, 3)
    for split in ("train", "val"):
        shutil.copytree(folder, tmp_path / split)
    assert choose(str(tmp_path)).splits == ("train", "validation")
    whole = (folder / "shard-000000.tar").read_bytes()
    (tmp_path / "short.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut short"):
        open_data(tmp_path / "short.tar")


def test_samples_of_a_tar_end_at_the_first_dot(tmp_path: Path) -> None:
    def write(**members: bytes) -> Path:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return tmp_path / "a.tar"

    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    png = file.getvalue()
    # Equal names in two folders are two samples; the fields' order does not matter; a second image is left out.
    found = write(**{"x/1.cls": b"3\n", "x/1.png": png, "y/1.png": png, "y/1.cls": b"0", "y/1.jpg": png})
    assert labels(found) == [3, 0]
    data = choose(str(found))
    assert isinstance(data, WebDataset)
    assert [bad.name for bad in data.records("train").left_out] == ["a.tar/y/1.jpg"]
    assert data.records("train").warnings == []
    bare = choose(str(write(**{"x/1.png": png, "y/1.png": png})))
    assert isinstance(bare, WebDataset)
    assert "the folders in a tar are not taken for classes" in bare.records("train").warnings[0]
    assert labels(write(**{"1.png": png, "2.png": png, "2.json": b"{}"})) == [0, 0]
    with pytest.raises(InputError, match=r"has a sample without a label, 2.png"):
        open_data(write(**{"1.png": png, "1.cls": b"1", "2.png": png}))
    with pytest.raises(InputError, match=r"has a label that is no whole number: 1.cls holds b'cat'"):
        open_data(write(**{"1.png": png, "1.cls": b"cat"}))


def test_an_image_s_field_goes_by_its_last_suffix(tmp_path: Path) -> None:
    def write(*names: str) -> WebDataset:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for number, name in enumerate(names):
                file = io.BytesIO()
                Image.new("L", (4, 4), number).save(file, "PNG")
                data = b"%d" % number if name.endswith("cls") else file.getvalue()
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        found = choose(str(tmp_path / "a.tar"))
        assert isinstance(found, WebDataset)
        return found

    def read(data: WebDataset) -> tuple[dict[str, int], list[str]]:
        records = data.records("train")
        used = {records.name(i).removeprefix("a.tar/"): records.read(i)[1] for i in range(len(records))}
        return used, [bad.name.removeprefix("a.tar/") for bad in records.left_out]

    assert read(write("a.png", "b.x.png", "photo.v0.PNG")) == ({"a.png": 0, "b.x.png": 0, "photo.v0.PNG": 0}, [])
    # The image without more in its name is the sample's; of others the first, with the label of the same name.
    assert read(write("1.depth.png", "1.cls", "1.png")) == ({"1.png": 1}, ["1.depth.png"])
    several = "img.0.jpg", "img.0.cls", "img.1.jpg", "img.1.cls"
    assert read(write(*several)) == ({"img.0.jpg": 1}, ["img.1.jpg"])
    assert write(*several).records("train").left_out[0].detail.startswith("a second image of one sample")
    assert read(write("a.v0.png", "a.kind.cls")) == ({"a.v0.png": 1}, [])
    with pytest.raises(InputError, match=r"several labels for one sample, a.x.cls and a.y.cls: call the one to use"):
        write("a.v0.png", "a.x.cls", "a.y.cls").open()
    with pytest.raises(InputError, match=r"a.tar holds no images: no member's name ends with an image's suffix"):
        write("a.npy", "a.cls").open()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("b.tar.gz", "is compressed by gzip: unpack it first (`gunzip b.tar.gz`)"),
        ("b.tgz", "is compressed by gzip: unpack it first (`gunzip b.tgz`)"),
        ("b.tar.xz", "is compressed by xz: unpack it first (`unxz b.tar.xz`)"),
        ("b.tar", "is compressed by gzip: unpack it first (`mv b.tar b.tar.gz && gunzip b.tar.gz`)"),
    ],
)
def test_compressed_tars_are_never_passed_over(tmp_path: Path, name: str, how: str) -> None:
    for place in (tmp_path / "only", tmp_path / "among", tmp_path / "splits" / "val"):
        place.mkdir(parents=True)
        (place / name).write_bytes(gzip.compress(b"whatever"))
    shutil.copy(GOLDEN / "webdataset/jpg/shard-000000.tar", tmp_path / "among" / "a.tar")
    shutil.copytree(tmp_path / "among", tmp_path / "splits" / "train", ignore=shutil.ignore_patterns("b.*"))
    for place, split in (("only", "train"), (f"only/{name}", "train"), ("among", "train"), ("splits", "val")):
        for kind in ("", "webdataset:"):
            with pytest.raises(InputError, match=re.escape(f"{name} {how} or move it away")):
                open_data(f"{kind}{tmp_path / place}", split)


def test_tar_files_are_walked_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(GOLDEN / "webdataset/mixed", tmp_path / "data")
    first, name = labels(folder), choose(str(folder)).identity()
    assert len(list(cache.glob("webdataset-*.npy"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert labels(folder) == first
        assert choose(str(folder)).identity() == name
    shutil.copyfile(GOLDEN / "webdataset/jpg/shard-000000.tar", folder / "shard-000001.tar")
    assert labels(folder) == [*first, 0, 2, 1, 0, 2]


# --- Hugging Face


@needs_pyarrow
@pytest.mark.parametrize("name", ["hf_arrow", "hf_parquet"])
def test_hugging_face(name: str) -> None:
    data = choose(str(GOLDEN / name))
    assert isinstance(data, HuggingFace)
    assert (data.splits, data.class_names) == (("train", "validation"), ("ant", "bee", "crow"))
    assert labels(GOLDEN / name) == [0, 1, 2, 0, 1, 2, 0]
    assert labels(GOLDEN / name, "validation") == [1, 2]
    # The same pictures as the folder of files.
    folder = {len(p): p for p in (f.read_bytes() for f in (GOLDEN / "imagefolder" / "train").glob("*/*"))}
    records = data.records("train")
    assert all(records.read(i)[0] in folder.values() for i in range(7))


@needs_pyarrow
def test_parquet_is_not_trained_on_and_arrow_is() -> None:
    with pytest.raises(InputError, match="parquet files are read in order, which is no way to train"):
        batch_dataset(open_data(GOLDEN / "hf_parquet", size=8), 4, seed=0)
    assert batch_dataset(open_data(GOLDEN / "hf_arrow", size=8), 4, seed=0)[0]["image"].shape == (4, 8, 8, 3)


@needs_pyarrow
@pytest.mark.parametrize(
    "layout",
    [
        "{split}-{number:05}-of-{count:05}.parquet",
        "plain_text/{split}-{number:05}-of-{count:05}-a09b74b3ef9c3b56.parquet",
        "default/{split}/{number:04}.parquet",
        "default/partial-{split}/{number:04}.parquet",
        "data/{split}/{number:04}.parquet",
        "{split}/{number:04}.parquet",
    ],
)
def test_the_layouts_of_the_hub(tmp_path: Path, layout: str) -> None:
    def place(split: str, number: int, count: int) -> Path:
        return tmp_path / layout.format(split=split, number=number, count=count)

    for split, number, count in (("train", 0, 2), ("train", 1, 2), ("validation", 0, 1)):
        place(split, number, count).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / f"hf_parquet/data/{split}-{number:05}-of-{count:05}.parquet", place(split, number, count))
    (tmp_path / "README.md").touch()
    data = choose(str(tmp_path))
    assert isinstance(data, HuggingFace)
    assert data.splits == ("train", "validation")
    assert (labels(tmp_path), labels(tmp_path, "val")) == ([0, 1, 2, 0, 1, 2, 0], [1, 2])
    assert len(data.records("train").warnings) == ("partial" in layout)
    place("train", 0, 2).unlink()
    with pytest.raises(InputError, match=r"lacks (train-00000-of-00002|0000).parquet: the data set has 2 parquet"):
        open_data(tmp_path)
    assert len(open_data(place("train", 1, 2))) > 0  # Named by itself, it is all that is wanted.


@needs_pyarrow
def test_several_configurations_or_sets_of_parquet_are_told_apart(tmp_path: Path) -> None:
    golden = GOLDEN / "hf_parquet/data"
    for name in ("full_numbers", "cropped_digits"):
        shutil.copytree(golden, tmp_path / name)
    with pytest.raises(InputError, match=r"configurations, cropped_digits, full_numbers: name the inner folder, such"):
        open_data(tmp_path)
    inner = tmp_path / "cropped_digits"
    shutil.copy(golden / "validation-00000-of-00001.parquet", inner / "extra-00000-of-00001.parquet")
    assert choose(str(inner)).splits == ("train", "validation", "extra")
    assert (len(open_data(inner)), labels(inner, "extra")) == (7, [1, 2])
    shutil.copy(golden / "validation-00000-of-00001.parquet", inner / "train-00000-of-00001.parquet")
    with pytest.raises(InputError, match="holds train twice, in 1 and in 2 parquet files: keep one set"):
        open_data(inner)
    (tmp_path / "many").mkdir()
    shutil.copy(golden / "train-00000-of-00002.parquet", tmp_path / "many" / "train-00003-of-99999999999.parquet")
    with pytest.raises(InputError, match=r"lacks train-00000-of-9.* and 99999999993 more"):
        open_data(tmp_path / "many")


@needs_pyarrow
def test_damaged_or_odd_tables(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "hf_arrow", tmp_path / "arrow")
    with pytest.raises(InputError, match="has no column 'photo': it has image, label"):
        HuggingFace(path=str(root), image="photo").open()
    state = root / "train" / "state.json"
    kept = json.loads(state.read_text())
    state.write_text(json.dumps(kept | {"_indices_data_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(InputError, match="was saved with a selection of rows apart"):
        open_data(root)
    state.write_text(json.dumps(kept))
    shard = root / "train" / "data-00001-of-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cannot be read .*: save the data set again"):
        open_data(root)


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs the package pyarrow: pip install 'shortcut-models\[hf\]'"):
        open_data(GOLDEN / "hf_arrow")


# --- Latents


def test_latents_have_to_be_declared(tmp_path: Path) -> None:
    file = GOLDEN / "zip" / "edm2_latents.zip"
    with pytest.raises(InputError, match=r"say whose they are, --latents edm2 or --latents repa"):
        choose(str(file))
    with pytest.raises(InputError, match="--latents edm is unknown: the tools whose latents are read are edm2, repa"):
        choose(str(file), latents="edm")
    with pytest.raises(InputError, match="--latents repa does not fit 'digits', which is read as digits"):
        choose("digits", latents="repa")
    stored = np.load(GOLDEN / "latents" / "expected_latents.npz")
    moments, expected = stored["edm2_latents/mean_std"], stored["edm2_latents/label"].tolist()
    shutil.unpack_archive(file, tmp_path / "folder")
    for kind, cls in (("edm2-latents", Edm2Latents), ("repa-latents", RepaLatents)):
        for place in (file, tmp_path / "folder"):
            data = choose(f"{kind}:{place}")
            assert isinstance(data, cls)
            assert choose(str(place), latents=cls.latents) == data
            assert data.shape == (8, 8, 4)
            found = take(data.open(), np.arange(4))
            np.testing.assert_array_equal(found["mean"], moments[:, :4].transpose(0, 2, 3, 1))
            np.testing.assert_array_equal(found["deviation"], moments[:, 4:].transpose(0, 2, 3, 1))
            assert found["label"].tolist() == expected
            assert data.num_classes == max(expected) + 1
