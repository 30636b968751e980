"""Data sets that TFDS itself prepared, against the original's own preprocessing in TensorFlow."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from shortcut_models import InputError
from shortcut_models.data import choose, open_data, take
from shortcut_models.data import tfds as tfds_module
from shortcut_models.data.tfds import Tfds
from shortcut_models.data.tfrecord import index_file, masked_crc, parse_example
from tests.data.source_files import GOLDEN

EXPECTED = dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(autouse=True)
def tfds_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden data sets."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(GOLDEN / "tfds"))


def images(name: str, split: str, size: int) -> tuple[np.ndarray, list[int]]:
    batch = take(open_data(name, split, size), np.arange(len(open_data(name, split, size))))
    return batch["image"], batch["label"].tolist()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_imagenet_is_what_the_original_sees_but_for_the_decoder(split: str) -> None:
    found, labels = images("imagenet256", split, 64)
    assert labels == EXPECTED[f"imagenet2012_{split}_label"].tolist()
    apart = np.abs(found.astype(int) - EXPECTED[f"imagenet2012_{split}_64_u8"])
    assert apart.mean(axis=(1, 2, 3)).max() <= 1.6
    assert apart.max() <= 24
    whole, _ = images("imagenet256", split, 256)
    np.testing.assert_allclose(whole.mean(axis=(1, 2)), EXPECTED[f"imagenet2012_{split}_mean_rgb_256"], atol=2)
    stored = open_data(str(GOLDEN / "tfds" / "imagenet2012"), split)
    assert [stored[i]["image"].shape[:2] for i in range(len(stored))] == [
        tuple(size) for size in EXPECTED[f"imagenet2012_{split}_source_hw"]
    ]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("root", ["tfds", "tfds_array_record"])
def test_celeba_is_the_original_to_the_bit(split: str, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(GOLDEN / root))
    data = choose("celebahq256")
    found = take(data.open(split), np.arange(len(data.open(split))))
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in found["image"]]
    assert digests == EXPECTED[f"celebahq256_{split}_256_sha256"].tolist()
    assert found["label"].tolist() == EXPECTED[f"celebahq256_{split}_label"].tolist()
    assert data.class_names == ("female", "male")
    assert not data.unnamed
    assert Tfds().unnamed
    assert hasattr(data.open(), "mirror")


@pytest.mark.parametrize("split", ["train", "test"])
def test_lsun_has_splits_with_a_dash_and_no_labels(split: str) -> None:
    data = choose("lsunchurch")
    assert (data.splits, data.num_classes, data.class_names) == (("train", "test"), 1, ())
    found, labels = images("lsunchurch", split, 64)
    assert set(labels) == {0}
    assert np.abs(found.astype(int) - EXPECTED[f"lsunc_church-{split}_64_u8"]).max() <= 1
    assert len(data.open(f"church-{split}")) == len(found)
    assert getattr(data.open(), "mirror", None) is None  # Churches are never mirrored.


def test_names_and_folders_lead_to_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = GOLDEN / "tfds" / "imagenet2012" / "5.1.0"
    for place in (version, version.parent):
        assert choose(str(place)) == Tfds(path=str(version), flip=True)
    assert choose("imagenet2012") == Tfds(path=str(version), flip=True)
    with pytest.raises(InputError, match=r"can be read in several ways: name one of tfds:.*celebahq256.*, tfds:"):
        choose(str(GOLDEN / "tfds"))
    # The builder's own name for LSUN, and the highest version by number.
    for place in ("lsun/5.9.0", "lsun/5.10.0"):
        shutil.copytree(GOLDEN / "tfds" / "lsunc" / "1.0.0", tmp_path / place)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(choose("lsunchurch").open()) == 3
    assert choose("lsun") == Tfds(path=str(tmp_path / "lsun" / "5.10.0"))
    with pytest.raises(InputError, match=r"imagenet2012 is not in .*: set TFDS_DATA_DIR"):
        choose("imagenet256").open()
    (tmp_path / "imagenet2012" / "incomplete.ABC_5.1.0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"imagenet2012 is still being built by TFDS: incomplete.ABC_5.1.0"):
        choose("imagenet256").open()
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket")
    with pytest.raises(InputError, match="TFDS_DATA_DIR gs://bucket lies on a remote store, which is not read"):
        choose("imagenet256").open()


def test_the_index_is_kept_in_the_cache_and_follows_the_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(GOLDEN / "tfds" / "celebahq256" / "1.0.0", tmp_path / "1.0.0")
    before = {file.name for file in root.iterdir()}
    first = open_data(str(root))[3]["image"]
    assert len(list(cache.iterdir())) == 1
    assert {file.name for file in root.iterdir()} == before
    walked: list[Path] = []
    monkeypatch.setattr(tfds_module, "index_file", lambda path: walked.append(path) or index_file(path))
    np.testing.assert_array_equal(open_data(str(root))[3]["image"], first)
    assert not walked
    for file in cache.iterdir():
        file.write_bytes(b"damaged")
    open_data(str(root))
    assert len(walked) == 2
    (root / "celebahq256-train.tfrecord-00000-of-00002").touch()
    open_data(str(root))
    assert len(walked) == 4
    shutil.rmtree(cache)
    cache.write_text("no folder")  # A cache that cannot be written is done without.
    np.testing.assert_array_equal(open_data(str(root))[3]["image"], first)


def test_damaged_shards_are_told_in_a_sentence(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "tfds" / "celebahq256" / "1.0.0", tmp_path / "1.0.0")
    shard = root / "celebahq256-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    for data, message in (
        (whole[:-1], "is cut short: its last record needs 1 more bytes"),
        (whole[: len(whole) // 2], "is cut short: its last record needs"),
        (whole + b"\0", "is cut short: it ends within record 3"),
        (b"\x1f\x8b" + whole[2:], "is compressed by gzip"),
        (bytes([whole[0] ^ 1]) + whole[1:], "is damaged at byte 0: record 0 has a wrong checksum"),
        (b"", "holds 0 records, but dataset_info.json says 3"),
    ):
        shard.write_bytes(data)
        with pytest.raises(InputError, match=message):
            open_data(str(root))
    shard.unlink()
    with pytest.raises(InputError, match="is missing: the data set was copied in part, or is still being built"):
        open_data(str(root))
    (root / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_info.json cannot be read"):
        open_data(str(root))


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "tfds" / "celebahq256" / "1.0.0", tmp_path / "1.0.0")
    (root / "label.labels.txt").write_text("only\n")  # As if 1 were no label, like -1 in ImageNet's test split.
    with pytest.raises(
        InputError, match=r"split 'train' of .* has no labels .*: use another split, or --data.labels 0"
    ):
        take(open_data(str(root)), np.arange(6))
    assert take(Tfds(path=str(root), labels=False).open(), np.arange(6))["label"].tolist() == [0] * 6


# --- The wire


def test_the_checksum_is_the_published_one() -> None:
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720's polynomial); the mask by hand.
    crc = 0xE3069283
    assert masked_crc(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def example(**features: bytes) -> bytes:
    entries = b"".join(field(1, field(1, name.encode()) + field(2, feature)) for name, feature in features.items())
    return field(1, entries)


def test_examples_are_parsed_whatever_way_they_are_written() -> None:
    minus_one = b"\xff" * 9 + b"\x01"
    packed, loose = field(3, field(1, minus_one)), field(3, b"\x08" + minus_one)
    for label in (packed, loose):
        found = parse_example(example(label=label, image=field(1, field(1, b"bytes"))))
        assert found == {"label": -1, "image": b"bytes"}
    assert parse_example(example(label=field(3, field(1, b"\xe7\x07")))) == {"label": 999}
    assert parse_example(example(x=field(2, field(1, struct.pack("<f", 1.5))))) == {"x": 1.5}
    # Fields of a later version are passed over: a number, eight bytes, four bytes.
    unknown = b"\x48\x05" + b"\x51" + bytes(8) + b"\x5d" + bytes(4)
    assert parse_example(unknown + example(label=packed) + unknown) == {"label": -1}
    assert parse_example(b"") == {}
    whole = example(image=field(1, field(1, b"bytes")))
    for end in range(1, len(whole)):
        with pytest.raises(ValueError, match=r"number without end|longer than its message"):
            parse_example(whole[:end])


def test_a_damaged_record_is_one_bad_image(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "tfds" / "celebahq256" / "1.0.0", tmp_path / "1.0.0")
    open_data(str(root))
    shard = root / "celebahq256-train.tfrecord-00000-of-00002"
    data = bytearray(shard.read_bytes())
    data[12:40] = bytes([0xFF]) * 28
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"tfrecord-00000-of-00002:0 of .* is no image to use: corrupt: record"):
        open_data(str(root))[0]
    assert open_data(str(root))[1]["image"].shape == (256, 256, 3)


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    root = shutil.copytree(GOLDEN / "tfds" / "lsunc" / "1.0.0", tmp_path / "1.0.0")
    info = json.loads((root / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["filepathTemplate"] = split["filepathTemplate"].replace("{FILEFORMAT}", "tfrecord")
    (root / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "riegeli"}))
    with pytest.raises(InputError, match="is in the format riegeli, but tfrecord and array_record are read"):
        open_data(str(root))
