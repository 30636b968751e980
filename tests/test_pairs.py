"""Pairs: image i of a seed beside its noise, whichever call drew it; and what they show."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, catalogue, pairs
from shortcut_models.choice_json import from_json, to_json
from shortcut_models.data import choose, take
from shortcut_models.data.base import Data
from shortcut_models.data.digits import Digits
from shortcut_models.data.pairs import Pairs
from shortcut_models.data.points import Points


class Fake:
    """A model whose image i is its noise, plus the label, plus fresh noise of (seed, i)."""

    num_classes = 10
    calls = 0

    def noise(self, seed: int, first: int, count: int) -> np.ndarray:
        rows = [np.random.default_rng([seed, i]).normal(size=(2, 3, 1)) for i in range(first, first + count)]
        return np.stack(rows).astype(np.float32)

    def sample(
        self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int, batch_size: int
    ) -> np.ndarray:
        assert len(labels) <= batch_size == 256
        self.calls += 1
        fresh = [np.random.default_rng([seed, i, 1]).normal() for i in range(first, first + len(labels))]
        offset = labels + 1000.0 * steps + 100 * guidance + np.array(fresh)
        return (self.noise(seed, first, len(labels)) + offset[:, None, None, None]).astype(np.float32)


def make(folder: Path, count: int = 600, seed: int = 3, data: Data | None = None, **other: Any) -> Pairs:
    settings: dict[str, Any] = {"steps": 2, "guidance": 1.5, "about": {"run": "/runs/a"}} | other
    pairs.make_pairs(Fake(), folder, count=count, seed=seed, data=data or Digits(), **settings)
    return Pairs(path=str(folder))


def test_pairs_are_the_samples_of_the_noise_beside_them(tmp_path: Path) -> None:
    data = make(tmp_path / "pairs")
    source, model = data.open(), Fake()
    assert (len(source), data.shape, data.num_classes, data.paired) == (600, (2, 3, 1), 10, True)
    labels = np.arange(600) % 10
    np.testing.assert_array_equal(source.arrays["label"], labels)
    np.testing.assert_array_equal(source.arrays["noise"], model.noise(3, 0, 600))
    # The fresh noise of pair i follows from (seed, i), not from its place in a batch.
    for i in (5, 255, 256, 261, 599):
        expected = model.sample(labels[i : i + 1], 2, 1.5, 3, first=i, batch_size=256)[0]
        np.testing.assert_array_equal(source[i]["x"], expected)
    example = source[7]
    assert {name: np.asarray(value).dtype for name, value in example.items()} == {
        "x": np.float32,
        "noise": np.float32,
        "label": np.int64,
    }
    batch = take(source, np.array([599, 0]))
    np.testing.assert_array_equal(batch["noise"][0], source[599]["noise"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


def test_interrupted_pairs_go_on_and_end_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "whole")
    folder, write = tmp_path / "pairs", pairs.write_json

    def interrupted(at: int) -> Callable[[Path, dict[str, Any]], None]:
        def note(path: Path, data: dict[str, Any]) -> None:
            write(path, data)
            if data["done"] == at:
                raise KeyboardInterrupt

        return note

    # Before there are arrays, and after a part of them.
    for at, told in ((0, "holds 0 of 600 pairs"), (512, "holds 512 of 600 pairs: run the command that makes them")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pairs, "write_json", interrupted(at))
            make(folder)
        with pytest.raises(InputError, match=told):
            Pairs(path=str(folder)).open()
    make(folder)
    assert "512/600" in capsys.readouterr().err
    assert contents(folder) == contents(tmp_path / "whole")
    model = Fake()
    pairs.make_pairs(model, folder, count=600, steps=2, guidance=1.5, seed=3, data=Digits(), about={"run": "/runs/a"})
    assert model.calls == 0  # Complete: nothing is done again.


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk: writing fails, where a mapped page would end the program.
    code = f"""
import resource, signal
from pathlib import Path
from tests.test_pairs import make
make(Path({str(tmp_path / "pairs")!r}), 300)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    make(Path({str(tmp_path / "full")!r}), 300)
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "File too large")


