"""Points: every point is a function of its index, and lies on the shape of its class."""

import numpy as np
import pytest

from shortcut_models import InputError
from shortcut_models.data import choose, take
from shortcut_models.data.points import LENGTH, SHAPES, Points, normal, uniform

MANY = np.arange(4000)


def by_class(noise: float = 0.0) -> dict[str, np.ndarray]:
    batch = take(Points(noise=noise).open(), MANY)
    return {name: batch["x"][batch["label"] == label] for label, name in enumerate(SHAPES)}


def test_a_point_is_a_function_of_its_index_alone() -> None:
    source = Points().open()
    batch = take(source, MANY)
    assert (batch["x"].shape, batch["x"].dtype, batch["label"].dtype) == ((4000, 2), np.float32, np.int32)
    for index in (0, 7, 3999):
        example = source[index]
        np.testing.assert_array_equal(example["x"], batch["x"][index])
        assert example["label"] == batch["label"][index] == index % 4
        assert isinstance(example["label"], int)
    assert len(np.unique(batch["x"], axis=0)) == 4000
    assert np.abs(batch["x"]).max() < 1.7
    # Pinned, so that a run that goes on elsewhere sees the same points.
    np.testing.assert_allclose(source[LENGTH - 1]["x"], [-0.99835825, 0.99928951], atol=1e-6)
    for outside in (-1, LENGTH):
        with pytest.raises(IndexError, match=f"index {outside} is outside"):
            source[outside]


def test_the_splits_have_draws_of_their_own() -> None:
    data = choose("points")
    assert data == Points()
    assert (data.splits, data.held_out, data.shape, data.view) == (("train", "test"), "test", (2,), "points")
    assert (data.num_classes, data.class_names) == (4, SHAPES)
    train, test = (take(data.open(split), MANY)["x"] for split in data.splits)
    assert len(np.unique(np.concatenate([train, test]), axis=0)) == 8000
    with pytest.raises(InputError, match="split 'val' is unknown: points has train, test"):
        data.open("val")


def test_without_noise_each_class_is_its_shape() -> None:
    shapes = by_class()
    radius = np.linalg.norm(shapes["ring"], axis=1)
    np.testing.assert_allclose(radius, 1.2, atol=1e-6)
    places, counts = np.unique(shapes["blobs"], axis=0, return_counts=True)
    assert places.tolist() == [[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert counts.min() > 70
    # A moon is half a unit circle about (-0.5, -0.25) above it, or about (0.5, 0.25) below.
    x, y = shapes["moons"].T
    upper = np.isclose(np.hypot(x + 0.5, y + 0.25), 1, atol=1e-5) & (y > -0.26)
    lower = np.isclose(np.hypot(x - 0.5, y - 0.25), 1, atol=1e-5) & (y < 0.26)
    assert (upper | lower).all()
    assert 400 < upper.sum() < 600
    # Along the spiral the angle follows from the radius.
    x, y = shapes["spiral"].T
    turn = np.hypot(x, y) / 1.3
    np.testing.assert_allclose(x, 1.3 * turn * np.cos(3.5 * np.pi * turn), atol=1e-5)
    assert abs(np.mean(turn < 0.5) - 0.25) < 0.05  # Even along the length.
    assert turn.max() > 0.99


def test_noise_is_of_its_size_in_both_directions_and_part_of_the_identity() -> None:
    added = (by_class(0.1)["blobs"] - by_class()["blobs"]) / 0.1
    np.testing.assert_allclose(added.std(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(added.mean(axis=0), 0, atol=0.1)
    assert abs(np.corrcoef(added.T)[0, 1]) < 0.1
    assert Points(noise=0.1).identity() != Points().identity()
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"data.noise is .*, but must be "):
            Points(noise=wrong)


def test_the_random_numbers_are_those_of_splitmix64_and_uniform() -> None:
    # By hand: the published algorithm, one step at a time, in Python's integers.
    state, expected = 0x706F696E7473, []
    for _ in range(12):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        expected.append(((z ^ (z >> 31)) >> 11) * 2.0**-53)
    assert uniform(np.arange(3)).T.ravel().tolist() == expected
    drawn = uniform(MANY)
    assert 0 <= drawn.min() < drawn.max() < 1
    assert np.abs(drawn.mean(axis=1) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.06
    assert np.isfinite(normal(np.array([0.0, 1 - 2.0**-53]), np.array([0.0, 0.5]))).all()
