from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import answer, ask, expect_loss

from shortcut_models.objectives import consistency
from shortcut_models.objectives import consistency_distillation as distillation
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_models.sampling import renoising_jumps, uniform_jumps


def bucket_of(rest: float, levels: int) -> str:
    """The metric of a row that jumps over `rest`, to the end; the shortest jumps share one."""
    section = min(int(np.floor(np.log2(1 / rest) + 1e-9)), levels.bit_length() - 2)
    return f"error/d<=1/{2**section}" if section else "error/d<=1"


TRAINING = {
    "original": replace(consistency.ORIGINAL, total_images=700),
    "default": Consistency(total_images=700),
    "odd": Consistency(total_images=700, noise_floor=0.2, adaptive_power=0.5, adaptive_floor=0.1),
}


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("stage", [0, 3, 6])
def test_consistency_training_is_that_of_a_slow_second_derivation(name: str, stage: int) -> None:
    objective = TRAINING[name]
    found = ask(objective, images=100 * stage, seed=stage)
    d, keep = 1 / 2**stage, 1 - objective.noise_floor
    np.testing.assert_array_equal(found.t / d, np.round(found.t / d))
    np.testing.assert_allclose(found.d, 1 - found.t if objective.tell_step else 0)
    assert len(set(found.t)) > 0.3 * 2**stage
    goals = []
    for x0, x1, x, t, label in zip(found.x0, found.x1, found.x, found.t, found.label, strict=True):
        np.testing.assert_allclose(x, (1 - keep * t) * x0 + t * x1, rtol=1e-5, atol=1e-6)
        t2 = t + d
        later = (1 - keep * t2) * x0 + t2 * x1
        end = later + (1 - t2) * answer("target", later, t2, (1 - t2) * objective.tell_step, label)
        goals.append((end - x) / (1 - t))
    weighted = lambda _, error: error / (error + objective.adaptive_floor) ** objective.adaptive_power  # noqa: E731
    expect_loss(found, goals, weighted, lambda i: bucket_of(1 - found.t[i], objective.levels))
    assert (found.label == 9).any() == (objective.label_dropout > 0)


DISTILLATION = {
    "original": distillation.ORIGINAL,
    "default": ConsistencyDistillation(),
    "guided": ConsistencyDistillation(guidance=2.0, clip=0.8, levels=8, adaptive_power=0.5, noise_floor=0.2),
}


@pytest.mark.parametrize("name", DISTILLATION)
def test_consistency_distillation_is_that_of_a_slow_second_derivation(name: str) -> None:
    objective = DISTILLATION[name]
    found = ask(objective)
    d, keep, clipped = 1 / objective.levels, 1 - objective.noise_floor, 0
    np.testing.assert_array_equal(found.t / d, np.round(found.t / d))
    np.testing.assert_allclose(found.d, 1 - found.t if objective.tell_step else 0)
    goals = []
    for x0, x1, x, t, label in zip(found.x0, found.x1, found.x, found.t, found.label, strict=True):
        np.testing.assert_allclose(x, (1 - keep * t) * x0 + t * x1, rtol=1e-5, atol=1e-6)
        labelled, unlabelled = answer("teacher", x, t, 0, label), answer("teacher", x, t, 0, 9)
        later = x + d * (unlabelled + objective.guidance * (labelled - unlabelled))
        if objective.clip:
            clipped += int((np.abs(later) > objective.clip).any())
            later = np.clip(later, -objective.clip, objective.clip)
        rest = 1 - (t + d)
        end = later + rest * answer("target", later, t + d, rest * objective.tell_step, label)
        goals.append((end - x) / (1 - t))
    assert clipped > 5 or objective.clip != 0.8
    weighted = lambda _, error: error / (error + objective.adaptive_floor) ** objective.adaptive_power  # noqa: E731
    expect_loss(found, goals, weighted, lambda i: bucket_of(1 - found.t[i], objective.levels))


def test_the_originals_have_the_constants_of_their_code() -> None:
    common: dict[str, Any] = {"tell_step": False, "target_decay": 0.999, "adaptive_power": 0, "averaging": "constant"}
    common |= {"label_dropout": 0, "noise_floor": 1e-5}
    assert Consistency(**common) == consistency.ORIGINAL
    assert ConsistencyDistillation(**common, clip=4, sampler="euler") == distillation.ORIGINAL


def test_it_samples_by_jumps_to_the_end_and_new_noise_in_any_budget() -> None:
    for objective in (Consistency(), ConsistencyDistillation()):
        assert not objective.learns_velocity
        assert all(objective.supports(steps) for steps in (1, 4, 128))
        for found, expected in zip(objective.jumps(3), renoising_jumps(3), strict=True):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(consistency.ORIGINAL.jumps(3).d, 0)
    # As the original's sampler: equal steps along what the network answers, without new noise.
    for found, expected in zip(distillation.ORIGINAL.jumps(3), uniform_jumps(3)._replace(d=np.zeros(3)), strict=True):
        np.testing.assert_array_equal(found, expected)
    told = ConsistencyDistillation(sampler="euler").jumps(4)
    np.testing.assert_array_equal(told.d, 1 - told.t)
    np.testing.assert_array_equal(told.renoise, 1)


def test_distillation_needs_a_teacher_and_training_has_stages() -> None:
    assert ConsistencyDistillation().needs_teacher
    assert not Consistency().needs_teacher
    assert Consistency(total_images=70).stages.starts == (10, 20, 30, 40, 50, 60)
    assert Consistency(total_images=70).snapshots == ()
