"""Folders and zips of image files: classes, splits, odd names, and what becomes of what cannot be read."""

import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError
from shortcut_models.data import choose, open_data, take
from shortcut_models.data.base import remarks
from shortcut_models.data.folder import Folder
from shortcut_models.data.images import Images, ImageSource, LeftOut
from shortcut_models.data.layout import lay_out
from shortcut_models.data.pipeline import batch_dataset, flips
from shortcut_models.data.zipped import Zip
from shortcut_models.metrics.references import exact
from tests.data.source_files import GOLDEN, png, write

TREE = GOLDEN.parent / "nasty" / "tree"
FATES = json.loads((TREE.parent / "nasty.json").read_text())["tree"]


def names(data: Images, split: str = "train") -> dict[str, int]:
    records = data.records(split)
    return {records.name(i): records.read(i)[1] for i in range(len(records))}


def zipped(root: Path, to: Path, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(to, "w", how) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return to


@pytest.mark.parametrize("form", ["folder", "stored", "deflated"])
def test_the_tree_of_odd_files_is_read_as_it_should_be(form: str, tmp_path: Path) -> None:
    how = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}
    data = choose(str(TREE) if form == "folder" else str(zipped(TREE, tmp_path / "tree.zip", how[form])))
    assert type(data) is (Folder if form == "folder" else Zip)
    assert isinstance(data, Images)
    records = data.records("train")
    # bad_only/zero.jpg is a record, which turns out empty: its class keeps its label.
    assert list(records.class_names) == FATES["classes"]
    assert names(data) == FATES["accepted"] | {"bad_only/zero.jpg": 1}
    assert records.left_out == [LeftOut("loose_at_root.png", "no_class_folder", "beside the folders of the classes")]
    assert any("'Dog' and 'dog' differ only in case" in warning for warning in records.warnings)
    source = data.open()
    assert source[0]["label"] == 0
    with pytest.raises(InputError, match=r"bad_only/zero.jpg of .* is no image to use: empty: zero bytes"):
        source[1]


def test_splits_and_classes_of_a_real_tree(tmp_path: Path) -> None:
    for data in (choose(str(GOLDEN / "imagefolder")), choose(str(zipped(GOLDEN / "imagefolder", tmp_path / "a.zip")))):
        assert isinstance(data, Images)
        assert (data.splits, data.held_out, data.class_names) == (
            ("train", "validation"),
            "validation",
            ("ant", "bee", "crow"),
        )
        assert list(names(data).values()) == [0, 0, 0, 1, 1, 2, 2]
        # The class that the validation split lacks keeps its label there.
        assert list(names(data, "validation").values()) == [1, 2]
        assert len(data.open("val")) == 2
        with pytest.raises(InputError, match=r"split 'test' is unknown: .* has train, validation"):
            data.open("test")


def test_lists_of_names_are_laid_out() -> None:
    flat = lay_out(["b.png", "a.png"])["train"]
    assert (flat.names, flat.class_names) == (["a.png", "b.png"], ())
    # `train` beside other folders is a class: trains are a thing that people have pictures of.
    assert lay_out(["train/a.png", "bus/b.png"])["train"].class_names == ("bus", "train")
    only = lay_out(["train/a.png", "train/b.png"])
    assert (list(only), only["train"].class_names) == (["train"], ())
    both = lay_out(["val/x/a.png", "train/y/b.png", "loose.png"], ["train/z"])
    assert both["train"].class_names == both["validation"].class_names == ("x", "y", "z")
    assert both["train"].labels.tolist() == [1]
    assert both["train"].left_out == [LeftOut("loose.png", "no_class_folder", "beside the splits")]
    with pytest.raises(InputError, match="folders val and valid are both called as the validation split"):
        lay_out(["val/a.png", "valid/b.png", "train/c.png"])
    numbers = lay_out([f"{i}/a.png" for i in range(11)])["train"]
    assert numbers.class_names[:3] == ("0", "1", "10")
    assert "sorted as text" in numbers.warnings[0]
    empty = lay_out(["a/1.png", "c/2.png"], ["a", "b", "c"])["train"]
    assert (empty.class_names, empty.labels.tolist()) == (("a", "b", "c"), [0, 2])
    assert empty.warnings == ["class 'b' has no images; it keeps its label"]


