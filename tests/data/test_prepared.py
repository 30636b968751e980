"""Manifests of prepared data: what cannot be is refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shortcut_models import InputError
from shortcut_models.data import choose
from shortcut_models.data.prepared import Prepared
from shortcut_models.prepare import prepare


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of five classes."""
    root = tmp_path_factory.mktemp("data")
    for number in range(5):
        (root / "source" / str(number)).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / "source" / str(number) / "a.png")
    prepare(str(root / "source"), root / "out", size=8)
    return root / "out"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shards": [{}]}, "in shards"),
        ({"shards": [5]}, "in shards"),
        ({"shards": [{"count": "x"}]}, "in shards"),
        ({"shards": [{"count": -3}]}, "in shards"),
        ({"shards": [{"count": True}]}, "in shards"),
        ({"shards": []}, "count is 5, but its shards hold 0"),
        ({"shards": [], "count": 0}, "count is 0, but its shards hold 0"),
        ({"count": 4}, "count is 4, but its shards hold 5"),
        ({"settings": {}}, "size in settings is None, but must be a whole number"),
        ({"settings": {"size": "8"}}, "size in settings is 8, but"),
        ({"class_names": ["a"]}, "num_classes is 5, but class_names holds 1 names"),
        ({"class_names": [1, 2, 3, 4, 5]}, "num_classes is 5, but class_names holds no texts"),
        ({"shape": [8, 8]}, r"shape is \[8, 8\], but height, width and channels are whole numbers"),
        ({"shape": [8, 0, 3]}, r"shape is \[8, 0, 3\], but"),
        ({"vae": 3}, "in vae and scale"),
        ({"scale": "x"}, "in vae and scale"),
        ({"latents": "dall-e"}, "in latents"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(out: Path, fields: dict[str, Any], message: str) -> None:
    file = out / "manifest.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | fields))
    try:
        with pytest.raises(InputError, match=rf"manifest.json is damaged \({message}.*\): remove .*out, and prepare"):
            choose(str(out)).open()
    finally:
        file.write_text(whole)
    assert len(choose(str(out)).open()) == 5


def test_a_manifest_may_lack_what_earlier_versions_did_not_write_and_may_not_lack_the_vae(out: Path) -> None:
    file = out / "manifest.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in whole.items() if name not in ("latents", "scale")}))
    assert len(choose(str(out)).open()) == 5
    file.write_text(json.dumps({name: value for name, value in whole.items() if name != "vae"}))
    with pytest.raises(InputError, match=r"is damaged \(in vae and scale\)"):
        choose(str(out)).open()
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"manifest.json is damaged: remove"):
        choose(str(out)).open()
    file.write_text(json.dumps(whole))


def test_the_size_that_prepared_images_must_have_is_a_whole_number(out: Path) -> None:
    with pytest.raises(InputError, match=r"data.size is True, but images are 1 to 9459 pixels"):
        Prepared(path=str(out), size=True)
