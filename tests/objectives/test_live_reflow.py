from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import answer, ask, expect_loss

from shortcut_models.errors import InputError
from shortcut_models.objectives import Batch, Context, Times, reflow, shortcut
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.live_reflow import ORIGINAL, LiveReflow
from shortcut_models.objectives.reflow import Reflow
from shortcut_models.outputs import say_if_untrained

CASES = {
    "original": ORIGINAL,
    "original, guided": replace(ORIGINAL, guidance=4.0),
    "default": LiveReflow(),
    "odd": LiveReflow(share=0.4, sampler_steps=3, levels=8, flow_weight=2.0, adaptive_power=0.5, noise_floor=0.2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_a_slow_second_derivation(name: str) -> None:
    objective = CASES[name]
    found = ask(objective)
    keep, goals = 1 - objective.noise_floor, []
    assert (found.d == 1).sum() == round(objective.share * 64)
    assert set(found.d) == {0, 1}
    for x0, x1, x, t, d, label in zip(found.x0, found.x1, found.x, found.t, found.d, found.label, strict=True):
        end = x1
        if d == 1:  # A pair: where the Euler steps end, from the image's own noise.
            end, steps = x0, objective.sampler_steps
            for k in range(steps):
                labelled, unlabelled = (answer("target", end, k / steps, 0, c) for c in (label, 9))
                end = end + (unlabelled + objective.guidance * (labelled - unlabelled)) / steps
            assert t * objective.levels % 1 == 0
        np.testing.assert_allclose(x, (1 - keep * t) * x0 + t * end, rtol=1e-4, atol=1e-4)
        goals.append(end - (1 if d == 1 else keep) * x0)

    def weighted(i: int, error: float) -> float:
        if found.d[i] == 0:
            return objective.flow_weight * error
        return error / (error + objective.adaptive_floor) ** objective.adaptive_power

    expect_loss(found, goals, weighted, lambda i: f"error/d={found.d[i]:.0f}")


def test_the_original_has_the_constants_of_its_code() -> None:
    assert (
        LiveReflow(
            share=1 / 8,
            sampler_steps=8,
            target_decay=None,
            times=Times("grid", 128),
            adaptive_power=0,
            flow_weight=1,
            noise_floor=1e-5,
            pair_dropout=False,
            averaging="constant",
        )
        == ORIGINAL
    )


def test_pairs_and_images_are_seen_at_all_of_their_times() -> None:
    objective = LiveReflow(share=0.5, levels=8, times=Times("grid", 4))
    seen = [ask(objective, seed=seed) for seed in range(4)]
    t, d = (np.concatenate([getattr(found, name) for found in seen]) for name in "td")
    assert set(t[d == 1]) == {k / 8 for k in range(8)}
    assert set(t[d == 0]) == {0, 0.25, 0.5, 0.75}


def test_few_steps_follow_the_lines_and_many_the_velocity() -> None:
    objective = LiveReflow()
    assert [steps for steps in (1, 2, 4, 64, 128, 200) if objective.supports(steps)] == [1, 128, 200]
    np.testing.assert_array_equal(objective.jumps(4).d, 1)
    np.testing.assert_array_equal(objective.jumps(4).length, 0.25)
    np.testing.assert_array_equal(objective.jumps(128).d, 0)
    assert objective.learns_velocity


@pytest.mark.parametrize(("share", "left"), [(0.01, "0 images to learn pairs"), (0.99, "0 to learn the velocity")])
def test_a_share_that_leaves_a_part_empty_is_refused_with_the_arithmetic(share: float, left: str) -> None:
    with pytest.raises(InputError, match=f"objective.share {share} x batch_size 16 = .*{left}"):
        LiveReflow(share=share).check(16, 16)
    with pytest.raises(InputError, match=r"objective.sampler_steps is 0"):
        LiveReflow(sampler_steps=0)


@pytest.mark.parametrize("objective", [shortcut.ORIGINAL, ORIGINAL], ids=["shortcut", "live reflow"])
def test_targets_are_not_guided_by_answers_that_are_never_learnt(objective: Any) -> None:
    guided = replace(objective, guidance=1.5)
    guided.check(16, 16)
    for dropout, lacks in ((0.0, "without a label"), (1.0, "for a label")):
        with pytest.raises(InputError, match=rf"guidance is 1\.5, but with .*_dropout {dropout:g} .* answer {lacks}"):
            replace(guided, label_dropout=dropout).check(16, 16)
        replace(objective, label_dropout=dropout).check(16, 16)


@pytest.mark.parametrize("objective", [shortcut.ORIGINAL, ORIGINAL], ids=["shortcut", "live reflow"])
def test_where_jumps_keep_their_labels_guidance_is_for_the_velocity_alone(
    objective: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [objective.trains_null_label_in(steps) for steps in (1, 4, 128)] == [False, False, True]
    own = "bootstrap_dropout" if isinstance(objective, shortcut.Shortcut) else "pair_dropout"
    ours = replace(objective, **{own: True})
    assert ours.trains_null_label_in(1)
    assert not replace(ours, label_dropout=0.0).trains_null_label_in(128)
    say_if_untrained(objective, 1.0, [1])
    say_if_untrained(ours, 2.0, [1])
    assert capsys.readouterr().err == ""
    say_if_untrained(objective, 2.0, [1, 4, 128])
    assert capsys.readouterr().err.startswith("guidance 2 in 1, 4 steps: jumps of this length were learnt with their")


def test_reflow_is_flow_matching_on_the_pairs_given() -> None:
    x0, x1 = (jax.random.normal(jax.random.key(i), (8, 3)) for i in (1, 2))
    label, key = jnp.arange(8), jax.random.key(0)
    network = lambda x, t, d, label: x * (1 + t[:, None]) + d[:, None] + label[:, None].astype(float) * 0.1  # noqa: E731
    found = Reflow()(network, Batch(x1, label, x0), key, Context(null_label=9))
    expected = FlowMatching()(network, Batch(x1, label, x0), key, Context(null_label=9))
    np.testing.assert_array_equal(found.per_example, expected.per_example)
    # The noise is the one given: on the line between the two the velocity is their difference.
    still = Reflow()(lambda *_: x1 - x0, Batch(x1, label, x0), key, Context(null_label=9))
    np.testing.assert_array_equal(still.per_example, 0)
    with pytest.raises(InputError, match=r"reflow learns pairs .* but this batch has no noise"):
        Reflow()(network, Batch(x1, label), key, Context(null_label=9))
    assert all(Reflow().supports(steps) for steps in (1, 4, 128))
    assert [steps for steps in (1, 4, 31, 32, 128) if FlowMatching().supports(steps)] == [32, 128]
    assert Reflow(times=Times("grid", 128), noise_floor=1e-5, averaging="constant") == reflow.ORIGINAL


def test_the_original_keeps_the_labels_of_its_pairs_and_ours_drops_them() -> None:
    for objective, drops in ((replace(ORIGINAL, label_dropout=0.5), False), (LiveReflow(label_dropout=0.5), True)):
        found = ask(objective)
        assert (found.label[found.d == 0] == 9).any()
        assert (found.label[found.d == 1] == 9).any() == drops
        assert replace(objective, label_dropout=1.0).unconditional == drops