def test_odd_files_on_disk(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "a/1.png", "a/1.jpg", "b/2.png")
    (root / "empty").mkdir()
    (root / "a" / "link.png").symlink_to(root / "b" / "2.png")
    (root / "b" / "gone.jpg").symlink_to(root / "nowhere")
    (root / "b" / "loop").symlink_to(root)
    outside = write(tmp_path / "outside", "3.png")
    (root / "c").symlink_to(outside)
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "noextension").write_bytes(png())
    (root / "a" / "LICENSE").write_text("text")
    strange = os.fsdecode(b"\xff\n.png")
    (root / "b" / strange).write_bytes(png())
    (root / "b" / ("x" * 251 + ".png")).write_bytes(png())
    data = Folder(path=str(root))
    found = names(data)
    assert data.class_names == ("a", "b", "c", "empty")
    expected = {
        "a/1.png",
        "a/1.jpg",
        "a/link.png",
        "a/noextension",
        "b/2.png",
        f"b/{strange}",
        f"b/{'x' * 251}.png",
        "c/3.png",
    }
    assert expected <= set(found)
    # A loop is entered once, from wherever it was met first, and the scan ends.
    assert len(found) <= len(expected) + 9
    assert [bad for bad in data.records("train").left_out if bad.name == "b/gone.jpg"] == [
        LeftOut("b/gone.jpg", "missing", "a link to nothing")
    ]


def test_a_link_never_takes_the_place_of_a_class(tmp_path: Path) -> None:
    root = write(tmp_path / "real", "cat/1.png", "cat/deep/2.png", "dog/3.png")
    (root / "ape").symlink_to(root / "cat")
    (root / "dog" / "all").symlink_to(root)
    (root / "aaa").symlink_to(write(tmp_path / "outside", "4.png"))
    data = Folder(path=str(root))
    assert data.class_names == ("aaa", "cat", "dog")
    assert names(data) == {"aaa/4.png": 0, "cat/1.png": 1, "cat/deep/2.png": 1, "dog/3.png": 2}
    told = f"folders that are there under another name too are left out: 'ape' is 'cat', 'dog/all' is '{root}'"
    assert data.records("train").warnings == [told]
    assert remarks(data.open()) == [f"{root}: {told}."]
    for number in range(7):
        (root / f"b{number}").symlink_to(root / "dog")
    assert data.class_names == Folder(path=str(root)).class_names
    assert Folder(path=str(root)).records("train").warnings[0].endswith("'b2' is 'dog', 'b3' is 'dog', and 4 more")


def test_a_folder_in_which_nothing_is_to_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data are named: say where the images lie"):
        Folder().open()
    with pytest.raises(InputError, match=r"data folder .*nowhere does not exist"):
        Folder(path=str(tmp_path / "nowhere")).open()
    with pytest.raises(InputError, match="holds no images: none of its files has an image's suffix"):
        Folder(path=str(tmp_path)).open()
    with pytest.raises(InputError, match="are an empty folder: name the one in which the images lie"):
        choose(str(tmp_path))
    with pytest.raises(InputError, match=r"data.size is 0, but images are 1 to 9459 pixels"):
        Folder(path=str(tmp_path), size=0)
    with pytest.raises(InputError, match=r"holds images of any size: say to which they are resized, --data.size 64"):
        assert Folder(path=str(tmp_path)).shape


