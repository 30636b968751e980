"""From a name or a path to a choice of data, and its form on disk."""

import dataclasses
import json
from pathlib import Path

import pytest

from shortcut_models import InputError, catalogue
from shortcut_models.choice_json import from_json, to_json
from shortcut_models.data import Data, choose, folder, open_data, tfds
from shortcut_models.data.digits import Digits
from shortcut_models.data.glyphs import Glyphs
from shortcut_models.data.layout import looks_like_image
from shortcut_models.data.points import Points
from tests.data.source_files import write


def test_a_name_chooses_and_opens() -> None:
    assert choose("digits") == Digits()
    assert len(open_data("digits")) == 1797
    assert open_data("points", "test")[5]["label"] == 1


def test_what_is_neither_a_name_nor_a_path_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"data 'digit' are neither a name nor a path that exists: .*digits, glyphs"):
        choose("digit")


def test_a_name_that_lies_here_too_says_which_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert choose("digits") == Digits()
    write(tmp_path, "digits/figures/a.png")
    for run in ("digits/run.json", "digits/figures/run.json"):
        (tmp_path / run).touch()
        assert choose("digits") == Digits()
        (tmp_path / run).unlink()
    with pytest.raises(
        InputError, match=r"^data 'digits' are both .*: say ./digits for the path, or digits: for the data set\.$"
    ):
        choose("digits")
    assert choose("digits:") == Digits()
    assert choose("./digits") == folder.Folder(path="digits")


def test_a_way_to_read_paths_wants_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose("fashion-mnist").place.startswith("/usr/share")  # pyrefly: ignore[missing-attribute]
    for name in ("folder", "zip", "npz", "tfds", "tfds:"):
        kind = name.removesuffix(":")
        with pytest.raises(InputError, match=f"data '{name}' name only a way to read a path: .*, {kind}:PATH"):
            choose(name)
    assert choose("folder", Digits()) == folder.Folder()  # Settings may still say where they lie: --data.path.
    for name in ("folder", "tfds"):
        write(tmp_path, f"{name}/cat/1.png")
        assert choose(name) == choose(name, Digits()) == folder.Folder(path=name)


def test_settings_of_the_base_are_taken_over_where_they_fit() -> None:
    base = Points(noise=0.2)
    assert choose("points", base) == base
    assert choose("points", Points()) == Points()
    assert choose("digits", base) == Digits()


def test_what_is_right_for_some_data_alone_is_not_taken_over() -> None:
    base = dataclasses.replace(tfds.IMAGENET256, vae="found", crop="adm")
    assert choose("lsunchurch", base) == dataclasses.replace(tfds.LSUNCHURCH, vae="found", crop="adm")


def test_images_of_a_run_from_before_there_was_a_vae_are_pixels() -> None:
    for name in ("imagenet256", "folder"):
        stored = to_json(catalogue.DATA, choose(name) if name == "imagenet256" else folder.Folder(path="pictures"))
        assert stored.pop("vae") == ""
        assert getattr(from_json(catalogue.DATA, stored, "data"), "vae", None) == ""


@pytest.mark.parametrize("data", [Digits(), Glyphs(), Points(noise=0.25)])
def test_a_choice_survives_its_form_on_disk(data: Data) -> None:
    assert from_json(catalogue.DATA, json.loads(json.dumps(to_json(catalogue.DATA, data))), "data") == data


@pytest.mark.parametrize("name", ["digits", "glyphs", "points"])
def test_every_data_set_says_what_the_seam_asks_for(name: str) -> None:
    data = choose(name)
    assert catalogue.kind_of(catalogue.DATA, data) == name
    assert hash(data) == hash(choose(name))
    example = data.open()[0]
    stored = example.get("image", example.get("x"))
    assert stored.shape == data.shape
    assert 0 <= example["label"] < data.num_classes == len(data.class_names)
    assert data.metrics
    assert data.shows() is data
    assert data.identity() == choose(name).identity()
    assert not data.paired


def test_a_million_images_are_not_walked_through_to_see_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in range(30):
        (tmp_path / f"{label:02}").mkdir()
        for number in range(30):
            (tmp_path / f"{label:02}" / f"{number}.png").touch()
    seen: list[str] = []
    real = looks_like_image
    for module in (folder, tfds):
        monkeypatch.setattr(module, "looks_like_image", lambda *words: seen.append(words[0]) or real(*words))
    assert choose(str(tmp_path)) == folder.Folder(path=str(tmp_path))
    assert len(seen) < 200
