"""Run folders of format 1: they load, sample as they did, and go on training under their own rules."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from shortcut_models import catalogue, runs
from shortcut_models.model import Model
from shortcut_models.train import train
from shortcut_models.weights import Weights, load

GOLDEN = Path(__file__).parent / "golden" / "format1"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.zip"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("format1")
    for name in NAMES:
        with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
            archive.extractall(folder / name)
    return folder


def check_samples(run: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What was sampled then had guidance whether or not the null label was trained.
    monkeypatch.setattr(Model, "check_guidance", lambda *_: None)
    kinds: tuple[Weights, Weights] = ("ema", "raw")
    with np.load(run / "expected.npz") as expected:
        for weights in kinds:
            model = load(run, weights)
            for steps in (1, 4):
                found = model.sample([0, 3], steps, guidance=1.5, seed=1)
                # To the byte on the device and with the compiler's settings that made them; here those differ.
                np.testing.assert_allclose(found, expected[f"{stage}_{weights}_{steps}"], rtol=0, atol=2e-5)


def test_there_is_one_for_each_objective_of_that_time() -> None:
    new = {"flow-matching-original", "reflow-original"}
    assert set(NAMES) == set(catalogue.OBJECTIVES) - new


@pytest.mark.parametrize("name", NAMES)
def test_it_samples_what_it_sampled_then(name: str, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = runs.read_config(unpacked / name)
    assert config.objective.averaging == "constant"
    assert catalogue.kind_of(catalogue.OBJECTIVES, config.objective) == name.removesuffix("-original")
    check_samples(unpacked / name, "half", monkeypatch)


@pytest.mark.parametrize("name", ["shortcut", "progressive", "reflow"])
def test_it_goes_on_training_as_it_would_have_then(
    name: str, unpacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(unpacked)  # Paths in these runs are relative to where they were trained.
    config = runs.read_config(Path(name))
    assert train(config, Path(name)) == 0
    assert "going on from step 7 of 14" in capsys.readouterr().err
    check_samples(Path(name), "full", monkeypatch)
    # From here on the run is one of today's, and remembers both trainings.
    data = runs.read(Path(name))
    assert data["format"] == runs.FORMAT
    assert [start["step"] for start in data["starts"]] == [0, 7]
    assert runs.read_config(Path(name)).objective == config.objective
