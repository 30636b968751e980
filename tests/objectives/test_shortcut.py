import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.objectives import Batch, Context, Loss, Metric, Objective, Times
from shortcut_models.objectives.path import split_batch
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut
from shortcut_models.sampling import dyadic_jumps, uniform_jumps

BATCH, NULL = 64, 9
RNG = np.random.default_rng(0)
X1 = jnp.asarray(RNG.standard_normal((BATCH, 2, 3), np.float32))
LABEL = jnp.asarray(np.arange(BATCH) % NULL, jnp.int32)


def slow_velocity(scale: float, x: np.ndarray, t: float, d: float, label: int) -> np.ndarray:
    return np.sin(scale * x) + t - 2 * d * x + 0.3 * scale * label


def make_velocity(scale: Any) -> Any:
    def velocity(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
        t, d, label = (a.astype(jnp.float32).reshape(-1, *(1,) * (x.ndim - 1)) for a in (t, d, label))
        return jnp.sin(scale * x) + t - 2 * d * x + 0.3 * scale * label

    return velocity


class Inputs(NamedTuple):
    """What one call of a network was given."""

    x: Any
    t: Any
    d: Any
    label: Any


class Found(NamedTuple):
    """A loss, and the calls that were made for it."""

    loss: Loss
    calls: list[Inputs]
    targets: list[Inputs]


def record(objective: Objective, x1: jax.Array, label: jax.Array, key: jax.Array, null: int | None = NULL) -> Found:
    calls: list[Inputs] = []
    targets: list[Inputs] = []

    def recorded(kept: list[Inputs], scale: float) -> Any:
        def velocity(*inputs: jax.Array) -> jax.Array:
            kept.append(Inputs(*inputs))
            return make_velocity(scale)(*inputs)

        return velocity

    given = Context(target=recorded(targets, 1.3), null_label=null)
    loss = objective(recorded(calls, 1.0), Batch(x1, label), key, given)
    return Found(loss, calls, targets)


CASES = {
    "original": ORIGINAL,
    "default": Shortcut(),
    "continuous": Shortcut(step_sizes="continuous"),
    "random": Shortcut(step_sizes="continuous", split="random", levels=16),
    "guided": dataclasses.replace(ORIGINAL, guidance=1.5),
    # Three levels in 32 rows: more rows at the finest one than the share of one level rounded down.
    "guided, coarse": dataclasses.replace(ORIGINAL, guidance=3.0, levels=8, share=0.5),
    "clipped": Shortcut(clip=0.7),
    "weighted flow": Shortcut(adaptive_flow=True, flow_weight=3.0),
    "overlap": dataclasses.replace(ORIGINAL, overlap=True),
    "overlap, odd": Shortcut(overlap=True, share=0.6, bootstrap_dropout=False, label_dropout=0.0),
    "odd": Shortcut(
        share=0.4, levels=4, adaptive_power=0.5, adaptive_floor=0.1, noise_floor=0.2, label_dropout=0.5,
        bootstrap_dropout=False, times=Times("uniform"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("objective", CASES.values(), ids=CASES.keys())
def test_the_loss_is_that_of_a_slow_second_derivation(objective: Shortcut) -> None:
    run = jax.jit(lambda x1, key: record(objective, x1, LABEL, key))
    found = jax.tree.map(np.asarray, run(X1, jax.random.key(3)))
    # With all data at zero, the same draws show the noise by itself.
    bare = jax.tree.map(np.asarray, run(jnp.zeros_like(X1), jax.random.key(3)).calls[0])
    assert len(found.calls) == 1
    assert len(found.targets) == 2
    x, t, d, label = found.calls[0]
    np.testing.assert_array_equal(t, bare.t)
    np.testing.assert_array_equal(d, bare.d)
    jumping = np.flatnonzero(d > 0)
    assert len(jumping) == round(objective.share * BATCH)

    keep, clipped, errors = 1 - objective.noise_floor, 0, np.zeros(BATCH)
    noise = bare.x / (1 - keep * t[:, None, None])
    for i, (image, jumps) in enumerate(slow_rows(objective)):
        assert (d[i] > 0) == jumps
        assert label[i] == LABEL[image] or (label[i] == NULL and objective.label_dropout > 0)
        x0, x1 = noise[i], np.asarray(X1[image])
        np.testing.assert_allclose(x[i], (1 - keep * t[i]) * x0 + t[i] * x1, rtol=1e-4, atol=1e-5)
        target = x1 - keep * x0
        if d[i] > 0:
            row = int(np.flatnonzero(jumping == i)[0])
            given = [Inputs(*(a[row] for a in call)) for call in found.targets]
            target, bounded = slow_target(objective, given, x[i], float(t[i]), float(d[i]), int(label[i]))
            clipped += bounded
        errors[i] = np.mean((slow_velocity(1.0, x[i], t[i], d[i], label[i]) - target) ** 2)
    assert clipped > 5 or objective.clip != 0.7
    weight = (errors + objective.adaptive_floor) ** -objective.adaptive_power
    weight[d == 0] = objective.flow_weight * (weight[d == 0] if objective.adaptive_flow else 1)
    np.testing.assert_allclose(found.loss.per_example, weight * errors, rtol=2e-4)
    assert_buckets(objective, found.loss.metrics, errors, d)
    assert abs(noise.mean()) < 5 / math.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * math.sqrt(2 / noise.size)


def slow_rows(objective: Shortcut) -> list[tuple[int, bool]]:
    """Which image is in each row of the network's batch, and whether it learns a jump there."""
    count = round(objective.share * BATCH)
    if not objective.overlap:  # Every image of the batch is used, once, in its own row.
        held = {int(i) for i in split_batch(jnp.arange(BATCH), count)[0]}
        return [(i, i in held) for i in range(BATCH)]
    groups, found = math.gcd(count, BATCH), []
    for group in range(groups):
        images = [group * (BATCH // groups) + i for i in range(BATCH // groups)]
        jumping = count // groups
        # The original, in the batch as a whole: images[:jumping] learn jumps, images[: size - jumping] the velocity.
        found += [(i, True) for i in images[:jumping]]
        found += [(i, False) for i in images[: len(images) - jumping]]
    return found


def test_with_overlap_the_first_images_learn_both_and_as_many_are_left_out() -> None:
    """By hand, for the official code's default share: eight images, one of which learns a jump."""
    objective = dataclasses.replace(ORIGINAL, overlap=True, label_dropout=0.0)
    calls: list[Inputs] = []

    def velocity(*inputs: jax.Array) -> jax.Array:
        calls.append(Inputs(*inputs))
        return jnp.zeros_like(inputs[0])

    x1, label = jnp.arange(1.0, 9.0)[:, None], jnp.arange(8)
    objective(velocity, Batch(x1, label, 10 * x1), jax.random.key(0), Context(null_label=NULL))
    found = Inputs(*(np.asarray(a) for a in calls[-1]))  # The others are for the target.
    np.testing.assert_array_equal(found.label, [0, 0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(found.d > 0, [True] + [False] * 7)
    # Noise that belongs to an image goes with it.
    floor = (1 - 1e-5) * found.t[:, None]
    image = found.label[:, None] + 1.0
    np.testing.assert_allclose(found.x, (1 - floor) * 10 * image + found.t[:, None] * image, rtol=1e-6)


def slow_target(
    objective: Shortcut, given: list[Inputs], x: np.ndarray, t: float, d: float, label: int
) -> tuple[np.ndarray, bool]:
    """Two jumps with the target network in place of one; also whether a bound was hit."""
    bound = objective.clip or math.inf

    def jump(x: np.ndarray, t: float, length: float) -> np.ndarray:
        told = length
        if objective.step_sizes == "dyadic" and length <= 1 / objective.levels:
            told = 0.0
        v = slow_velocity(1.3, x, t, told, label)
        if objective.guidance != 1 and told == 0:
            unlabelled = slow_velocity(1.3, x, t, told, NULL)
            v = unlabelled + objective.guidance * (v - unlabelled)
        return v

    first = float(given[0].d) if objective.split == "random" else d / 2
    assert 0 < first < d
    v1 = jump(x, t, first)
    free = x + first * v1
    between = np.clip(free, -bound, bound)
    v2 = jump(between, t + first, d - first)
    mean = (first * v1 + (d - first) * v2) / d

    np.testing.assert_allclose(given[0].x, x, rtol=1e-5)
    np.testing.assert_allclose(given[1].x, between, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([given[0].t, given[1].t], [t, t + first], rtol=1e-5)
    assert given[0].label == given[1].label == label
    return np.clip(mean, -bound, bound), bool((np.abs(free) > bound).any() or (np.abs(mean) > bound).any())


def assert_buckets(objective: Shortcut, metrics: dict[str, Metric], errors: np.ndarray, d: np.ndarray) -> None:
    """The buckets' means are those of a second sorting, and every example is in one bucket."""
    levels = round(math.log2(objective.levels))
    sign = "=" if objective.step_sizes == "dyadic" else "<="
    expected = {"error/d=0": d == 0}
    for level in range(levels):
        inside = np.array([value > 0 and math.floor(-math.log2(value)) == level if value else False for value in d])
        expected[f"error/d{sign}1/{2**level}" if level else f"error/d{sign}1"] = inside
    assert set(metrics) == set(expected)
    assert np.sum([metric.weight for metric in metrics.values()]) == BATCH
    for name, inside in expected.items():
        np.testing.assert_array_equal(metrics[name].weight, inside)
        if inside.any():
            mean = np.average(metrics[name].value, weights=metrics[name].weight)
            np.testing.assert_allclose(mean, errors[inside].mean(), rtol=2e-4)


def draw_jumps(objective: Shortcut, count: int, keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(t, d, length of the target's first jump) of the bootstrap rows, each (keys, count)."""
    x1, label = jnp.zeros((2 * count, 1)), jnp.zeros(2 * count, int)

    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        found = record(objective, x1, label, key)
        return *found.calls[0][1:3], found.targets[0].d

    t, d, first = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), keys)))
    return t[d > 0].reshape(keys, count), d[d > 0].reshape(keys, count), first


@pytest.mark.parametrize("count", [1, 3, 7, 16])
def test_every_level_is_drawn_equally_often_whatever_the_batch_size(count: int) -> None:
    keys = 4000
    t, d, _ = draw_jumps(Shortcut(share=0.5), count, keys)
    assert set(np.unique(d)) == {2.0**-level for level in range(7)}
    # Exactly on the grid of their length, and not beyond the data.
    assert (t / d % 1 == 0).all()
    assert (t + d <= 1).all()
    drawn = np.stack([(d == 2.0**-level).sum(axis=1) for level in range(7)])
    total = keys * count
    assert np.abs(drawn.sum(axis=1) - total / 7).max() < 5 * math.sqrt(total * 6 / 49)
    # Evenly in each single batch too.
    assert drawn.min() >= count // 7
    assert drawn.max() <= math.ceil(count / 7) + (count % 7 != 0) * (count > 7)
    # And at each level every start equally often.
    for level in range(4):
        starts = np.bincount((t[d == 2.0**-level] * 2**level).astype(int), minlength=2**level)
        share = starts.sum() / 2**level
        assert len(starts) == 2**level
        assert np.abs(starts - share).max() < 5 * math.sqrt(share) or level == 0


def distance_from_uniform(values: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance, in units of its size by chance; 2.2 is passed once in ten thousand."""
    ordered = np.sort(values.ravel().astype(np.float64))
    return np.abs(ordered - (np.arange(ordered.size) + 0.5) / ordered.size).max() * math.sqrt(ordered.size)


def test_continuous_jumps_have_any_length_on_a_logarithmic_scale() -> None:
    objective = Shortcut(share=0.5, step_sizes="continuous", split="random", levels=16)
    t, d, first = draw_jumps(objective, 4, 4000)
    assert d.min() >= 1 / 16
    assert d.max() <= 1
    assert (t + d <= 1 + 1e-6).all()
    # Rows share an offset; one row over many keys is independent, and so are the starts and the meetings.
    assert distance_from_uniform(np.log2(d[:, 0] * 16)) < 2.2
    for row in range(4):
        assert (np.floor(np.log2(d[:, row] * 16)) == row).mean() > 0.999
    assert distance_from_uniform(t / (1 - d)) < 2.2
    assert distance_from_uniform(first / d) < 2.2


def test_original_drops_labels_of_the_flow_part_alone() -> None:
    count = 8192
    x1, label = jnp.zeros((count, 1)), jnp.zeros(count, int)
    run = jax.jit(lambda key: [record(objective, x1, label, key).calls[0] for objective in (ORIGINAL, Shortcut())])
    original, ours = run(jax.random.key(0))
    for call, part in ((original, original.d == 0), (ours, ours.d == 0), (ours, ours.d > 0)):
        dropped = np.asarray(call.label == NULL)[np.asarray(part)]
        assert abs(dropped.mean() - 0.1) < 5 * math.sqrt(0.09 / dropped.size)
    assert not np.asarray(original.label == NULL)[np.asarray(original.d > 0)].any()


@pytest.mark.parametrize("objective", [Shortcut(), dataclasses.replace(ORIGINAL, guidance=1.5)], ids=["ours", "guided"])
def test_no_gradient_flows_through_the_target(objective: Shortcut) -> None:
    def loss(own: Any, targets: Any) -> jax.Array:
        target = None if targets is None else make_velocity(targets)
        given = Context(target=target, null_label=NULL)
        found = objective(make_velocity(own), Batch(X1, LABEL), jax.random.key(3), given)
        return jnp.sum(found.per_example)

    @jax.jit
    def run(scale: jax.Array) -> tuple[jax.Array, ...]:
        return *jax.grad(loss, argnums=(0, 1))(scale, scale), jax.grad(lambda own: loss(own, None))(scale)

    own, target, alone = run(jnp.asarray(1.1))
    assert abs(own) > 0.1
    assert target == 0
    # Targets by the weights in training are held fixed just the same.
    np.testing.assert_allclose(alone, own, rtol=1e-5)


def test_original_is_the_official_codes_recipe() -> None:
    assert dataclasses.asdict(ORIGINAL) == {
        "share": 1 / 8,
        "levels": 128,
        "step_sizes": "dyadic",
        "split": "half",
        "longer": False,
        "target_decay": 0.999,
        "times": {"kind": "grid", "grid": 128, "mean": 0.4, "std": 1.0},
        "adaptive_power": 0.0,
        "adaptive_floor": 0.01,
        "adaptive_flow": False,
        "flow_weight": 1.0,
        "label_dropout": 0.1,
        "overlap": False,
        "bootstrap_dropout": False,
        "guidance": 1.0,
        "clip": 4.0,
        "noise_floor": 1e-5,
        "averaging": "constant",
    }


def test_sampling_takes_trained_jumps() -> None:
    for objective, expected in (
        (Shortcut(levels=4), dyadic_jumps(4, 4)),
        (Shortcut(step_sizes="continuous"), uniform_jumps(4)),
    ):
        for found, wanted in zip(objective.jumps(4), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("objective", "batch", "message"),
    [
        (Shortcut(), 1, r"share 0\.25 x batch_size 1 = 0\.25, which rounds to 0 images .* at least 2 "),
        (ORIGINAL, 3, r"share 0\.125 x batch_size 3 = 0\.375, which rounds to 0 images .* at least 4 "),
        (Shortcut(share=0.0), 64, r"share 0 x batch_size 64 = 0 images that learn jumps: use a share above 0"),
        (Shortcut(share=1.0), 8, r"share 1 x batch_size 8 = 8, which leaves 0 of 8 images"),
        (Shortcut(share=0.9), 4, r"share 0\.9 x batch_size 4 = 3\.6, which leaves 0 of 4 images"),
    ],
)
def test_a_share_that_leaves_a_part_empty_is_refused_with_the_arithmetic(
    objective: Shortcut, batch: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        objective.check(batch, batch)


def test_the_batch_size_that_a_refusal_asks_for_is_the_smallest_that_works() -> None:
    refused = 0
    for share in (0.01, 0.1, 1 / 8, 0.2, 0.25, 0.3, 0.5, 0.6):
        for batch in range(1, 60):
            try:
                Shortcut(share=share).check(batch, batch)
            except InputError as error:
                asked = re.search(r"at least (\d+) ", str(error))
                if asked is None:
                    continue  # The other part was empty.
                refused += 1
                assert int(asked[1]) > batch
                Shortcut(share=share).check(int(asked[1]), 1)
                with pytest.raises(InputError):
                    Shortcut(share=share).check(int(asked[1]) - 1, 1)
    assert refused > 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, r"objective.share is 1\.5, but must lie between 0 and 1"),
        ({"label_dropout": -0.1}, r"objective.label_dropout is -0\.1"),
        ({"target_decay": 1.0}, r"target_decay is 1\.0"),
        ({"levels": 1}, "levels is 1, but must be a power of two"),
        ({"levels": 100}, "levels is 100, but must be a power of two"),
        ({"clip": 0.0}, "objective.clip is 0.0, but must be above 0"),
        ({"adaptive_floor": 0.0}, "objective.adaptive_floor is 0.0, but must be above 0"),
        ({"adaptive_power": -1.0}, "objective.adaptive_power is -1.0, but must be at least 0"),
        ({"noise_floor": -0.1}, "objective.noise_floor is -0.1, but must be at least 0"),
        ({"noise_floor": 1.0}, "objective.noise_floor is 1.0, but must be below 1"),
        ({"flow_weight": -1.0}, "objective.flow_weight is -1.0, but must be at least 0"),
        ({"flow_weight": math.nan}, "objective.flow_weight is nan, but must be a finite number"),
        ({"guidance": math.inf}, "objective.guidance is inf, but must be a finite number"),
        ({"split": "random"}, "'random' leaves the dyadic grid: use it with objective.step_sizes continuous"),
        ({"step_sizes": "continuous", "guidance": 1.5}, "guidance 1.5 acts at the finest dyadic jump"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Shortcut(**settings)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Shortcut(), r"label_dropout is 0\.1, so a null_label is needed"),
        (Shortcut(label_dropout=0.0, guidance=2.0), r"objective.guidance is 2\.0, so a null_label is needed"),
    ],
)
def test_a_missing_null_label_is_refused(objective: Shortcut, message: str) -> None:
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda key: record(objective, X1, LABEL, key, null=None).loss, jax.random.key(0))


@pytest.mark.parametrize("longer", [True, False])
def test_continuous_jumps_are_spread_evenly_over_lengths_or_octaves(longer: bool) -> None:
    objective = Shortcut(step_sizes="continuous", levels=16, longer=longer)
    t, d, _ = (np.asarray(drawn) for drawn in objective._draw_jumps(jax.random.key(0), 64))
    place = (d - 1 / 16) / (15 / 16) if longer else 1 + np.log2(d) / 4
    np.testing.assert_allclose(np.diff(place), 1 / 64, atol=1e-6)
    assert 0 <= place[0] < 1 / 64 and np.all(t + d <= 1)


def test_longer_jumps_have_the_shares_of_bootstrap_dt_bias() -> None:
    # As in the official code with 56 rows and 7 levels: 56 / 2 // 7 rows each for the five finest, 56 / 4 with d=1/2.
    draw = dataclasses.replace(Shortcut(), longer=True)._draw_jumps
    _, d, _ = draw(jax.random.key(0), 56)
    counts = dict(zip(*np.unique(np.asarray(d), return_counts=True), strict=True))
    assert counts == {**{2.0**-k: 4 for k in (6, 5, 4, 3, 2)}, 0.5: 14, 1.0: 22}
    assert np.all(np.diff(d) >= 0)  # The finest first, as guidance of the targets needs them.
