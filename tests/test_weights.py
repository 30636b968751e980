"""Weights that a user loads."""

import inspect
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from shortcut_models import InputError, weights
from shortcut_models.config import Config

GOLDEN = Path(__file__).parent / "golden/weights"


def test_unknown_weights_and_dtypes_are_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="weights 'best' are unknown: use ema or raw"):
        inspect.unwrap(weights.load)(trained, "best")
    with pytest.raises(InputError, match="dtype 'bfloat16' is unknown: use float32, or trained"):
        weights.load(trained, dtype="bfloat16")


def test_a_run_computes_in_float32_unless_asked(tiny: Config, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = replace(tiny, model=replace(tiny.model, dtype="bfloat16", scan=False))
    monkeypatch.setattr(weights.runs, "read_config", lambda _: there)
    assert weights.load(trained).network == replace(there.model, dtype="float32")
    assert weights.load(trained, dtype="trained").network == there.model
    assert weights.load(trained).step == 8


@pytest.mark.parametrize("name", ["sit_tiny.pt", "sit_tiny_legacy.pt", "diffusers_dit"])
def test_what_is_to_be_imported_first_says_so_whatever_its_ending(tmp_path: Path, name: str) -> None:
    copy = shutil.copytree if (GOLDEN / name).is_dir() else shutil.copyfile
    copy(GOLDEN / name, tmp_path / "theirs")
    with pytest.raises(InputError, match="theirs is of another program: make a model folder of it with `shortcut imp"):
        weights.load(tmp_path / "theirs")
