"""A trained network as a user holds it."""

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, sampling
from shortcut_models.data.points import Points
from shortcut_models.model import Model
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.flow_matching import FlowMatching


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return shortcut_models.load(trained)


def test_one_number_serves_all_examples(model: Model) -> None:
    x = np.asarray(sampling.noise(0, jnp.arange(3), (8, 8, 1)))
    one = model.velocity(x, 0.5, 0.25, 7)
    each = model.velocity(x, [0.5] * 3, np.full(3, 0.25), np.array([7, 7, 7]))
    np.testing.assert_array_equal(one, each)
    assert one.shape == x.shape
    assert one.dtype == jnp.float32
    assert np.abs(one - model.velocity(x, 0.5, 0.25, 3)).max() > 1e-6  # The label matters,
    assert np.abs(one - model.velocity(x, 0.5, 0.0, 7)).max() > 1e-6  # and so does the step size.


def test_models_of_the_same_step_are_told_apart(model: Model, trained: Path) -> None:
    assert model.fingerprint() == shortcut_models.load(trained).fingerprint()
    assert model.fingerprint() != shortcut_models.load(trained, "raw").fingerprint()
    about: Any = {"step": model.step, "weights": model.weights}
    other = Model(model.network, model.params, FlowMatching(), model.data, **about)  # Which takes other jumps.
    assert model.fingerprint() != other.fingerprint()


def test_image_i_is_the_same_in_any_batch(model: Model) -> None:
    labels = np.arange(10)
    whole = model.sample(labels, steps=2, seed=5)
    assert whole.shape == (10, 8, 8, 1)
    assert whole.dtype == np.float32
    for size in (1, 7):
        np.testing.assert_allclose(model.sample(labels, steps=2, seed=5, batch_size=size), whole, atol=1e-5)
    np.testing.assert_allclose(model.sample(labels[:3], steps=2, seed=5), whole[:3], atol=1e-5)
    assert np.abs(model.sample(labels, steps=2, seed=6) - whole).max() > 0.1


def test_noise_is_the_same_in_any_batch_to_the_last_bit(model: Model) -> None:
    whole = model.sample(np.zeros(64, int), steps=1, seed=9, path=True)[0]
    for size in (7, 64):
        piecewise = model.sample(np.zeros(64, int), steps=1, seed=9, path=True, batch_size=size)[0]
        np.testing.assert_array_equal(piecewise, whole)
    for i in (0, 63):
        alone = sampling.noise(9, jnp.asarray([i]), (8, 8, 1))
        np.testing.assert_array_equal(alone[0], whole[i])


@pytest.mark.parametrize("steps", [1, 2, 5, 128])
def test_any_number_of_steps_gives_images_and_the_path_to_them(model: Model, steps: int) -> None:
    path = model.sample([4, 9], steps=steps, path=True)
    assert path.shape == (steps + 1, 2, 8, 8, 1)
    assert path.dtype == np.float32
    assert np.isfinite(path).all()
    assert (np.abs(np.diff(path, axis=0)).max(axis=(1, 2, 3, 4)) > 0).all()  # Every step goes somewhere.


def test_one_label_and_no_label_can_be_asked_for(model: Model) -> None:
    one = model.sample(3, steps=2)
    np.testing.assert_array_equal(one, model.sample([3], steps=2))
    assert np.abs(one - model.sample(model.num_classes, steps=2)).max() > 1e-6


