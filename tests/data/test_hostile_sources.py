"""What damaged, hostile or half-built data are refused with: one sentence each, never anything else."""

import gzip
import inspect
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError
from shortcut_models.data import choose, open_data
from shortcut_models.data.decode import MAX_BYTES, BadImage
from shortcut_models.data.huggingface import HuggingFace
from shortcut_models.data.images import Images
from shortcut_models.data.latents import RepaLatents
from shortcut_models.data.zipped import Zip
from shortcut_models.prepare import prepare
from tests.data.source_files import GOLDEN, needs_pyarrow, png, write


def edm2(file: Path, labels: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, png())
        archive.writestr("dataset.json", labels)
    return file


def webdataset(file: Path, label: bytes, key: str = "1") -> Path:
    with tarfile.open(file, "w") as archive:
        for name, data in ((f"{key}.png", png()), (f"{key}.cls", label)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def npz(file: Path, *arrays: Any) -> Path:
    np.savez(file, *arrays)
    return file


IMAGES = np.zeros((2, 4, 4, 3), np.uint8)
BOUND = "but labels lie between 0 and 999999"


# A label would be the number of names of classes that are made: 2**40 of them are no data set, but the end of memory.
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"labels": [["a.png", 1099511627776], ["b.png", 0]]}', rf"dataset.json has a label 1.1e\+12, {BOUND}"),
        ('{"labels": [["a.png", -1], ["b.png", 0]]}', f"dataset.json has a label -1, {BOUND}"),
        ('{"labels": [["a.png", 1], ["b.png", 0], ["c.png", 2147483647]]}', "dataset.json has a label 2.147e"),
        ('{"labels": [["a.png", 1], ["b.png", 0], ["c.png", null]]}', "dataset.json has labels that are no whole"),
        ("[" * 100_000, "dataset.json is damaged"),
    ],
)
def test_labels_of_edm2_that_no_data_set_has(tmp_path: Path, labels: str, message: str) -> None:
    file = edm2(tmp_path / "a.zip", labels)
    shutil.unpack_archive(file, tmp_path / "folder")
    for place in (file, tmp_path / "folder"):
        with pytest.raises(InputError, match=message):
            open_data(place)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"1099511627776", rf"a.tar has a label 1.1e\+12, {BOUND}"),
        (b"9" * 5000, "a.tar has a label that is no whole number: 1.cls holds b'9999"),
    ],
)
def test_labels_of_a_tar_that_no_data_set_has(tmp_path: Path, label: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data(webdataset(tmp_path / "a.tar", label))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 2**40]), rf"arr_1 of .*a.npz has a label 1.1e\+12, {BOUND}"),
        (np.array([0, -1]), f"arr_1 of .*a.npz has a label -1, {BOUND}"),
        (np.array(["a", "b"]), r"arr_1 of .*a.npz is <U1 \(2,\), but labels are one whole number an image"),
        (np.array([0.0, np.nan]), r"arr_1 of .*a.npz is float64 \(2,\), but labels"),
    ],
)
def test_labels_of_an_npz_that_no_data_set_has(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data(npz(tmp_path / "a.npz", IMAGES, labels))


def test_an_npz_that_is_none(tmp_path: Path) -> None:
    whole = npz(tmp_path / "a.npz", IMAGES).read_bytes()
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    for name in ("a.npy", "cut.npz"):
        with pytest.raises(InputError, match=f"{name} is missing, cut short or no .npz"):
            open_data(f"npz:{tmp_path / name}")
    with pytest.raises(InputError, match=r"is uint8 \(2, 0, 4, 3\), but images"):
        open_data(npz(tmp_path / "flat.npz", IMAGES[:, :0]))


def test_an_npz_whose_data_are_damaged_or_whose_header_lies(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    np.savez_compressed(tmp_path / "flipped.npz", noise)
    whole = bytearray((tmp_path / "flipped.npz").read_bytes())
    whole[60:70] = b"\xff" * 10
    (tmp_path / "flipped.npz").write_bytes(whole)
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        archive.writestr("arr_0.npy", npy_header((2**40, 50, 50, 3)))
    for name in ("flipped", "large"):
        with pytest.raises(InputError, match=rf"{name}.npz cannot be read \(.*\): copy it again"):
            open_data(tmp_path / f"{name}.npz")


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    """An .npy file that ends after its header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


# --- Latents


def test_a_latent_whose_header_lies_is_left_out(tmp_path: Path) -> None:
    np.save(tmp_path / "img-mean-std-00000002.npy", np.ones((8, 4, 4), np.float32))
    for number, side in enumerate((2**24, 2**40)):  # More than memory holds, and than NumPy counts.
        (tmp_path / f"img-mean-std-0000000{number}.npy").write_bytes(npy_header((8, side, side), "<f4"))
    data = choose(str(tmp_path), latents="repa")
    assert isinstance(data, RepaLatents)
    assert data.shape == (4, 4, 4)
    for index in range(2):
        with pytest.raises(BadImage, match="corrupt: no whole array of NumPy's"):
            data.decode(data.records("train").read(index)[0])


# --- Archives whose tables lie


def zip_that_claims(file: Path, offset: int, form: str, *values: int) -> Images:
    """A zip of one image whose entry in the central directory holds these values."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", png())
    data = bytearray(file.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + offset, *values)
    file.write_bytes(data)
    found = choose(str(file))
    assert isinstance(found, Zip)
    return found


@pytest.mark.parametrize(
    ("offset", "form", "values", "reason"),
    [
        (20, "<II", (0xFFFFFFF0, 0xFFFFFFF0), "too_large"),  # Both sizes.
        (24, "<I", (MAX_BYTES + 1,), "too_large"),  # The size when unpacked.
        (42, "<I", (0xFFFFFFF0,), "corrupt"),  # The place.
        (10, "<H", (99,), "unreadable"),  # The way of packing.
        (8, "<H", (1,), "unreadable"),  # A password.
    ],
)
def test_a_member_that_lies_is_left_out(
    tmp_path: Path, offset: int, form: str, values: tuple[int, ...], reason: str
) -> None:
    data = zip_that_claims(tmp_path / "a.zip", offset, form, *values)
    with pytest.raises(BadImage) as found:
        data.records("train").read(0)
    assert found.value.reason == reason


def test_a_zip_that_goes_away_or_has_damaged_labels_is_told(tmp_path: Path) -> None:
    file = edm2(tmp_path / "a.zip", '{"labels": [["a.png", 1], ["b.png", 0]]}')
    source = open_data(file)
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(
        InputError, match=r"a.png of .* is no image to use: unreadable: member of the zip: No such file"
    ):
        source[0]
    at = whole.index(b'{"labels"')
    file.write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    with pytest.raises(
        InputError, match=r"dataset.json in .*a.zip cannot be read \(corrupt: .*checksum\): copy the zip"
    ):
        open_data(file)


def test_a_file_larger_than_any_image_is_left_out_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # It takes no place on the disk.
    with pytest.raises(InputError, match=rf"a.png of .* is no image to use: too_large: {MAX_BYTES + 1} bytes"):
        open_data(tmp_path)[0]


# --- What is not there, empty, remote or of no kind


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.zip").touch()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"x"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    write(tmp_path / "zips", "inner/b.zip", "pets.zip", "._pets.zip")
    write(tmp_path, "one.png", "one")
    for place, message in (
        ("nowhere", "are neither a name nor a path that exists: the names are digits"),
        ("empty", "are an empty folder: name the one in which the images lie"),
        ("empty.zip", "are an empty file: copy it again"),
        ("a.tar.gz", "a.tar.gz is compressed by gzip: unpack it first"),
        ("zips", "data '.*zips' hold inner/b.zip and 1 more, but no images: name that file, or unpack it"),
        ("zips/inner", "hold b.zip, but no images: name that file, or unpack it"),
        ("one.png", f"are one image file: name the folder in which the images lie, such as {tmp_path}"),
        ("one", "are one image file"),
        ("texts", "hold no images, nor anything else that is read: KIND:PATH says why .* one of .*folder, zip, tfds"),
    ):
        with pytest.raises(InputError, match=message):
            choose(tmp_path / place)
    for kind in ("folder", "zip", "tfds", "huggingface", "webdataset", "npz", "idx", "repa-latents", "prepared"):
        with pytest.raises(InputError, match=f"data '{kind}:.*' do not exist: there is no .*nowhere"):
            choose(f"{kind}:{tmp_path / 'nowhere'}")
        with pytest.raises(InputError, match=r"the data set \w.*gs://bucket/data lies on a remote store"):
            choose(f"{kind}:gs://bucket/data")
    with pytest.raises(InputError, match="no data are named: say which"):
        choose("")
    with pytest.raises(InputError, match=r"a.tar has a member whose name has 2004 characters, nnnn.*: at most 1000"):
        open_data(webdataset(tmp_path / "a.tar", b"1", "n" * 2000))
    (tmp_path / "gz.tar").write_bytes(gzip.compress(webdataset(tmp_path / "a.tar", b"1").read_bytes()))
    with pytest.raises(InputError, match=r"gz.tar is compressed by gzip: unpack it first"):
        open_data(tmp_path / "gz.tar")


def test_settings_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(png())
    with pytest.raises(InputError, match="split 'nope' is unknown"):
        open_data(tmp_path / "a", "nope", size=8)
    with pytest.raises(InputError, match=r"data.size is 10000, but images are 1 to 9459 pixels"):
        open_data(tmp_path / "a", size=10_000)
    unchecked = inspect.unwrap(open_data)  # Users' types are not checked as those of tests are.
    odd: tuple[Any, ...] = (True, np.True_, 8.0, "8", -1)
    for size in odd:
        for place in (tmp_path / "a", "digits"):
            with pytest.raises(InputError, match=rf"data.size is '?{size}'?, but images are 1 to 9459 pixels"):
                unchecked(place, size=size)
    assert open_data(tmp_path / "a", size=np.int64(4))[0]["image"].shape == (4, 4, 3)
    no_crop: Any = "foo"
    for side in (None, 8):
        with pytest.raises(InputError, match=r"data.crop is 'foo', but must be one of center, adm"):
            unchecked(tmp_path / "a", size=side, crop=no_crop)
        with pytest.raises(InputError, match="digits is cropped already: leave crop='adm' out"):
            open_data("digits", size=side, crop="adm")
    prepare(str(tmp_path / "a"), tmp_path / "out", size=8)
    assert len(open_data(tmp_path / "out", size=np.int64(8))) == 1
    with pytest.raises(InputError, match=r"out is cropped already: leave crop='adm' out, or prepare it again so"):
        open_data(tmp_path / "out", size=8, crop="adm")


# --- TFDS


def version(tmp_path: Path, kind: str = "tfds") -> Path:
    root = tmp_path / "celebahq256"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(GOLDEN / kind / "celebahq256", root)
    return root / "1.0.0"


def test_tfds_that_is_still_being_built_is_not_read(tmp_path: Path) -> None:
    root = version(tmp_path)
    building = root.rename(root.with_name("incomplete.AB12_1.0.0"))
    for place in (building, root.parent, tmp_path):
        with pytest.raises(InputError, match=r"is still being built by TFDS"):
            open_data(place)
    for name in ("features.json", "dataset_info.json"):
        root = version(tmp_path)
        (root / name).unlink()
        with pytest.raises(InputError, match=f"lacks {name}: the data set was copied in part, or is still being built"):
            open_data(root)


@pytest.mark.parametrize(
    "info",
    [
        "[]",
        "{}",
        '{"name": "a", "splits": 5}',
        '{"name": "a", "splits": [{}]}',
        '{"name": "a", "splits": [{"name": "train", "shardLengths": ["x"]}]}',
        "[" * 100_000,
    ],
)
def test_tfds_with_a_damaged_description(tmp_path: Path, info: str) -> None:
    root = version(tmp_path)
    (root / "dataset_info.json").write_text(info)
    with pytest.raises(InputError, match=r"dataset_info.json cannot be read \(.*\): copy the data set again"):
        open_data(root)


def test_tfds_with_damaged_labels_or_no_shards(tmp_path: Path) -> None:
    root = version(tmp_path)
    (root / "label.labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"label.labels.txt cannot be read .*: copy the data set again"):
        open_data(root)
    (root / "label.labels.txt").unlink()
    label = {"classLabel": {"numClasses": "99999999999"}}
    (root / "features.json").write_text(json.dumps({"featuresDict": {"features": {"label": label}}}))
    with pytest.raises(InputError, match=rf"features.json has a label 1e\+11, {BOUND}"):
        open_data(root)
    (root / "features.json").write_text("{}")
    info = {"name": "celebahq256", "splits": [{"name": "train", "shardLengths": []}]}
    (root / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="holds no images in split 'train'"):
        open_data(root)


def test_damaged_array_records(tmp_path: Path) -> None:
    root = version(tmp_path, "tfds_array_record")
    shard = root / "celebahq256-train.array_record-00000-of-00001"
    whole = shard.read_bytes()
    for data in (whole[: len(whole) // 2], gzip.compress(whole), b""):
        shard.write_bytes(data)
        with pytest.raises(InputError, match=r"1.0.0 cannot be read \(.*\): copy the data set again"):
            open_data(root)
    shard.write_bytes(whole[:300] + bytes([whole[300] ^ 0xFF]) + whole[301:])
    source = open_data(root)
    with pytest.raises(InputError, match="is no image to use: corrupt: record: Corrupted"):
        source[0]
    assert source[1]["image"].shape == (256, 256, 3)


# --- Hugging Face


@needs_pyarrow
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dataset_dict.json", '{"splits": 5}', "dataset_dict.json is damaged"),
        ("dataset_dict.json", '{"splits": [3]}', "dataset_dict.json is damaged"),
        ("train/dataset_info.json", '{"features": 5}', "train cannot be read"),
        ("train/dataset_info.json", '{"features": {"foto": {"_type": "Image"}}}', "cannot be read .*foto"),
        ("train/state.json", "[]", "train cannot be read"),
        ("train/state.json", '{"_data_files": []}', "train cannot be read"),
        ("train/state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow cannot be read"),
    ],
)
def test_hugging_face_with_a_damaged_description(tmp_path: Path, name: str, text: str, message: str) -> None:
    root = shutil.copytree(GOLDEN / "hf_arrow", tmp_path / "arrow")
    (root / name).write_text(text)
    with pytest.raises(InputError, match=message):
        open_data(root)


@needs_pyarrow
def test_columns_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match=r"column 'label' of .* is not of type Image: choose another --data.image"):
        HuggingFace(path=str(GOLDEN / "hf_arrow"), image="label").open()
    with pytest.raises(
        InputError, match=r"column 'image' of .* is not of type ClassLabel: choose another --data.label"
    ):
        HuggingFace(path=str(GOLDEN / "hf_arrow"), label="image").open()


@needs_pyarrow
def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "hf_parquet", tmp_path / "parquet")
    file = root / "data" / "train-00001-of-00002.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"train-00001-of-00002.parquet cannot be read .*: copy it again"):
        open_data(root)
    file.write_bytes(b"PAR1" + b"\xff" * (len(whole) // 2) + whole[len(whole) // 2 + 4 :])
    source = open_data(root)
    with pytest.raises(InputError, match="cannot be read after row"):
        [source[i] for i in range(len(source))]


@needs_pyarrow
def test_parquet_images_may_come_without_a_path(tmp_path: Path) -> None:
    import pyarrow as pa  # pyrefly: ignore[missing-import]
    import pyarrow.parquet as pq  # pyrefly: ignore[missing-import]

    images = pa.array([{"bytes": png()}, {"bytes": None}], pa.struct([("bytes", pa.binary())]))
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    source = open_data(tmp_path / "a.parquet")
    assert source[0]["image"].shape == (8, 8, 3)
    with pytest.raises(InputError, match=r"row 1 of .* is no image to use: missing: no image in this row"):
        source[1]


@needs_pyarrow
def test_a_row_that_names_a_file_reads_an_image_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa  # pyrefly: ignore[missing-import]
    import pyarrow.parquet as pq  # pyrefly: ignore[missing-import]

    write(tmp_path, "a.png", "elsewhere/only.png")
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # It takes no place on the disk.
    odd = {
        "pipe.png": "unreadable: .*pipe.png is no regular file",
        "/dev/zero": "unreadable: /dev/zero is no regular file",
        ".": "unreadable: .* is no regular file",
        "large.png": f"too_large: {MAX_BYTES + 1} bytes",
        "only.png": "missing: No such file",
        "a\0.png": "missing: no path",
    }
    rows = [{"bytes": None, "path": path} for path in ("a.png", str(tmp_path / "a.png"), *odd)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "a.parquet")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for place in (tmp_path, tmp_path / "a.parquet"):
        records = HuggingFace(path=str(place)).records("train")
        assert records.read(0)[0] == records.read(1)[0] == (tmp_path / "a.png").read_bytes()
        for index, message in enumerate(odd.values(), 2):
            with pytest.raises(BadImage, match=message):
                records.read(index)
