"""What `prepare` decides of what is left out: the share that is allowed now, and classes without an image."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from shortcut_models import InputError, cli
from shortcut_models.data import open_data
from shortcut_models.data.folder import Folder
from shortcut_models.prepare import prepare
from shortcut_models.prepare_check import check

TREE = Path(__file__).parent / "golden" / "nasty" / "tree"
BARE = "no image of 'bad_only' can be used; the class keeps its label"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images and a file that is none."""
    (tmp_path / "source").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / "source" / f"{number}.png")
    (tmp_path / "source" / "2.png").touch()
    return tmp_path / "source"


def test_the_share_that_is_allowed_now_decides_of_finished_data(source: Path, tmp_path: Path) -> None:
    words, manifest = ["prepare", str(source), str(tmp_path / "out"), "--size", "8"], tmp_path / "out" / "manifest.json"
    for flags, code in (([], 2), (["--most-left-out", "1"], 0), ([], 2), (["--part", "1/2"], 0)):
        assert cli.main([*words, *flags]) == code
        assert json.loads(manifest.read_text())["complete"] is (flags == ["--most-left-out", "1"])
    with pytest.raises(InputError, match="is not complete"):
        open_data(tmp_path / "out")
    prepare(str(source), tmp_path / "out", size=8, most_left_out=0.5)
    written = manifest.stat().st_mtime_ns
    prepare(str(source), tmp_path / "out", size=8, most_left_out=0.4)
    assert len(open_data(tmp_path / "out")) == 2
    assert manifest.stat().st_mtime_ns == written  # The decision is the same: nothing is written.


def test_a_class_of_which_no_image_can_be_used_keeps_its_label_and_is_named(tmp_path: Path) -> None:
    shutil.copytree(TREE, tmp_path / "tree")
    (tmp_path / "tree" / "empty").mkdir()
    manifest = prepare(str(tmp_path / "tree"), tmp_path / "out", size=8, most_left_out=0.5)
    found = check(str(tmp_path / "tree"))
    for warnings in (manifest["warnings"], found["warnings"]):
        assert [warning for warning in warnings if "'bad_only'" in warning] == [BARE]
        assert [warning for warning in warnings if "'empty'" in warning] == [
            "class 'empty' has no images; it keeps its label"
        ]
    assert manifest["class_names"].index("bad_only") == 1
    assert (manifest["class_counts"], manifest["num_classes"]) == ([1, 0, 1, 2, 0, 1], 6)
    unlabelled = Folder(path=str(tmp_path / "tree"), labels=False)
    assert not any("bad_only" in warning for warning in check(unlabelled)["warnings"])


def test_both_commands_say_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["--check", str(TREE)], [str(TREE), str(tmp_path / "out"), "--size", "8", "--most-left-out", "1"]):
        assert cli.main(["prepare", *words]) == 0
        assert BARE in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "fields",
    [{"count": "x"}, {"count": -1}, {"left_out": 5}, {"left_out": [{}]}, {"notes": {"a": "b"}}, {"class_counts": [1]}],
)
def test_a_damaged_note_of_a_shard_is_named(source: Path, tmp_path: Path, fields: dict[str, object]) -> None:
    prepare(str(source), tmp_path / "out", size=8, most_left_out=1)
    note = tmp_path / "out" / "shard-00000.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | fields))
    with pytest.raises(InputError, match=r"shard-00000.json is damaged: remove it, and run the same command again"):
        prepare(str(source), tmp_path / "out", size=8, most_left_out=1)
