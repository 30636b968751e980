"""Weights that a training starts from, and those that a user loads."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from shortcut_models import InputError, sharding, weights
from shortcut_models.config import Config
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.state import init_state
from shortcut_models.train import train


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(a), jax.device_get(b))))


def test_training_starts_from_the_averaged_weights_of_another_run(tiny: Config, trained: Path) -> None:
    config = replace(tiny, start_from=str(trained), seed=5)
    expected = weights.load(trained, "ema").params
    placed = jax.tree.map(lambda _: sharding.replicated(sharding.make_mesh()), expected)
    given = weights.to_start_from(config, placed)
    assert given is not None
    state = init_state(config, given)
    for part in (state.params, state.ema, state.target):
        assert same(part, expected)
    assert state.teacher is None
    assert not same(weights.load(trained, "raw").params, expected)
    assert weights.to_start_from(tiny, placed) is None


def test_another_way_of_computing_is_the_same_network(tiny: Config, trained: Path) -> None:
    model = replace(tiny.model, dtype="bfloat16", scan=False, remat=True, hidden_size=16)
    weights.check_start(replace(tiny, start_from=str(trained), model=model))
    # cuDNN's attention needs heads of a multiple of 8; two of 8 they are.
    weights.check_start(replace(tiny, start_from=str(trained), model=replace(model, attention="cudnn")))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"qk_norm": False}, "model.qk_norm: True there, False here"),
        ({"hidden_size": 32}, "model.hidden_size: 16 there, 32 here"),
        ({"time_scale": 1.0}, "model.time_scale: 10.0 there, 1.0 here"),
        ({"step_conditioning": "log2"}, "model.step_conditioning: smooth there, log2 here"),
        ({"attention_scale": "width"}, "model.attention_scale: root there, width here"),
    ],
)
def test_another_network_is_refused_with_the_field(
    tiny: Config, trained: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    config = replace(tiny, start_from=str(trained), model=replace(tiny.model, **changes))
    with pytest.raises(InputError, match=f"holds another network; use its settings here:\n  {told}$"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_training_cannot_start_from_is_told_in_a_sentence(tiny: Config, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run folder .*nowhere does not exist"):
        weights.check_start(replace(tiny, start_from=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"model.kind: dit there, mlp here"):
        weights.check_start(replace(tiny, start_from=str(trained), model=MLP()))
    # The shortcut objective learns the velocity, so that it can be distilled; progressive distillation does not.
    staged = replace(tiny, start_from=str(trained), objective=Progressive(total_images=128))
    weights.check_start(staged)


def test_a_method_that_distils_needs_a_run_that_learnt_the_velocity(
    tiny: Config, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(tiny, start_from="flow", objective=Progressive(total_images=128))
    monkeypatch.setattr(weights.runs, "read_config", lambda _: there)
    with pytest.raises(InputError, match="trained with progressive, which does not learn the velocity"):
        weights.check_start(replace(there, start_from=str(trained)))
    weights.check_start(replace(tiny, start_from=str(trained), objective=FlowMatching()))


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
