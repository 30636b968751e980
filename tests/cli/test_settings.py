"""A preset with other choices and settings."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError, catalogue, cli, costs
from shortcut_models.cli import parsing, settings
from shortcut_models.config import Config
from shortcut_models.data import opening
from shortcut_models.presets import get_preset

NAMED = [name for name in catalogue.PRESETS if not get_preset(name).data.unnamed]
"""Presets that say what they train on."""


def resolve(preset: str, *words: str) -> Config:
    return settings.resolve(preset, parsing.split(list(words)), [])


def test_without_flags_it_is_the_preset() -> None:
    for name in NAMED:
        assert resolve(name) == get_preset(name)


def test_a_preset_for_anybodys_data_asks_for_them() -> None:
    assert set(catalogue.PRESETS) - set(NAMED) == {"images16", "images32", "images64", "emoji"}
    for name in set(catalogue.PRESETS) - set(NAMED):
        with pytest.raises(InputError, match=f"preset {name} trains on data of your own: say which, --data NAME_OR_"):
            resolve(name)
        assert resolve(name, "--data", "glyphs").data == opening.choose("glyphs")


def test_a_preset_is_shown_as_the_flags_that_make_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Config] = []
    monkeypatch.setattr(costs, "describe", lambda config: str(made.append(config)))
    for name in NAMED:
        assert cli.main(["presets", name]) == 0
        page, shown = capsys.readouterr().out.split("\n\nIts settings:\n\n")
        assert page.startswith(f"{name}: ")
        flags = shlex.split(shown)
        for other in NAMED:
            # Upon another preset every flag has to do its part.
            assert cli.main(["train", other, *flags, "--dry-run"]) == 0
            assert made.pop() == get_preset(name).finished()
            capsys.readouterr()


def test_choices_and_settings_may_stand_in_any_order() -> None:
    words = ["--objective.share", "0.5", "--objective", "shortcut-original", "--data=glyphs", "--model.depth", "1"]
    found = resolve("digits", *words)
    turned = resolve("digits", *words[4:], *words[:4])
    assert found == turned
    assert catalogue.kind_of(catalogue.DATA, found.data) == "glyphs"
    assert found.model.shape == found.data.shape
    assert found.model.num_classes == found.data.num_classes
    original = catalogue.find("objective", catalogue.OBJECTIVES, "shortcut-original")
    assert parsing.settings(found.objective)["share"].value == 0.5
    assert parsing.settings(found.objective)["flow_weight"] == parsing.settings(original)["flow_weight"]
    assert parsing.settings(found.model)["depth"].value == 1


def test_the_datas_older_flag_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("digits", "--dataset_name", "glyphs") == resolve("digits", "--data", "glyphs")
    asked = []
    monkeypatch.setattr(opening, "choose", lambda name, base, *_: asked.append(name) or base)
    resolve("digits", "--dataset-name", "some/folder")
    assert asked == ["some/folder"]


def test_where_to_start_from_is_known_before_the_objective_is_checked() -> None:
    found = resolve("digits", "--objective", "consistency-distillation", "--start-from", "./runs/flow")
    assert found.start_from == "./runs/flow"


def test_stages_follow_the_length_of_the_training_wherever_it_stands() -> None:
    lengths = ["--max-steps", "640", "--batch-size", "32"]
    for words in (["--objective", "consistency", *lengths], [*lengths, "--objective", "consistency"]):
        found = resolve("digits", *words).finished().objective
        expected = catalogue.find("objective", catalogue.OBJECTIVES, "consistency")().for_length(640 * 32)
        assert found == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model.hiden_size", "3"], r"--model.hiden-size is unknown: did you mean --model.hidden-size\?$"),
        (["--learning-rate", "3"], r"--learning-rate is unknown: did you mean --optimizer.learning-rate\?$"),
        (["--objective", "magic"], "objective 'magic' is unknown"),
        (["--model", "unet"], "model 'unet' is unknown"),
        (["--data", "nowhere"], "data 'nowhere' are neither a name nor a path"),
        (["--max-steps", "0"], "max_steps is 0, but must be at least 1"),
        (["--max-steps", "9000"], "the learning rate is 0 from step 8000 on"),
        (["--optimizer.clip-norm", "nan"], "--optimizer.clip-norm nan must be a finite number"),
        (["--model.scan", "maybe"], "--model.scan maybe must be 0, 1, true or false"),
        (["--seed", "4294967296"], "seed is 4294967296, but must lie between 0 and 4294967295"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        resolve("digits", *words)


def test_help_of_a_preset_lists_every_setting_and_follows_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "compare"):
        assert cli.main([command, "digits", "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: shortcut {command} digits ")
        for name in parsing.settings(get_preset("digits")):
            assert f"\n  {parsing.flag(name)} " in shown
    assert cli.main(["train", "--help", "digits", "--objective", "reflow"]) == 0
    shown = capsys.readouterr().out
    assert "Objective reflow: flow matching on a flow's own pairs" in shown
    assert "--objective.label-dropout" in shown
    assert "--objective.share" not in shown


def test_every_choice_can_be_set_and_shown() -> None:
    for part, (kind, names, _) in settings.CHOICES.items():
        for name in names:
            found = catalogue.find(kind, names, name)
            if part == "data" and name == "pairs":
                found = found(path=str(Path("runs/pairs")))
            chosen = found() if isinstance(found, type) else found
            for field, setting in parsing.settings(chosen).items():
                assert parsing.read(field, setting.kind, parsing.write(setting.value)) == setting.value
                assert setting.about, f"{name}.{field} has no docstring"


def test_the_network_and_the_objective_follow_the_data_s_settings(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / name)
    words = ["--data", str(tmp_path)]
    plain = resolve("images16", *words)
    assert (plain.model.shape, plain.model.num_classes, plain.objective.unconditional) == ((16, 16, 3), 2, False)
    small = resolve("images16", *words, "--data.size", "8")
    assert small.model.shape == (8, 8, 3)
    bare = resolve("images16", *words, "--data.labels", "0")
    assert (bare.model.num_classes, bare.objective.unconditional) == (1, True)
    assert resolve("images16", *words, "--data.labels", "0", "--objective", "live-reflow").objective.unconditional
    told = resolve("images16", *words, "--data.labels", "0", "--objective.label-dropout", "0.1")
    assert not told.objective.unconditional
    with pytest.raises(InputError, match="--latents edm2 says whose tool encoded latents: name them too"):
        resolve("digits", "--latents", "edm2")


def test_a_recipe_without_labels_stays_one_with_other_data_and_methods() -> None:
    found = resolve("celebahq256-b", "--data", "glyphs", "--objective", "flow-matching")
    assert (found.objective.unconditional, found.model.num_classes) == (True, 1)