def test_given_noise_replaces_the_seeds(model: Model) -> None:
    noise = np.asarray(sampling.noise(3, jnp.arange(4), (8, 8, 1)))
    labels = [1, 2, 3, 4]
    np.testing.assert_allclose(model.sample(labels, noise=noise), model.sample(labels, seed=3), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_sampling_is_jumps_along_the_velocity(model: Model, steps: int) -> None:
    x = np.asarray(sampling.noise(0, jnp.arange(2), (8, 8, 1)))
    path = [x]
    for t, length, d in zip(*model.objective.jumps(steps)[:3], strict=True):
        x = x + length * np.asarray(model.velocity(x, t, d, [4, 9]))
        path.append(x)
    np.testing.assert_allclose(model.sample([4, 9], steps=steps, path=True), path, atol=1e-5)
    np.testing.assert_allclose(model.sample([4, 9], steps=steps), x, atol=1e-5)


def test_guidance_pushes_away_from_the_null_label(model: Model) -> None:
    x = np.asarray(sampling.noise(0, jnp.arange(2), (8, 8, 1)))
    conditional, null = model.velocity(x, 0, 1, [4, 9]), model.velocity(x, 0, 1, model.num_classes)
    expected = x + np.asarray(null + 3.0 * (conditional - null))
    np.testing.assert_allclose(model.sample([4, 9], steps=1, guidance=3.0), expected, atol=1e-5)
    np.testing.assert_allclose(model.sample([4, 9], steps=1, guidance=3.0, path=True), [x, expected], atol=1e-5)


def test_raw_weights_are_not_the_average(trained: Path, model: Model) -> None:
    raw = shortcut_models.load(trained, weights="raw")
    assert raw.step == model.step == 8
    assert np.abs(raw.sample([0], steps=1) - model.sample([0], steps=1)).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 11]}, "label 11 is unknown: labels go from 0 to 9"),
        ({"labels": [-1]}, "label -1 is unknown"),
        ({"labels": np.array([0.5])}, "must be integers"),
        ({"labels": []}, "one or more integers"),
        ({"labels": [0], "steps": 0}, "steps is 0, but must be a whole number from 1 up"),
        ({"labels": [0], "guidance": float("nan")}, "guidance is nan"),
        ({"labels": [0], "seed": -1}, "seed is -1"),
        ({"labels": [0], "seed": 2**32}, "seed is 4294967296, but must be a whole number between 0 and 4294967295"),
        ({"labels": [0], "steps": 2.7}, "steps is 2.7, but must be a whole number from 1 up"),
        ({"labels": [0], "steps": True}, "steps is True, but must be a whole number"),
        ({"labels": [0], "batch_size": 0}, "batch_size is 0, but must be a whole number from 1 up"),
        ({"labels": [0], "seed": 1.5}, "seed is 1.5, but must be a whole number between 0 and"),
        ({"labels": [0], "first": -1}, "first is -1, but must be a whole number between 0 and"),
        ({"labels": np.zeros((1, 1), int)}, "labels have shape"),
        ({"labels": [[1], [2, 3]]}, r"labels are \[\[1\], \[2, 3\]\], but must be integers in a row"),
        ({"labels": [0], "noise": np.zeros((2, 8, 8, 1))}, r"noise has shape \(2, 8, 8, 1\), but \(1, 8"),
        ({"labels": [0], "noise": np.full((1, 8, 8, 1), np.nan)}, "noise has values that are not finite"),
        ({"labels": [0], "noise": [[1, 2], [3]]}, r"noise is \[\[1, 2\], \[3\]\], but must be numbers"),
        ({"labels": [0], "noise": np.zeros((1, 8, 8, 1), complex)}, "noise is array.*, but must be numbers"),
        ({"labels": [0], "guidance": "2"}, "guidance is '2', but must be a finite number"),
        ({"labels": [0], "guidance": None}, "guidance is None, but must be a finite number"),
        ({"labels": [0], "guidance": [1, 2]}, r"guidance is \[1, 2\], but must be a finite number"),
    ],
)
def test_bad_samples_are_refused_in_a_sentence(
    model: Model, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As users call it, without the tests' own check of types.
    sample = inspect.unwrap(type(model).sample)
    monkeypatch.setattr(type(model), "check_guidance", inspect.unwrap(type(model).check_guidance))
    with pytest.raises(InputError, match=message):
        sample(model, **options)


@pytest.mark.parametrize(
    ("seed", "first", "count", "message"),
    [
        (1.5, 0, 1, "seed is 1.5, but must be a whole number between 0 and 4294967295"),
        (2**32, 0, 1, "seed is 4294967296"),
        (0, -1, 1, "first is -1, but must be a whole number between 0 and"),
        (0, 0.5, 1, "first is 0.5"),
        (0, 2**32 - 1, 1, "first is 4294967295, but must be a whole number between 0 and 4294967294"),
        (0, 0, 0, "count is 0, but must be a whole number from 1 up"),
        (0, 0, 2.0, "count is 2.0, but must be a whole number"),
    ],
)
def test_bad_noise_is_refused_in_a_sentence(model: Model, seed: Any, first: Any, count: Any, message: str) -> None:
    noise = inspect.unwrap(type(model).noise)
    with pytest.raises(InputError, match=message):
        noise(model, seed, first, count)


@pytest.mark.parametrize(
    ("x", "t", "d", "label", "message"),
    [
        ((2, 8, 8), 0, 0, 0, "x has shape"),
        ((2, 8, 8, 1), 1.5, 0, 0, "t must lie between 0"),
        ((2, 8, 8, 1), 0, -0.1, 0, "d must lie between 0"),
        ((2, 8, 8, 1), float("nan"), 0, 0, "t must lie between 0"),
        ((2, 8, 8, 1), [0, 0, 0], 0, 0, "one number or 2 of them"),
        ((2, 8, 8, 1), 0, 0, 11, "label 11 is unknown"),
        ((2, 8, 8, 1), 0, 0, 0.5, "labels are float64, but must be integers"),
        ((2, 8, 8, 1), "a", 0, 0, "t is 'a', but must be numbers"),
        ((2, 8, 8, 1), 0, [[1], [1, 2]], 0, "d is .*, but must be numbers"),
    ],
)
def test_bad_velocities_are_refused(model: Model, x: Any, t: Any, d: Any, label: Any, message: str) -> None:
    velocity = inspect.unwrap(type(model).velocity)
    with pytest.raises(InputError, match=message):
        velocity(model, np.zeros(x), t, d, label)


def test_no_examples_have_no_velocities(model: Model) -> None:
    assert model.velocity(np.zeros((0, 8, 8, 1)), 0.5, 0.5, 0).shape == (0, 8, 8, 1)


# --- A network of points, whose answer no training is needed for


def points_model(objective: Any, devices: int = 8) -> Model:
    """A perceptron with weights drawn at random, the last layer included."""
    network = MLP(dimensions=2, hidden_size=8, depth=1, num_classes=4, frequencies=4)
    params = network.init(jax.random.key(0))
    params["out"]["kernel"] = jax.random.normal(jax.random.key(1), params["out"]["kernel"].shape)
    return Model(network, params, objective, Points(), step=1, weights="ema", devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def renoised() -> Model:
    return points_model(Consistency())


def test_renoised_samples_follow_the_jumps_with_the_noise_of_each_image(renoised: Model) -> None:
    labels = np.array([0, 1, 2, 3, 0])
    found = renoised.sample(labels, steps=3, seed=5, first=2)
    jumps, indices = renoised.objective.jumps(3), jnp.arange(2, 7)
    start, keys = sampling.noise(5, indices, (2,)), sampling.image_keys(5, indices)
    velocity = lambda x, t, d, label: renoised.network.apply(renoised.params, x, t, d, label)  # noqa: E731
    with_noise = sampling.sample(velocity, start, jnp.asarray(labels), jumps, keys)
    np.testing.assert_allclose(found, with_noise, atol=1e-5)
    # Without new noise they would be others.
    still = sampling.sample(velocity, start, jnp.asarray(labels), jumps._replace(renoise=np.ones(3, np.float32)))
    assert np.abs(found - np.asarray(still)).max() > 0.05


def test_renoised_samples_depend_on_the_seed_and_the_number_of_the_image_alone(renoised: Model) -> None:
    labels = np.arange(10) % 4
    whole = renoised.sample(labels, steps=3, seed=5)
    for size in (1, 7):
        np.testing.assert_allclose(renoised.sample(labels, steps=3, seed=5, batch_size=size), whole, atol=1e-5)
    np.testing.assert_allclose(renoised.sample(labels[4:], steps=3, seed=5, first=4), whole[4:], atol=1e-5)
    np.testing.assert_allclose(points_model(Consistency(), 1).sample(labels, steps=3, seed=5), whole, atol=1e-5)
    path = renoised.sample(labels, steps=3, seed=5, path=True)
    np.testing.assert_allclose(path[-1], whole, atol=1e-5)
    np.testing.assert_array_equal(path[0], renoised.noise(5, 0, 10))
    # From the same start, the seed still decides what is added.
    start = renoised.noise(5, 0, 10)
    same, other = (renoised.sample(labels, steps=3, seed=seed, noise=start) for seed in (5, 6))
    np.testing.assert_allclose(same, whole, atol=1e-5)
    assert np.abs(other - whole).max() > 0.05
    one, another = (renoised.sample(labels, steps=1, seed=seed, noise=start) for seed in (5, 6))
    np.testing.assert_array_equal(one, another)  # A single jump adds nothing.


def test_a_model_without_labels_knows_the_null_label_alone() -> None:
    model = points_model(FlowMatching(label_dropout=1.0))
    assert model.unconditional
    np.testing.assert_array_equal(model.balanced_labels(5), [4] * 5)
    assert model.sample(model.balanced_labels(3), steps=2).shape == (3, 2)
    with pytest.raises(InputError, match=r"label 1 was never trained: .* use 4, which stands for no label"):
        model.sample([4, 1])
    with pytest.raises(InputError, match=r"guidance is 2\.0, but this model was trained without labels"):
        model.sample(4, guidance=2.0)


def test_guidance_needs_a_null_label_that_was_trained() -> None:
    model = points_model(FlowMatching(label_dropout=0.0))
    np.testing.assert_array_equal(model.balanced_labels(6), [0, 1, 2, 3, 0, 1])
    assert model.sample([1], guidance=1.0).shape == (1, 2)
    with pytest.raises(InputError, match=r"guidance is 1.5, but .* never learnt to answer without a label .*dropout 0"):
        model.sample([1], guidance=1.5)
    with pytest.raises(InputError, match="label 4 stands for no label, without which this model never learnt"):
        model.sample([1, 4])


def test_samples_of_another_shape_are_not_decoded() -> None:
    with pytest.raises(InputError, match=r"x has shape \(3, 5\), but the network takes \(batch, 2\)"):
        points_model(FlowMatching()).decode(np.zeros((3, 5)))