def test_images_are_as_stored_or_as_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).save(root / "a.png")
    assert open_data(str(root))[0]["label"] == 0
    np.testing.assert_array_equal(open_data(root)[0]["image"], pixels)
    assert open_data(str(root), size=4)[0]["image"].shape == (4, 4, 3)
    assert not np.array_equal(
        open_data(str(root), size=4)[0]["image"], open_data(str(root), size=4, crop="adm")[0]["image"]
    )
    data = Folder(path=str(root), size=4)
    assert (data.shape, data.num_classes, data.class_names, data.metrics) == ((4, 4, 3), 1, (), ("frechet-pixels8x8",))
    with pytest.raises(IndexError, match="index 1 is outside 0 to 0"):
        data.open()[1]


def test_flips_mirror_half_of_what_training_sees_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(root / f"{i}.png")
    plain, flipped = (Folder(path=str(root), size=4, flip=flip).open() for flip in (False, True))
    one, two = (batch_dataset(source, 32, seed=3)[2]["image"] for source in (plain, flipped))
    turned = flips(3, 2, 32)
    assert 0 < turned.sum() < 32
    np.testing.assert_array_equal(two[~turned], one[~turned])
    np.testing.assert_array_equal(two[turned], one[turned][:, :, ::-1])
    assert Folder(path=str(root)).identity() == Folder(path=str(root), flip=True).identity()
    np.testing.assert_array_equal(flipped[0]["image"], plain[0]["image"])


