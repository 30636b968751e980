from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import answer, ask, expect_loss

from shortcut_models.errors import InputError
from shortcut_models.objectives import Batch, Context
from shortcut_models.objectives.progressive import ORIGINAL, Progressive
from shortcut_models.sampling import dyadic_jumps, euler_jumps

CASES = {
    "original": replace(ORIGINAL, total_images=700),
    "original, guided": replace(ORIGINAL, total_images=700, guidance=1.5),
    "default": Progressive(total_images=700),
    "odd": Progressive(total_images=300, levels=8, guidance=3.0, clip=0.5, adaptive_power=0.5, noise_floor=0.2),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_loss_is_that_of_a_slow_second_derivation(name: str, stage: int) -> None:
    objective = CASES[name]
    found = ask(objective, images=100 * stage, seed=stage)
    d = 2 ** (stage + 1) / objective.levels
    told = d / 2 if stage and objective.tell_step else 0.0
    np.testing.assert_array_equal(found.d, d if objective.tell_step else 0)
    # Starts are multiples of d, and many different ones.
    np.testing.assert_array_equal(found.t / d, np.round(found.t / d))
    assert found.t.min() >= 0
    assert found.t.max() + d <= 1
    assert len(set(found.t)) > min(0.3 / d, 20)

    def taught(x: Any, t: float, label: float) -> Any:
        labelled = answer("teacher", x, t, told, label)
        if stage:
            return labelled
        unlabelled = answer("teacher", x, t, told, 9)
        return unlabelled + objective.guidance * (labelled - unlabelled)

    goals, keep, clipped = [], 1 - objective.noise_floor, 0
    for x0, x1, x, t, label in zip(found.x0, found.x1, found.x, found.t, found.label, strict=True):
        np.testing.assert_allclose(x, (1 - keep * t) * x0 + t * x1, rtol=1e-5, atol=1e-6)
        v1 = taught(x, t, label)
        between = x + d / 2 * v1
        if objective.clip:
            clipped += int((np.abs(between) > objective.clip).any())
            between = np.clip(between, -objective.clip, objective.clip)
        goals.append((v1 + taught(between, t + d / 2, label)) / 2)
    assert clipped > 5 or objective.clip != 0.5
    bucket = f"error/d=1/{round(1 / d)}" if d < 1 else "error/d=1"
    weighted = lambda _, error: error / (error + objective.adaptive_floor) ** objective.adaptive_power  # noqa: E731
    expect_loss(found, goals, weighted, lambda _: bucket)
    assert (found.label == 9).any() == (objective.label_dropout > 0)


def test_the_original_has_the_constants_of_its_code() -> None:
    assert (
        Progressive(tell_step=False, adaptive_power=0, label_dropout=0, clip=4, noise_floor=1e-5, averaging="constant")
        == ORIGINAL
    )


def test_only_one_step_is_what_it_is_made_for() -> None:
    objective = Progressive(total_images=700)
    assert [steps for steps in (1, 2, 4, 128) if objective.supports(steps)] == [1]
    for found, expected in zip(objective.jumps(4), dyadic_jumps(4), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ORIGINAL.jumps(4).d, euler_jumps(4).d)


def test_it_needs_a_teacher_which_takes_over_where_a_stage_starts() -> None:
    objective = Progressive(total_images=700)
    assert objective.needs_teacher
    assert not objective.learns_velocity
    assert objective.snapshots == (100, 200, 300, 400, 500, 600)
    x = jnp.zeros((4, 2))
    with pytest.raises(InputError, match="progressive distillation needs a teacher"):
        objective(lambda x, *_: x, Batch(x, jnp.zeros(4, int)), jax.random.key(0), Context(null_label=9))
