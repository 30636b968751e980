"""Configurations: what is refused, how one is chosen, and what follows the length of the training."""

import math
from copy import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from shortcut_models import InputError, catalogue
from shortcut_models.config import FREE_TO_CHANGE, Config, choose, configure
from shortcut_models.data.points import Points
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives import Times
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.live_reflow import LiveReflow
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut
from shortcut_models.optimizer import Optimizer
from shortcut_models.presets import get_preset
from tests.codecs.vaes import write_small

SHARED = (FlowMatching, Shortcut, LiveReflow, Progressive, Consistency, ConsistencyDistillation)


def test_what_may_change_exists_and_does_not_decide_what_is_learnt() -> None:
    names = {field.name for field in fields(Config)}
    deciding = {"data", "batch_size", "seed", "ema_decay", "accumulation", "model", "objective", "optimizer"}
    deciding |= {"start_from", "start_as", "start_optimizer"}
    assert not deciding & FREE_TO_CHANGE
    assert names == FREE_TO_CHANGE | deciding


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"max_steps": 0}, "max_steps is 0, but must be at least 1"),
        ({"accumulation": 0}, "accumulation is 0, but must be at least 1"),
        ({"seed": -1}, "seed is -1, but must be at least 0"),
        ({"seed": 2**32}, "seed is 4294967296, but must lie between 0 and 4294967295"),
        ({"keep": 0}, "keep is 0"),
        ({"data_threads": -1}, "data_threads is -1"),
        ({"log_interval": 0}, "log_interval is 0"),
        ({"save_interval": 0}, "save_interval is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0, but must be at least 0 and below 1"),
        ({"ema_decay": math.nan}, "ema_decay is nan, but must be a finite number"),
        ({"batch_size": 10, "accumulation": 4}, "batch_size 10 is not a multiple of accumulation 4"),
        # The share is taken of what one turn holds.
        ({"batch_size": 4, "accumulation": 4}, "objective.share .* x batch_size 1 = .*rounds to 0 images"),
        (
            {"optimizer": Optimizer(schedule="cosine", decay_steps=10), "max_steps": 11},
            "max_steps is 11, but the learning rate is 0 from step 10 on",
        ),
        ({"objective": Progressive()}, "objective progressive distils a trained flow: .* with --start-from"),
    ],
)
def test_a_run_that_cannot_work_is_refused(tiny: Config, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(tiny, **settings)


@pytest.mark.parametrize(
    ("part", "field", "value", "sentence"),
    [
        ("", "seed", 1.5, "^seed is 1.5, but must be a whole number"),
        ("", "max_steps", 8.0, "^max_steps is 8.0, but must be a whole number"),
        ("", "objective", "shortcut", "^objective is 'shortcut', but must be of class Objective"),
        ("", "model", None, "^model is None, but must be of class Network"),
        ("objective", "times", "uniform", "^objective.times is 'uniform', but must be of class Times"),
        ("", "batch_size", True, "^batch_size is True, but must be a whole number"),
        ("model", "depth", 2.0, "^model.depth is 2.0, but must be a whole number"),
        ("objective", "levels", "16", "^objective.levels is '16', but must be a whole number"),
        ("optimizer", "warmup_steps", 2.5, "^optimizer.warmup_steps is 2.5, but must be a whole number"),
    ],
)
def test_numbers_that_are_to_be_whole_are(tiny: Config, part: str, field: str, value: Any, sentence: str) -> None:
    made = copy(getattr(tiny, part) if part else tiny)
    # As users make it, without the tests' own check of types.
    object.__setattr__(made, field, value)
    with pytest.raises(InputError, match=sentence):
        made.__post_init__()


def test_the_largest_seed_is_taken(tiny: Config) -> None:
    assert replace(tiny, seed=2**32 - 1).seed == 2**32 - 1


@pytest.mark.parametrize("objective", SHARED)
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"adaptive_floor": 0.0}, "objective.adaptive_floor is 0.0, but must be above 0"),
        ({"adaptive_floor": -0.1}, "objective.adaptive_floor is -0.1"),
        ({"adaptive_power": -1.0}, "objective.adaptive_power is -1.0, but must be at least 0"),
        ({"adaptive_power": math.inf}, "objective.adaptive_power is inf, but must be a finite number"),
        ({"noise_floor": -1e-5}, "objective.noise_floor is -1e-05, but must be at least 0"),
        ({"noise_floor": 1.0}, "objective.noise_floor is 1.0, but must be below 1"),
        ({"label_dropout": math.nan}, "objective.label_dropout is nan, but must be a finite number"),
        ({"label_dropout": -0.5}, r"objective.label_dropout is -0.5, but must lie between 0 and 1"),
    ],
)
def test_shared_settings_that_cannot_work_are_refused_for_every_method(
    objective: Any, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        objective(**settings)


@pytest.mark.parametrize(
    ("part", "settings", "sentence"),
    [
        (Shortcut, {"clip": 0.0}, "objective.clip is 0.0, but must be above 0"),
        (Progressive, {"clip": 0.0}, "objective.clip is 0.0, but must be above 0"),
        (ConsistencyDistillation, {"clip": -4.0}, "objective.clip is -4.0, but must be above 0"),
        (Shortcut, {"flow_weight": -1.0}, "objective.flow_weight is -1.0, but must be at least 0"),
        (LiveReflow, {"flow_weight": -1.0}, "objective.flow_weight is -1.0, but must be at least 0"),
        (Shortcut, {"guidance": math.nan}, "objective.guidance is nan, but must be a finite number"),
        (Shortcut, {"target_decay": 1.0}, "objective.target_decay is 1.0, but must be at least 0 and below 1"),
        (Consistency, {"target_decay": math.nan}, "objective.target_decay is nan"),
        (Shortcut, {"levels": 100}, "objective.levels is 100, but must be a power of two"),
        (Progressive, {"total_images": -1}, "objective.total_images is -1"),
        (Times, {"mean": math.inf}, "objective.times.mean is inf, but must be a finite number"),
        (Times, {"mean": 200.0}, "objective.times.mean is 200, but beyond 12 float32 takes nearly every time"),
        (MLP, {"time_scale": math.nan}, "model.time_scale is nan, but must be a finite number"),
        (DiT, {"mlp_ratio": math.inf}, "model.mlp_ratio is inf, but must be a finite number"),
        (Points, {"noise": math.nan}, "data.noise is nan"),
        # What float32 and int32 take for another number.
        (Points, {"noise": 1e300}, r"data.noise is 1e\+300, but must be 0 or between 1.2e-38 and 3.4e\+38 in size"),
        (Shortcut, {"clip": 1e-50}, "objective.clip is 1e-50, but must be 0 or between"),
        (Shortcut, {"flow_weight": 1e39}, r"objective.flow_weight is 1e\+39"),
        (Shortcut, {"adaptive_floor": 1e-38, "adaptive_power": 0.5}, "adaptive_floor is 1e-38"),
        (Shortcut, {"adaptive_floor": 1e-20, "adaptive_power": 2}, r"make weights of up to floor\^-power"),
        (Shortcut, {"adaptive_power": 1000.0}, r"make weights of up to floor\^-power"),
        (MLP, {"time_scale": 1e39}, r"model.time_scale is 1e\+39"),
        (DiT, {"time_scale": 0.0}, "model.time_scale is 0.0, but must be above 0"),
        (Optimizer, {"learning_rate": 1e39}, r"optimizer.learning_rate is 1e\+39"),
        (Optimizer, {"learning_rate": 0.0}, "optimizer.learning_rate is 0.0, but must be above 0"),
        (Optimizer, {"warmup_steps": 2**31}, "optimizer.warmup_steps is 2147483648, but must be at most 2147483647"),
        (LiveReflow, {"levels": 2**21}, "objective.levels is 2097152, but must be a power of two from 2 to 1,048,576"),
        (Times, {"kind": "grid", "grid": 2**25}, "objective.times.grid is 33554432, but float32 tells 16777216 times"),
        # Words and types that Python would not ask about.
        (Shortcut, {"split": "rand"}, "objective.split is 'rand', but must be .*random"),
        (Shortcut, {"step_sizes": "cont"}, "objective.step_sizes is 'cont', but must be .*continuous"),
        (Shortcut, {"longer": 1}, "objective.longer is 1, but must be True or False"),
        (Shortcut, {"share": "0.5"}, "objective.share is '0.5', but must be a finite number"),
        (Shortcut, {"share": None}, "objective.share is None, but must be a finite number"),
        (Shortcut, {"clip": "4"}, "objective.clip is '4', but must be a finite number"),
        (Optimizer, {"schedule": "linear"}, "optimizer.schedule is 'linear', but must be constant or cosine"),
    ],
)
def test_settings_of_parts_that_cannot_work_are_refused(part: Any, settings: dict[str, Any], sentence: str) -> None:
    made = part()
    for name, value in settings.items():  # As users make it, without the tests' own check of types.
        object.__setattr__(made, name, value)
    with pytest.raises(InputError, match=sentence):
        made.__post_init__()


def test_more_images_than_32_bits_count_may_be_trained_on() -> None:
    assert Progressive(total_images=2**31).total_images == 2**31


def test_a_word_that_there_is_not_is_refused(tiny: Config) -> None:
    with pytest.raises(InputError, match=r"^sharding is 'x', but must be dp or fsdp"):
        object.__setattr__(made := copy(tiny), "sharding", "x")
        made.__post_init__()


def test_more_levels_than_the_network_tells_apart_are_refused(tiny: Config) -> None:
    log2 = replace(tiny.model, step_conditioning="log2")
    assert replace(tiny, model=log2, objective=Shortcut(levels=128))
    with pytest.raises(InputError, match=r"objective.levels is 256, .* at most 128 levels, or .*smooth"):
        replace(tiny, model=log2, objective=Shortcut(levels=256))
    # The last stage of these has half as many times.
    assert replace(tiny, model=log2, objective=Consistency(levels=256))
    with pytest.raises(InputError, match=r"objective.levels is 512, .* at most 256 levels"):
        replace(tiny, model=log2, objective=Consistency(levels=512))
    assert replace(tiny, objective=Shortcut(levels=256))
    # Nobody tells this network a step size, so there is nothing to tell apart.
    untold = ConsistencyDistillation(levels=256, tell_step=False)
    assert replace(tiny, model=log2, objective=untold, start_from="flow")


def test_stages_that_do_not_fit_the_training_are_refused_with_the_arithmetic(tiny: Config) -> None:
    small = replace(tiny, batch_size=2, max_steps=3, objective=FlowMatching())
    with pytest.raises(InputError, match="7 stages of at least 1 image, but max_steps x batch_size = 6: train longer"):
        replace(small, objective=Consistency())
    assert replace(small, objective=Consistency(levels=64))
    for total in (3, 129):
        with pytest.raises(InputError, match=rf"7 stages over objective.total_images {total}, but .* = 128: set"):
            replace(tiny, objective=Consistency(total_images=total))


def test_stages_follow_the_length_of_the_training_unless_they_are_set(tiny: Config) -> None:
    config = replace(tiny, objective=Consistency())
    assert config.finished().objective == Consistency(total_images=128)
    longer = replace(config, max_steps=10, batch_size=8)
    assert longer.finished().objective == Consistency(total_images=80)
    # Finishing does not change what is finished, nor what has no stages.
    assert longer.finished().finished() == longer.finished()
    own = replace(tiny, objective=Consistency(total_images=100))
    assert own.finished() == own
    assert tiny.finished() == tiny


def test_a_choice_keeps_the_settings_that_it_has(tiny: Config) -> None:
    base = replace(tiny, objective=Shortcut(share=0.5))
    assert configure(base) == base
    assert configure(base, objective="shortcut", model="dit") == base
    assert configure(base, objective="flow-matching").objective == FlowMatching()
    # A name that stands for settings brings them.
    assert configure(base, objective="shortcut-original").objective == ORIGINAL
    found = configure(base, objective="progressive", start_from="flow")
    assert (found.objective, found.start_from) == (Progressive(), "flow")


def test_the_network_takes_the_size_of_the_data(tiny: Config) -> None:
    found = configure(tiny, data=Points(), model="mlp")
    assert found.data == Points()
    assert found.model == MLP(dimensions=2, num_classes=4)
    with pytest.raises(InputError, match=r"items of shape \(2,\), but model dit takes square images"):
        configure(tiny, data=Points())


def test_an_unknown_name_is_refused_with_the_names(tiny: Config) -> None:
    with pytest.raises(InputError, match="preset 'cifar' is unknown: the names are digits, points, images16"):
        get_preset("cifar")
    with pytest.raises(InputError, match="objective 'shortcuts' is unknown: did you mean 'shortcut'"):
        configure(tiny, objective="shortcuts")
    with pytest.raises(InputError, match="model 'unet' is unknown"):
        choose("model", catalogue.NETWORKS, "unet")


@pytest.mark.parametrize("name", catalogue.PRESETS)
def test_a_preset_can_be_trained(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shortcut_models.config import check_fits

    # Stand-ins for what a recipe of the paper needs on disk.
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(__file__).parent / "golden/data/tfds"))
    monkeypatch.setenv("SHORTCUT_VAE", str(write_small(tmp_path / "vae")))
    config = get_preset(name)
    if not config.data.unnamed:
        check_fits(config)
    assert config.finished().images == config.max_steps * config.batch_size
