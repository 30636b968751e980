"""Converted weights answer what the source's own code answered; the golden values are its, see tests/golden/weights."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.interop.epsilon_dit import EpsilonDiT, ddim_jumps, path_times
from shortcut_models.interop.importing import Imported, read_weights
from shortcut_models.interop.torch_file import read_torch
from shortcut_models.interop.torch_names import position_table
from shortcut_models.networks.dit import DiT
from shortcut_models.sampling import euler_jumps, guided, sample, uniform_jumps
from tests.interop.pickling import pickled, write_torch, zipped
from tests.interop.torch_network import answer
from tests.interop.torch_network import draw as draw_torch

GOLDEN = Path(__file__).parents[1] / "golden/weights"


def numbers(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / f"{name}.npz"))


def last(images: Any) -> np.ndarray:
    """Channels last, as ours are."""
    return np.moveaxis(np.asarray(images), 1, -1)


def velocity(found: Imported, x: Any, t: Any, d: Any, label: Any) -> np.ndarray:
    labels = np.asarray(label, np.int32)
    with jax.default_matmul_precision("highest"):
        answer = jax.jit(found.network.apply)(found.params, last(x), jnp.asarray(t), jnp.asarray(d), labels)
    return np.asarray(answer)


def draw(found: Imported, noise: Any, labels: Any, jumps: Any, guidance: float = 1.0) -> np.ndarray:
    network = found.network

    @jax.jit
    def run(params: Any, start: jax.Array, label: jax.Array) -> jax.Array:
        def ask(*inputs: jax.Array) -> jax.Array:
            return network.apply(params, *inputs)

        both = guided(ask, guidance, network.null_label) if guidance != 1 else ask
        return sample(both, start, label, jumps)

    with jax.default_matmul_precision("highest"):
        return np.asarray(run(found.params, last(noise), np.asarray(labels, np.int32)))


def assert_close(found: np.ndarray, expected: np.ndarray, within: float = 1e-5) -> None:
    largest = np.abs(expected).max()
    assert largest > 0.5  # Not a comparison of zeros.
    assert np.abs(found - last(expected)).max() < within * largest


def fits(found: Imported) -> None:
    """The parameters are those that the network would draw, in shape and dtype."""
    drawn = jax.eval_shape(found.network.init, jax.random.key(0))
    told = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)  # noqa: E731
    assert told(found.params) == told(drawn)


@pytest.fixture(scope="module")
def sit() -> Imported:
    return read_weights(GOLDEN / "sit_tiny.pt", num_heads=2)


@pytest.fixture(scope="module")
def meanflow() -> Imported:
    return read_weights(GOLDEN / "meanflow_tiny.pt", num_heads=2)


@pytest.fixture(scope="module")
def dit() -> Imported:
    return read_weights(GOLDEN / "dit_tiny.pt", num_heads=4)


def test_sit_answers_what_it_answered_whatever_the_step_size(sit: Imported) -> None:
    g = numbers("sit_tiny")
    assert (sit.kind, sit.has_null_label, sit.network.num_classes) == ("flow", True, 5)
    fits(sit)
    for d in (0.0, 0.125, 1.0):
        assert_close(velocity(sit, g["x"], g["t"], np.full(3, d, np.float32), g["y"]), g["velocity_ema"])
    null = velocity(sit, g["x"], g["t"], np.zeros(3, np.float32), np.full(3, sit.network.null_label))
    assert_close(null, g["velocity_ema_null"])
    raw = read_weights(GOLDEN / "sit_tiny.pt", num_heads=2, weights="raw")
    assert_close(velocity(raw, g["x"], g["t"], np.zeros(3, np.float32), g["y"]), g["velocity_model"])


def test_a_converted_flow_can_learn_the_step_size(sit: Imported) -> None:
    x, t, label = jnp.ones((1, *sit.network.shape)), jnp.full(1, 0.5), jnp.zeros(1, jnp.int32)

    def total(params: Any, d: jax.Array) -> jax.Array:
        return jnp.sum(sit.network.apply(params, x, t, d, label) ** 2)

    grad = jax.jit(jax.grad(total))
    slopes = [grad(sit.params, jnp.full(1, d))["step"]["out"]["kernel"] for d in (0.1, 1.0)]
    assert np.abs(slopes[0]).max() > 0
    assert np.abs(slopes[0] - slopes[1]).max() > 0  # Sizes are told apart, not only a bias moved.


def test_sit_samples_what_it_sampled(sit: Imported) -> None:
    g = numbers("sit_tiny")
    assert_close(draw(sit, g["noise"], g["labels"], euler_jumps(4)), g["sampled_4"])
    guided_by = float(g["cfg_scale"])
    assert_close(draw(sit, g["noise"], g["labels"], euler_jumps(4), guided_by), g["sampled_cfg_all_4"])


@pytest.mark.parametrize(
    ("file", "told", "expected"),
    [
        ("sit_tiny_ema.pt", {"format": "sit"}, "velocity_ema"),
        ("sit_tiny_bf16.pt", {"format": "sit"}, "velocity_bf16_weights_f32_math"),
        ("sit_tiny_legacy.pt", {}, "velocity_ema"),
    ],
)
def test_every_way_of_saving_a_sit(file: str, told: dict[str, str], expected: str) -> None:
    g = numbers("sit_tiny")
    found = read_weights(GOLDEN / file, num_heads=2, **told)  # pyrefly: ignore[bad-argument-type]
    assert_close(velocity(found, g["x"], g["t"], np.zeros(3, np.float32), g["y"]), g[expected])


def test_a_drifted_position_table_is_taken() -> None:
    g = numbers("sit_drift")
    found = read_weights(GOLDEN / "sit_drift.pt", num_heads=2, format="sit")
    assert_close(velocity(found, g["x"], g["t"], np.zeros(2, np.float32), g["y"]), g["velocity_ema"], 2e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("drift", [1.6e-4, 3e-4])
def test_a_table_that_was_rounded_after_it_had_drifted_is_taken(tmp_path: Path, dtype: str, drift: float) -> None:
    tensors = draw_torch(7, **SIZES[0], step=False)
    tensors["pos_embed"] *= 1 - drift
    halved = {name: a.astype(jnp.dtype(dtype)).astype(np.float32) for name, a in tensors.items()}
    found = read_weights(write_torch(tmp_path / "x.pt", halved), num_heads=3, format="sit")
    side = SIZES[0]["side"]
    x = np.random.default_rng(1).standard_normal((2, side, side, SIZES[0]["channels"])).astype(np.float32)
    t, label = np.asarray([0.25, 0.75]), np.asarray([0, 1])
    expected = answer(halved, x, label, 3, t=t)
    asked = velocity(found, np.moveaxis(x, -1, 1), t.astype(np.float32), np.zeros(2, np.float32), label)
    assert_close(asked, np.moveaxis(expected, -1, 1), 1e-3)


def test_meanflow_answers_and_jumps_as_it_did(meanflow: Imported) -> None:
    g = numbers("meanflow_tiny")
    assert (meanflow.kind, meanflow.step, meanflow.about["latent_scale"]) == ("few-step", 400_000, 0.18125)
    fits(meanflow)
    assert_close(-velocity(meanflow, g["x"], 1 - g["t"], g["t"] - g["r"], g["y"]), g["u_ema"])
    for steps in (1, 2):
        assert_close(draw(meanflow, g["noise"], g["labels"], uniform_jumps(steps)), g[f"sampled_{steps}"])
    guided_by = float(g["cfg_scale"])
    assert_close(draw(meanflow, g["noise"], g["labels"], uniform_jumps(2), guided_by), g["sampled_cfg_2"])


def test_dit_is_a_velocity_on_the_straight_path(dit: Imported) -> None:
    g = numbers("dit_tiny")
    assert dit.kind == "wrapper" and isinstance(dit.network, EpsilonDiT)
    fits(dit)
    for d in (0.0, 0.001):
        found = velocity(dit, g["straight_z"], g["straight_t"], np.full(5, d, np.float32), g["y"])
        assert_close(found, g["straight_velocity"], 1e-4)
    inner = Imported(dit.network.inner, *dit[1:])
    epsilon = velocity(inner, g["x"], g["t"].astype(np.float32), np.zeros(5, np.float32), g["y"])
    assert_close(epsilon, g["output_ema"][:, :4], 1e-4)


def test_the_path_of_dit_is_its_own_schedule() -> None:
    a = np.sqrt(numbers("dit_tiny")["alphas_cumprod"])
    np.testing.assert_allclose(path_times(), a / (a + np.sqrt(1 - a**2)), rtol=1e-12)


def test_dit_samples_as_ddim(dit: Imported) -> None:
    g = numbers("dit_tiny")
    np.testing.assert_allclose(ddim_jumps(4).t[1:], path_times()[g["ddim_4_timesteps"][2::-1]], rtol=1e-6)
    for steps in (4, 10):
        assert_close(draw(dit, g["noise"], g["labels"], ddim_jumps(steps)), g[f"ddim_{steps}"], 1e-4)
    assert ddim_jumps(1).length.tolist() == [1.0]
    with pytest.raises(InputError, match="1 to 1000 steps, not 0"):
        ddim_jumps(0)


def test_diffusers_answers_what_its_weights_were_trained_to() -> None:
    g = numbers("diffusers_dit")
    found = read_weights(GOLDEN / "diffusers_dit")
    assert isinstance(found.network, EpsilonDiT) and found.network.num_heads == 4
    fits(found)
    inner = Imported(found.network.inner, *found[1:])
    epsilon = velocity(inner, g["x"], g["t"].astype(np.float32), np.zeros(5, np.float32), g["y"])
    assert_close(epsilon, g["output_as_trained"][:, :4], 1e-4)


SIZES: list[dict[str, int]] = [
    {"side": 12, "patch": 3, "channels": 3, "width": 24, "depth": 1, "hidden": 60, "rows": 2, "out": 1},
    {"side": 5, "patch": 1, "channels": 1, "width": 36, "depth": 3, "hidden": 119, "rows": 8, "out": 2},
]


@pytest.mark.parametrize("kind", ["sit", "meanflow"])
@pytest.mark.parametrize("sizes", SIZES)
def test_other_sizes_than_the_golden_ones(tmp_path: Path, kind: str, sizes: dict[str, int]) -> None:
    tensors = draw_torch(7, **sizes, step=kind == "meanflow")
    found = read_weights(write_torch(tmp_path / "x.pt", tensors), num_heads=3, format=kind)
    fits(found)
    random = np.random.default_rng(1)
    x, t = random.standard_normal((4, *found.network.shape)).astype(np.float32), np.asarray([0, 0.2, 0.5, 0.75])
    label, d = np.arange(4) % sizes["rows"], np.asarray([1, 0.5, 0, 0.25])
    expected = answer(tensors, x, label, 3, t=t) if kind == "sit" else -answer(tensors, x, label, 3, t=1 - t, r=d)
    asked = velocity(found, np.moveaxis(x, -1, 1), t.astype(np.float32), d.astype(np.float32), label)
    assert_close(asked, np.moveaxis(expected, -1, 1))


def test_the_reference_answers_what_the_peer_does() -> None:
    """So that it stands for the peer's code at other sizes."""
    g, file = numbers("sit_tiny"), read_torch(GOLDEN / "sit_tiny.pt")
    found = answer(file.state_dict("ema"), last(g["x"]), g["y"], 2, t=g["t"].astype(np.float64))
    assert_close(found, g["velocity_ema"], 2e-6)


