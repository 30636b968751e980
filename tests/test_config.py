"""Configurations and their form on disk."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from shortcut_models import InputError
from shortcut_models.config import (
    FREE_TO_CHANGE,
    Config,
    Optimizer,
    differences,
    flatten,
    from_json,
    objective_kind,
    to_json,
    with_objective,
)
from shortcut_models.objectives import OBJECTIVES, FlowMatching, Shortcut
from shortcut_models.presets import PRESETS, get_preset


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json(preset: str, objective: str) -> None:
    config = with_objective(PRESETS[preset].config, objective, start_from="runs/flow")
    text = json.dumps(to_json(config))
    again = from_json(json.loads(text))
    assert again == config
    assert hash(again) == hash(config)  # So nothing in it became a list or a dict.


def test_the_kind_on_disk_is_the_name_on_the_command_line() -> None:
    assert to_json(Config())["objective"]["kind"] == objective_kind(Shortcut()) == "shortcut"
    assert objective_kind(FlowMatching()) == "flow-matching"


def test_differences_are_named_with_both_values() -> None:
    old = Config()
    assert differences(old, old) == {}
    new = replace(old, seed=3, model=replace(old.model, depth=2), objective=replace(old.objective, share=0.5))
    assert differences(old, new) == {
        "seed": (0, 3),
        "model.depth": (12, 2),
        "objective.share": (Shortcut().share, 0.5),
    }
    times = replace(old, objective=replace(old.objective, times=replace(Shortcut().times, kind="grid")))
    assert differences(old, times) == {"objective.times.kind": ("logit-normal", "grid")}


def test_differences_cover_fields_that_only_one_objective_has() -> None:
    found = differences(Config(objective=Shortcut()), Config(objective=FlowMatching()))
    assert found["objective.kind"] == ("shortcut", "flow-matching")
    assert found["objective.share"] == (Shortcut().share, None)


def test_what_may_change_exists_and_does_not_decide_what_is_learnt() -> None:
    names = {field.name for field in fields(Config)}
    assert names >= FREE_TO_CHANGE
    deciding = {"dataset_name", "batch_size", "seed", "ema_decay", "accumulation", "model", "objective", "optimizer"}
    deciding |= {"start_from"}
    assert names == FREE_TO_CHANGE | deciding


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda data: data.update(colour=1), "the fields colour are not"),
        (lambda data: data.pop("seed"), "the fields seed are not"),
        (lambda data: data["model"].pop("depth"), "the fields model.depth are not"),
        (lambda data: data["model"].update(width=1), "the fields model.width are not"),
        (lambda data: data["objective"].pop("share"), "the fields objective.share are not"),
        (lambda data: data["objective"]["times"].update(odd=1), "the fields objective.times.odd are not"),
        (lambda data: data["objective"].update(kind="magic"), "objective.kind is 'magic', but this version knows"),
        (lambda data: data.pop("objective"), "objective.kind is None"),
        (lambda data: data["model"].update(depth=0), "model.depth is 0, but must be at least 1"),
    ],
)
def test_a_field_that_does_not_belong_is_named(spoil: Callable[[Any], Any], named: str) -> None:
    data = json.loads(json.dumps(to_json(Config())))
    spoil(data)
    with pytest.raises(InputError, match=named):
        from_json(data)


def test_a_file_from_before_a_field_means_what_was_done_then() -> None:
    data = json.loads(json.dumps(to_json(Config())))
    del data["model"]["attention"]
    assert from_json(data) == Config()


def test_reading_does_not_change_what_was_read() -> None:
    data = to_json(Config())
    before = json.dumps(data)
    from_json(data)
    assert json.dumps(data) == before


def test_flatten_puts_parts_under_dotted_names() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"max_steps": 0}, "max_steps is 0, but must be at least 1"),
        ({"seed": -1}, "seed is -1, but must be at least 0"),
        ({"keep": 0}, "keep is 0"),
        ({"data_threads": -1}, "data_threads is -1"),
        ({"log_interval": 0}, "log_interval is 0"),
        ({"save_interval": 0}, "save_interval is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0, but must be at least 0 and below 1"),
        ({"batch_size": 10, "accumulation": 4}, "batch_size 10 is not a multiple of accumulation 4"),
        # The share is taken of what one turn holds.
        ({"batch_size": 4, "accumulation": 4}, "objective.share .* x batch_size 1 = .*rounds to 0 images"),
        (
            {"optimizer": Optimizer(schedule="cosine", decay_steps=10), "max_steps": 11},
            "max_steps is 11, but the learning rate is 0 from step 10 on",
        ),
    ],
)
def test_a_run_that_cannot_work_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Config(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": -1.0}, "optimizer.learning_rate is -1.0, but must be at least 0"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps is -1"),
        ({"clip_norm": -0.5}, "optimizer.clip_norm is -0.5"),
        ({"beta2": 1.0}, "optimizer.beta2 is 1.0, but must be at least 0 and below 1"),
        ({"schedule": "cosine", "decay_steps": 5, "warmup_steps": 5}, "the cosine must end after the warm-up's 5"),
    ],
)
def test_an_optimiser_that_cannot_work_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Optimizer(**settings)


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(
        InputError, match="preset 'cifar' is unknown: the presets are digits, glyphs, dit-b/2, dit-xl/2"
    ):
        get_preset("cifar")
