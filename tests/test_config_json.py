"""Configurations on disk: there and back, and a sentence for whatever does not belong."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shortcut_models import InputError, catalogue, choice_json
from shortcut_models.config import Config, configure
from shortcut_models.config_json import FORMAT, differences, flatten, from_json, to_json
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.presets import get_preset


@pytest.mark.parametrize("objective", catalogue.OBJECTIVES)
@pytest.mark.parametrize("preset", ["digits", "points"])
def test_a_configuration_survives_json(preset: str, objective: str) -> None:
    config = configure(get_preset(preset), objective=objective, start_from="runs/flow")
    again = from_json(json.loads(json.dumps(to_json(config))))
    assert again == config
    assert hash(again) == hash(config)  # So nothing in it became a list or a dict.


def test_every_choice_has_its_name_as_its_kind(tiny: Config) -> None:
    data = to_json(tiny)
    assert [data[name]["kind"] for name in ("data", "model", "objective")] == ["digits", "dit", "shortcut"]
    # A name that stands for settings is stored as those of its class.
    assert to_json(configure(tiny, objective="shortcut-original"))["objective"]["kind"] == "shortcut"


def test_tuples_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "find", lambda *_: Tuples)
    monkeypatch.setattr(catalogue, "kind_of", lambda *_: "digits")
    choice = Tuples(sizes=(1, (2, 3)), inner=Inner(names=("a",)))
    stored = json.loads(json.dumps(choice_json.to_json(catalogue.DATA, choice)))
    assert stored == {"kind": "digits", "sizes": [1, [2, 3]], "inner": {"names": ["a"]}}
    again = choice_json.from_json(catalogue.DATA, stored, "data")
    assert again == choice
    assert hash(again) == hash(choice)


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...]


@dataclass(frozen=True)
class Tuples:
    sizes: tuple[Any, ...]
    inner: Inner


def test_differences_are_named_with_both_values(tiny: Config) -> None:
    assert differences(tiny, tiny) == {}
    new = replace(tiny, seed=3, model=replace(tiny.model, depth=3), objective=Shortcut(share=0.5))
    assert differences(tiny, new) == {
        "seed": (0, 3),
        "model.depth": (2, 3),
        "objective.share": (Shortcut().share, 0.5),
    }
    times = replace(tiny, objective=Shortcut(times=replace(Shortcut().times, kind="grid")))
    assert differences(tiny, times) == {"objective.times.kind": ("logit-normal", "grid")}


def test_differences_cover_fields_that_only_one_objective_has(tiny: Config) -> None:
    found = differences(tiny, replace(tiny, objective=FlowMatching()))
    assert found["objective.kind"] == ("shortcut", "flow-matching")
    assert found["objective.share"] == (Shortcut().share, None)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda data: data.update(colour=1), "the fields colour are not"),
        (lambda data: data.pop("seed"), "the fields seed are not"),
        (lambda data: data["model"].pop("depth"), "the fields model.depth are not"),
        (lambda data: data["model"].update(width=1), "the fields model.width are not"),
        (lambda data: data["objective"].pop("share"), "the fields objective.share are not"),
        (lambda data: data["objective"]["times"].update(odd=1), "the fields objective.times.odd are not"),
        (lambda data: data["optimizer"].pop("beta2"), "the fields optimizer.beta2 are not"),
        (lambda data: data["objective"].update(kind="magic"), "objective.kind is 'magic', but this version knows"),
        (lambda data: data["data"].update(kind="faces"), "data.kind is 'faces', but this version knows digits"),
        (lambda data: data["model"].pop("kind"), "model.kind is None, but this version knows dit, mlp"),
        (lambda data: data.pop("objective"), "objective.kind is None"),
        (lambda data: data["model"].update(depth=0), "model.depth is 0, but must be at least 1"),
    ],
)
def test_a_field_that_does_not_belong_is_named(tiny: Config, spoil: Callable[[Any], Any], named: str) -> None:
    data = json.loads(json.dumps(to_json(tiny)))
    spoil(data)
    with pytest.raises(InputError, match=named):
        from_json(data)


def test_what_is_no_set_of_fields_is_refused() -> None:
    for odd in (None, [], "text"):
        with pytest.raises(InputError, match="its configuration is no set of fields"):
            from_json(odd)


def test_a_field_that_came_later_means_what_was_done_before(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads(json.dumps(to_json(tiny)))
    del data["model"]["remat"], data["objective"]["times"]["std"], data["keep"]
    monkeypatch.setattr(choice_json, "LATER", {"dit.remat": True, "shortcut.times.std": 2.0, "keep": 5})
    times = replace(Shortcut().times, std=2.0)
    assert from_json(data) == replace(
        tiny, keep=5, model=replace(tiny.model, remat=True), objective=Shortcut(times=times)
    )


def test_the_first_format_means_the_rules_of_its_time(tiny: Config) -> None:
    data: dict[str, Any] = json.loads(json.dumps(to_json(tiny)))
    data["dataset_name"] = data.pop("data")["kind"]
    del data["model"]["kind"], data["model"]["attention"], data["optimizer"]["decayed"]
    del data["objective"]["averaging"]
    found = from_json(data, 1)
    assert found == replace(tiny, objective=Shortcut(averaging="constant"))
    with pytest.raises(InputError, match="the fields dataset_name are not"):
        from_json({**to_json(tiny), "dataset_name": "digits"}, FORMAT)


def test_reading_does_not_change_what_was_read(tiny: Config) -> None:
    data = to_json(tiny)
    before = json.dumps(data)
    from_json(data)
    assert json.dumps(data) == before


def test_flatten_puts_parts_under_dotted_names() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("step_conditioning", "cosine", "model.step_conditioning is 'cosine', but must be one of 'log2', 'smooth'"),
        ("depth", 2.0, r"model.depth is 2\.0, but must be a whole number"),
        ("scan", 1, "model.scan is 1, but must be true or false"),
        ("time_scale", "10", "model.time_scale is '10', but must be a number"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object, told: str) -> None:
    data = to_json(get_preset("digits"))
    with pytest.raises(InputError, match=told):
        from_json({**data, "model": {**data["model"], name: value}})


def test_whole_numbers_do_for_numbers() -> None:
    data = to_json(get_preset("digits"))
    found = from_json({**data, "model": {**data["model"], "time_scale": 10}}).model
    assert found == get_preset("digits").model and type(found.time_scale) is float  # pyrefly: ignore[missing-attribute]
