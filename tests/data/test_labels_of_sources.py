"""Labels, and which files are images, are never lost without a word, however a source is written."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, cli
from shortcut_models.data import choose, open_data
from shortcut_models.data.huggingface import HuggingFace
from shortcut_models.data.images import Images
from shortcut_models.data.latents import Latents
from shortcut_models.prepare import prepare
from tests.data.source_files import GOLDEN, needs_pyarrow, png, write


def zipped(to: Path, names: dict[str, bytes], system: int = 3) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in names.items():
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, data)
    return to


def write_latents(root: Path, count: int) -> list[Path]:
    """Latents of ones, in a folder as the tools of EDM2 and REPA make it."""
    files = [root / "00000" / f"img-mean-std-{number:08}.npy" for number in range(count)]
    files[0].parent.mkdir(parents=True)
    for file in files:
        np.save(file, np.ones((8, 4, 4), np.float32))
    return files


def labels(place: object, split: str = "train") -> list[int]:
    source = open_data(str(place), split)
    return [source[i]["label"] for i in range(len(source))]


def images(place: object) -> Images:
    found = choose(str(place))
    assert isinstance(found, Images)
    return found


def test_splits_beside_another_folder_are_refused_and_one_name_of_a_split_is_a_class(tmp_path: Path) -> None:
    mixed = write(tmp_path / "mixed", "train/a/1.png", "val/a/2.png", "docs/3.png")
    with pytest.raises(InputError, match=r"the folders train and val are called as splits are, but 'docs' beside them"):
        images(mixed).open()
    assert images(write(tmp_path / "vehicles", "bus/1.png", "train/2.png")).class_names == ("bus", "train")


@pytest.mark.parametrize("inner", ["00000/", ""])
def test_a_zipped_folder_keeps_the_labels_of_its_dataset_json(inner: str, tmp_path: Path) -> None:
    given = {"labels": [[f"{inner}a.png", 2], [f"{inner}b.png", 1]]}
    members = {f"ds/{inner}a.png": png(), f"ds/{inner}b.png": png(), "ds/dataset.json": json.dumps(given).encode()}
    data = images(zipped(tmp_path / "a.zip", members))
    assert labels(tmp_path / "a.zip") == [2, 1]
    assert "whose dataset.json has the labels" in data.records("train").warnings[0]


@pytest.mark.parametrize("text", ['{"name": "pets"}', "[]"])
def test_a_dataset_json_of_another_tool_takes_no_classes_away(text: str, tmp_path: Path) -> None:
    told = 'dataset.json holds no "labels" and is not used'
    root = write(tmp_path / "pets", "cat/1.png", "dog/2.png")
    (root / "dataset.json").write_text(text)
    members = {name: (root / name).read_bytes() for name in ("cat/1.png", "dog/2.png", "dataset.json")}
    flat = zipped(tmp_path / "flat.zip", members)
    inside = zipped(tmp_path / "inside.zip", {f"pets/{name}": data for name, data in members.items()})
    for place in (root, flat, inside):
        assert (images(place).class_names, labels(place)) == (("cat", "dog"), [0, 1])
        assert told in images(place).records("train").warnings
    above = {**{f"pets/{name}": members[name] for name in ("cat/1.png", "dog/2.png")}, "dataset.json": text.encode()}
    warnings = images(zipped(tmp_path / "above.zip", above)).records("train").warnings
    assert warnings == [told, "all lies in one folder, 'pets': it is no class, the folders in it are"]
    write_latents(tmp_path / "latents", 1)
    (tmp_path / "latents" / "dataset.json").write_text(text)
    latents = choose(str(tmp_path / "latents"), latents="repa")
    assert isinstance(latents, Latents)
    assert (latents.class_names, latents.records("train").warnings) == ((), [told])


def test_what_a_dataset_json_names_and_is_not_there_is_left_out(tmp_path: Path) -> None:
    root = write(tmp_path / "half", "a.png", "b.png")
    (root / "dataset.json").write_text(json.dumps({"labels": [["a.png", 0], ["b.png", 1], ["c.png", 1]]}))
    left = images(root).records("train").left_out
    assert [(bad.name, bad.reason) for bad in left] == [("c.png", "missing")]
    with pytest.raises(InputError, match="1 of 3 images are left out"):
        prepare(str(root), tmp_path / "out", size=8)


def test_a_zip_holds_what_the_folder_does(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "a/1.png", "a/2", "b/3")
    (root / "b" / "README").write_text("no image")
    members = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    for number, backslashes in enumerate((False, True)):
        named = {name.replace("/", "\\") if backslashes else name: data for name, data in members.items()}
        found = zipped(tmp_path / f"{number}.zip", named, system=0 if backslashes else 3)
        assert (images(found).class_names, labels(found)) == (("a", "b"), labels(root)) == (("a", "b"), [0, 0, 1])


@needs_pyarrow
@pytest.mark.parametrize("about", [None, {"label": {"_type": "Value", "dtype": "int64"}}])
def test_whole_numbers_in_a_column_called_label_are_labels(about: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def written(numbers: list[int | None]) -> Path:
        table = pa.table({"image": [{"bytes": png(), "path": None}] * len(numbers), "label": numbers})
        if about:
            features = {"image": {"_type": "Image"}} | about
            kept = {"huggingface": json.dumps({"info": {"features": features}})}
            table = table.replace_schema_metadata(kept)
        pq.write_table(table, tmp_path / "train.parquet")
        return tmp_path / "train.parquet"

    file = written([0, 2, 1, 2])
    assert (images(file).class_names, labels(file)) == (("0", "1", "2"), [0, 2, 1, 2])
    assert labels(written([0, 0])) == [0, 0]
    with pytest.raises(InputError, match=r"column 'label' of .* has a label -1"):
        images(written([0, -1])).open()
    with pytest.raises(InputError, match=r"row 1 has label None: use another split, or --data.labels 0"):
        labels(written([0, None]))


@needs_pyarrow
def test_settings_that_an_error_advises_are_taken_by_prepare_and_its_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = [{"bytes": png(), "path": None}] * 3
    pq.write_table(pa.table({"x": picture, "y": picture, "label": [0, 1, None]}), tmp_path / "train.parquet")
    command = ["prepare", str(tmp_path / "train.parquet"), str(tmp_path / "out"), "--size", "8"]
    assert cli.main(command) == 2
    assert "name one by --data.image" in capsys.readouterr().err
    assert cli.main([*command, "--data.image", "x"]) == 2
    assert "--data.labels 0" in capsys.readouterr().err
    # What was refused before anything was done stands in nobody's way.
    assert cli.main([*command, "--data.image=x", "--data.labels", "0"]) == 0
    assert cli.main(["prepare", "--check", command[1], "--data.image", "y", "--data.labels", "0"]) == 0
    assert "3 usable images" in capsys.readouterr().out
    write(tmp_path / "photos", "a/1.png")
    assert cli.main(["prepare", "--check", str(tmp_path / "photos"), "--data.image", "y"]) == 2
    assert "--data.image does not fit" in capsys.readouterr().err


@needs_pyarrow
def test_what_datasets_computes_beside_a_split_makes_no_other_data_and_a_missing_split_is_named(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "hf_arrow", tmp_path / "arrow")
    before = images(tmp_path / "arrow").identity()
    split = next(file.parent for file in (tmp_path / "arrow").rglob("state.json"))
    (split / "cache-1a2b3c.arrow").write_bytes(b"computed")
    data = images(tmp_path / "arrow")
    assert isinstance(data, HuggingFace) and data.identity() == before
    shutil.rmtree(tmp_path / "arrow" / data.splits[-1])
    with pytest.raises(InputError, match=rf"{data.splits[-1]} cannot be read .*: save the data set again"):
        prepare(str(tmp_path / "arrow"), tmp_path / "out", size=8)


def test_classes_that_came_or_went_are_no_way_to_go_on(tmp_path: Path) -> None:
    root = write(tmp_path / "data", *(f"a/{number}.png" for number in range(3)))
    (root / "empty").mkdir()
    before = prepare(str(root), tmp_path / "out", size=8)
    (root / "empty").rename(root / "other")
    with pytest.raises(
        InputError, match=r"other settings; choose .*:\n  classes: 'empty' there alone, 'other' now alone"
    ):
        prepare(str(root), tmp_path / "out", size=8)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == json.loads(json.dumps(before))


def test_nothing_is_written_into_data_that_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GOLDEN / "tfds" / "celebahq256", tmp_path / "celebahq256")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    version = next((tmp_path / "celebahq256").iterdir())
    with pytest.raises(InputError, match="which is only read: choose an OUT elsewhere"):
        prepare("celebahq256", version / "out", size=8)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link is a link to nothing: choose another OUT"):
        prepare("celebahq256", tmp_path / "link", size=8)


def test_a_name_that_no_file_can_have_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="name too long"):
        open_data("x" * 5000)


def test_a_damaged_first_latent_is_left_out(tmp_path: Path) -> None:
    files = write_latents(tmp_path / "latents", 3)
    files[0].write_bytes(files[0].read_bytes()[:-4])
    found = choose(str(tmp_path / "latents"), latents="repa")
    assert found.shape == (4, 4, 4)
    manifest = prepare(found, tmp_path / "out", size=32, most_left_out=0.5)  # pyrefly: ignore[bad-argument-type]
    assert [bad["name"] for bad in manifest["left_out"]] == ["00000/img-mean-std-00000000.npy"]


def test_latents_that_were_encoded_again_are_other_data(tmp_path: Path) -> None:
    files = write_latents(tmp_path / "latents", 70)
    (tmp_path / "latents" / "dataset.json").write_text('{"labels": null }')

    def identity() -> str:
        return choose(str(tmp_path / "latents"), latents="repa").identity()

    found = [identity()]
    np.save(files[0], np.zeros((8, 4, 4), np.float32))
    found.append(identity())
    (tmp_path / "latents" / "dataset.json").write_text('{ "labels": null}')
    found.append(identity())
    for file in files[1:]:
        np.save(file, np.zeros((8, 4, 4), np.float32))
    found.append(identity())
    assert len(set(found)) == 4
    files[0].unlink()
    assert identity() not in found
