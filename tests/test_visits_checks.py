"""What a training refuses, or says, before it compiles: another VAE, none, and splits that do not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shortcut_models import InputError, cli, sharding, startup
from shortcut_models.cli import settings
from shortcut_models.config import Config, configure
from shortcut_models.data.digits import Digits
from shortcut_models.data.prepared import Prepared
from shortcut_models.during import During
from shortcut_models.errors import NotHereError
from shortcut_models.prepare import prepare
from shortcut_models.presets import get_preset
from shortcut_models.state import shapes_of
from shortcut_models.train import make_gradient
from shortcut_models.visitors import make_visitors
from shortcut_models.visits import Validation


class Undecodable:
    """The codec of latents, where that is to be said of their VAE."""

    def __init__(self, error: InputError) -> None:
        self.error = error

    def ready(self) -> None:
        raise self.error


@pytest.mark.parametrize("during", [During(figures_every=8), During(evaluate_every=8)])
def test_latents_of_another_vae_are_refused_at_the_start(
    during: During, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Undecodable(InputError("these latents were made by another VAE"))
    monkeypatch.setattr(Digits, "codec", property(lambda _: codec))
    with pytest.raises(InputError, match="made by another VAE"):
        make_visitors(tiny, during, tmp_path, "")


def test_figures_that_lack_a_vae_are_said_to_be_left_out(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = Undecodable(NotHereError("a VAE is needed: give its file."))
    monkeypatch.setattr(Digits, "codec", property(lambda _: codec))
    assert make_visitors(tiny, During(figures_every=8), tmp_path, "")
    assert "figures that show samples are left out: a VAE is needed: give its file." in capsys.readouterr().err
    with pytest.raises(InputError, match="a VAE is needed"):
        make_visitors(tiny, During(evaluate_every=8), tmp_path, "")


def images(folder: Path, classes: str) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (16, 16), (9 * number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


def validation(config: Config, every: int | None) -> Validation:
    return Validation(config, sharding.make_layout(shapes_of(config), "dp", ()), every, make_gradient(config))


def test_a_validation_split_of_files_is_used_by_itself_and_must_fit(tmp_path: Path) -> None:
    prepare(str(images(tmp_path / "train", "ab")), tmp_path / "out", size=16)
    config = replace(configure(get_preset("images16"), data=Prepared(path=str(tmp_path / "out"))), batch_size=8)
    assert not validation(config, None).due(1000)  # There is none yet.
    prepare(str(images(tmp_path / "val", "ab")), tmp_path / "out" / "validation", size=16)
    config = replace(config, data=Prepared(path=str(tmp_path / "out")))
    usual = validation(config, None)
    assert [step for step in range(3000) if usual.due(step)] == [1000, 2000]
    assert not validation(config, 0).due(1000)
    prepare(str(images(tmp_path / "others", "xyz")), tmp_path / "odd", size=16)
    prepare(str(tmp_path / "val"), tmp_path / "odd" / "validation", size=16)
    with pytest.raises(InputError, match="has other classes or another shape than"):
        validation(replace(config, data=Prepared(path=str(tmp_path / "odd"))), None)


def test_processes_are_joined_before_settings_ask_for_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def resolve(*_: Any) -> Any:
        done.append("settings")
        raise InputError("enough")

    monkeypatch.setattr(startup, "start_processes", lambda: done.append("processes"))
    monkeypatch.setattr(settings, "resolve", resolve)
    assert cli.main(["train", "digits"]) == 2
    assert done == ["processes", "settings"]
    assert cli.main(["train", "digits", "--dry-run"]) == 2
    assert done[2:] == ["settings"]