def test_positions_are_the_networks_own() -> None:
    network = DiT(image_size=12, patch_size=4, hidden_size=16, num_heads=2)
    np.testing.assert_array_equal(position_table(3, 16), network._positions())


@pytest.mark.parametrize(
    ("file", "told", "message"),
    [
        ("sit_tiny_ema.pt", {}, "--format sit or --format dit"),
        ("sit_tiny_ema.pt", {"format": "meanflow"}, "no r_embedder"),
        ("sit_tiny.pt", {"num_heads": None}, "width 32, depth 2.*give num_heads"),
        ("sit_tiny.pt", {"num_heads": 5}, "num_heads 5 does not divide .* 32"),
        ("sit_tiny.pt", {"format": "dit"}, "--format dit is not what it is: .* sit"),
        ("sit_tiny.pt", {"format": "official"}, "no pickle"),
        ("sit_tiny.pt", {"format": "jpeg"}, "--format 'jpeg' is unknown.*diffusers"),
        ("sit_tiny.pt", {"image_size": 16}, "image_size is 16, but the weights are for 8"),
        ("sit_tiny.pt", {"weights": "best"}, "--weights 'best' is unknown: choose one of ema, raw"),
        ("sit_tiny.pt", {"optimizer": True}, "only read from checkpoints of the official code"),
        ("sit_tiny.pt", {"train_type": "naive"}, "--train-type naive is for checkpoints of the official code, which"),
        ("sit_tiny.pt", {"num_heads": True}, "num_heads is True, but must be a whole number between 1 and 4096"),
        ("sit_tiny.pt", {"format": "diffusers"}, "for folders with a config.json, but .*sit_tiny.pt' is a file"),
        ("sit_tiny_ema.pt", {"format": "sit", "weights": "raw"}, "has one set of weights, .*: leave --weights raw out"),
        ("diffusers_dit", {"weights": "raw"}, "has one set of weights"),
        ("diffusers_dit", {"format": "dit"}, "for files of PyTorch's, but .*diffusers_dit' is a folder: leave it out"),
        ("diffusers_dit/diffusion_pytorch_model.safetensors", {}, "give the folder with its config.json"),
        ("dit_tiny.pt", {"format": "sit"}, "--format sit is not what it is: .* dit"),
        ("sit_gvp.pt", {}, "path_type 'GVP', which is no velocity on the straight path"),
        ("sit_noise.pt", {}, "prediction 'noise', which is no velocity"),
        ("meanflow_tiny.pt", {"format": "sit"}, "those of meanflow"),
        ("diffusers_dit_apart", {}, "block 1 embeds time or label otherwise than block 0"),
        ("diffusers_dit", {"num_heads": 2}, "num_heads is .*, but its config.json says 4"),
        ("missing.pt", {}, "is no file"),
        ("torch_formats.pt", {"format": "sit"}, "x_embedder.proj.weight is not there"),
    ],
)
def test_what_is_open_or_something_else_is_refused(file: str, told: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"num_heads": 2 if "diffusers" not in file else None, **told}
    with pytest.raises(InputError, match=message):
        read_weights(GOLDEN / file, **options)


def test_tensors_in_a_dict_of_another_name_are_told(tmp_path: Path) -> None:
    (path := tmp_path / "x.pt").write_bytes(zipped({"a/data.pkl": pickled({"state_dict": {}})}))
    with pytest.raises(InputError, match="keeps its tensors in a dict of another name: save that dict alone"):
        read_weights(path, format="sit", num_heads=2)