def test_a_run_outlives_one_bad_image_but_not_many(tmp_path: Path) -> None:
    root = write(tmp_path, *(f"{i // 100}/{i:03}.png" for i in range(200)))
    (root / "0" / "005.png").write_bytes(b"no image")
    source = Folder(path=str(root), size=8).open()
    assert isinstance(source, ImageSource)
    batch = take(source, np.array([4, 5, 199]))
    # The next takes its place, with its own label.
    assert batch["image"][:, 0, 0, 0].tolist() == [4, 6, 199]
    assert batch["label"].tolist() == [0, 0, 1]
    (root / "1" / "199.png").unlink()
    assert take(source, np.array([199]))["image"][0, 0, 0, 0] == 0
    assert {index: bad.reason for index, bad in source.bad.items()} == {5: "format", 199: "missing"}
    (root / "0" / "007.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"3 of the 200 images of .* cannot be read, at last 0/007.png \(empty: zero"):
        take(source, np.array([7]))


def test_labels_may_be_left_aside() -> None:
    data = Folder(path=str(GOLDEN / "imagefolder"), labels=False)
    assert (data.num_classes, data.class_names) == (1, ())
    source = data.open()
    assert [source[i]["label"] for i in range(7)] == [0] * 7


def test_identity_changes_with_files_and_settings(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "a/1.png", "b/2.png")
    plain = Folder(path=str(root))
    changed = (plain, replace(plain, size=4), replace(plain, crop="adm"), replace(plain, labels=False))
    found = [data.identity() for data in changed]
    found.append(Folder(path=str(root), alpha="white").identity())
    shutil.move(root / "a" / "1.png", root / "a" / "3.png")
    found.append(Folder(path=str(root)).identity())
    (root / "a" / "3.png").write_bytes(png(side=40))
    found.append(Folder(path=str(root)).identity())
    assert len(set(found)) == len(found)
    again = shutil.copytree(root, tmp_path / "copy")
    assert Folder(path=str(again)).identity() == found[-1]


# --- Zips


def test_the_zip_of_edm2() -> None:
    data = choose(str(GOLDEN / "zip" / "edm2_64.zip"))
    source = data.open()
    assert (len(source), data.num_classes) == (9, 3)
    assert [source[i]["label"] for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    images = np.stack([source[i]["image"] for i in range(9)])
    assert images.shape == (9, 64, 64, 3)
    assert images.mean() == pytest.approx(129.1161, abs=1e-4)


def test_labels_of_edm2_go_by_name(tmp_path: Path) -> None:
    def labelled(labels: object) -> Images:
        file = tmp_path / "a.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for number, name in enumerate(("00000/b.png", "00000/a.png")):
                archive.writestr(name, png(number))
            archive.writestr("dataset.json", labels if isinstance(labels, str) else json.dumps({"labels": labels}))
        data = choose(str(file))
        assert isinstance(data, Images)
        return data

    data = labelled([["00000/b.png", 4], ["00000/a.png", 2]])
    assert names(data) == {"00000/a.png": 2, "00000/b.png": 4}
    assert data.num_classes == 5
    assert labelled(None).num_classes == 1
    for labels, message in (
        ([["00000/a.png", 1]], "has no label for 00000/b.png"),
        ([["00000/a.png", 1.5], ["00000/b.png", 2]], "labels that are no whole numbers"),
        ("{", "dataset.json is damaged"),
    ):
        with pytest.raises(InputError, match=message):
            labelled(labels).open()


def test_a_folder_that_was_zipped_whole_is_no_class(tmp_path: Path) -> None:
    for inside, splits in ((("cat/1.png", "dog/1.png"), ("train",)), (("val/cat/1.png", "train/dog/1.png"), None)):
        for before in ("pets/", "./pets/", "/pets/"):
            file = tmp_path / "a.zip"
            with zipfile.ZipFile(file, "w") as archive:
                for name in inside:
                    archive.writestr(before + name, png())
            data = choose(str(file))
            assert isinstance(data, Images)
            assert (data.class_names, data.splits) == (("cat", "dog"), splits or ("train", "validation"))
            records = data.records("train")
            assert records.name(0) == f"pets/{inside[-1] if splits is None else inside[0]}"
            assert data.open()[0]["image"].shape == (8, 8, 3)
            assert records.warnings[-1] == "all lies in one folder, 'pets': it is no class, the folders in it are"
    # A class without folders is one; and so is, as for torchvision, a folder's only folder, with a word.
    assert choose(str(zipped(write(tmp_path / "one", "cat/1.png"), tmp_path / "one.zip"))).class_names == ("cat",)
    data = choose(str(write(tmp_path / "above", "pets/cat/1.png", "pets/dog/1.png")))
    assert isinstance(data, Images)
    assert data.class_names == ("pets",)
    assert data.records("train").warnings[0].endswith(f"name {tmp_path / 'above/pets'}")


def test_what_is_not_used_is_remarked(tmp_path: Path) -> None:
    root = write(tmp_path / "data", *(f"cat/{number}.png" for number in range(120)), "dog/1.png", "loose.png")
    (root / "dog/1.png").write_bytes(b"no")
    (root / "CAT").mkdir()
    source = choose(str(root)).open()
    odd, loose = remarks(source)[-2:]
    assert odd.startswith(f"{root}: 'CAT' and 'cat' differ only in case")
    assert loose.startswith(f"{root}: 1 file is not used, such as loose.png (no_class_folder, ")
    take(source, np.array([0, 120]))
    assert remarks(source)[-1].startswith(f"{root}: 1 file is not readable, such as dog/1.png (format: ")
    assert remarks(exact(choose(str(root)), source)) == remarks(source)


def test_damaged_zips(tmp_path: Path) -> None:
    file = zipped(write(tmp_path / "data", "1.png", "2.png", "3.png"), tmp_path / "a.zip")
    whole = file.read_bytes()
    place = whole.index(b"IDAT") + 6
    file.write_bytes(whole[:place] + b"???" + whole[place + 3 :])
    source = choose(str(file)).open()
    with pytest.raises(InputError, match=r"1.png of .* is no image to use: corrupt: member of the zip: checksum"):
        source[0]
    assert source[1]["image"].shape == (8, 8, 3)
    file.write_bytes(whole[:-30])
    with pytest.raises(InputError, match="are a zip without its end, so it is cut short: copy it again"):
        choose(str(file))
    with pytest.raises(InputError, match=r"cannot be read as a zip .*: it may be cut short"):
        choose(f"zip:{file}").open()