def test_pairs_that_cannot_be_made_or_read_are_told_in_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    make(folder, 10)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"steps": 4}, "steps: 2 there, 4 now"),
        ({"seed": 4}, "seed: 3 there, 4 now"),
        ({"guidance": 1.0}, "guidance: 1.5 there, 1.0 now"),
        ({"about": {"run": "/runs/b"}}, "run: /runs/a there, /runs/b now"),
    ]
    for changed, line in changes:
        with pytest.raises(InputError, match=rf"other settings; choose another --out:\n  {line}"):
            make(folder, 10, **changed)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="exists but holds no pairs"):
        make(tmp_path / "other")
    with pytest.raises(InputError, match="count is 0"):
        make(tmp_path / "new", 0)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="holds no pairs: make them with `shortcut pairs RUN --out"):
        Pairs(path=str(tmp_path / "new")).open()
    for text, told in (
        ('{"format": 1,', "is damaged"),
        ('{"format": 3}', "has format 3, but this version reads 2"),
        ("[]", "has format None"),
    ):
        (tmp_path / "pairs.json").write_text(text)
        with pytest.raises(InputError, match=told):
            Pairs(path=str(tmp_path)).open()
    (folder / "x.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"x.npy is missing or damaged"):
        Pairs(path=str(folder)).open()


def test_pairs_show_what_their_network_learned_however_far_back_and_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = Points(noise=0.25)
    first = make(Path("first"), 10, data=shown)
    second = make(Path("second"), 10, data=Pairs(path="first"))
    assert json.loads(Path("second/pairs.json").read_text())["data"] == {"kind": "points", "noise": 0.25}
    assert first.shows() == second.shows() == shown
    assert (second.metrics, second.view, second.class_names) == (shown.metrics, "points", shown.class_names)
    # Moved or seen from elsewhere, they are the same: what they show is recorded, and their path is whole.
    kept = json.loads(json.dumps(to_json(catalogue.DATA, second)))
    assert Path(kept["path"]).is_absolute()
    Path("first").rename("gone")
    monkeypatch.chdir("/")
    assert from_json(catalogue.DATA, kept, "data").shows() == shown
    assert len(from_json(catalogue.DATA, kept, "data").open()) == 10
    assert choose(str(tmp_path / "second")) == second
    assert Pairs(path=str(tmp_path / "second")).identity() == second.identity()
    other = np.load(tmp_path / "gone" / "x.npy")
    before = Pairs(path=str(tmp_path / "gone")).identity()
    np.save(tmp_path / "gone" / "x.npy", other + np.float32(1))
    assert Pairs(path=str(tmp_path / "gone")).identity() != before
    assert make(tmp_path / "third", 10, seed=4, data=shown).identity() != before


class Refusing(Fake):
    def sample(self, *_: Any, **__: Any) -> np.ndarray:
        raise InputError("it was never trained for that")


def test_what_the_model_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="never trained for that"):
        pairs.make_pairs(
            Refusing(), tmp_path / "pairs", count=9, steps=1, guidance=2.0, seed=0, data=Digits(), about={}
        )
    assert not (tmp_path / "pairs").exists()
    make(tmp_path / "pairs", 9)


def test_pairs_of_the_first_version_are_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "pairs", 20).path
    about = json.loads(Path(folder, "pairs.json").read_text())
    del about["data"]
    Path(folder, "pairs.json").write_text(json.dumps(about | {"format": 1, "dataset": "digits"}))
    Path(folder, "x.npy").rename(Path(folder, "image.npy"))
    old = Pairs(path=folder)
    assert old.shows() == Digits()
    assert old.metrics == Digits().metrics
    np.testing.assert_array_equal(
        old.open()[3]["x"], Fake().sample(np.array([3]), 2, 1.5, 3, first=3, batch_size=256)[0]
    )
    # A run on pairs of pairs recorded the folder.
    deeper = make(tmp_path / "deeper", 5).path
    about = json.loads(Path(deeper, "pairs.json").read_text())
    del about["data"]
    Path(deeper, "pairs.json").write_text(json.dumps(about | {"format": 1, "dataset": folder}))
    assert Pairs(path=deeper).shows() == Digits()
