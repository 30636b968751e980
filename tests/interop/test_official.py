"""The golden numbers were computed once with the original program; see tests/golden/official_dit.npz."""

import inspect
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shortcut_models.errors import InputError
from shortcut_models.interop.importing import Imported, read_weights
from shortcut_models.interop.official import leaves, read_checkpoint
from shortcut_models.networks.dit import DiT
from shortcut_models.sampling import dyadic_jumps, guided, sample
from shortcut_models.starting import is_foreign
from shortcut_models.weights import is_official

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden/official_dit.npz"))
SIZES = ("image_size", "channels", "num_classes", "patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio")
TOLD: dict[str, Any] = {"num_heads": int(GOLDEN["num_heads"]), "image_size": int(GOLDEN["image_size"])}


def nested(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, array in GOLDEN.items():
        top, *inner = path.split("/")
        if top == name:
            node = tree
            for part in inner[:-1]:
                node = node.setdefault(part, {})
            node[inner[-1]] = array
    return tree


def train_state(**changes: Any) -> dict[str, Any]:
    params, ema = nested("params"), nested("params_ema")
    optimizer = optax.chain(optax.adamw(1e-4, weight_decay=0.1))
    opt_state = jax.tree.map(np.asarray, optimizer.init(jax.tree.map(jnp.asarray, params)))
    adam, *rest = opt_state[0]
    adam = adam._replace(count=np.asarray(4321, np.int32), mu=params, nu=ema)  # Anything that is not zero.
    state = {"params": params, "params_ema": ema, "opt_state": ((adam, *rest),), "step": np.asarray(4321, np.int32)}
    return {"train_state": state | changes, "_timestamp": 1.7e9}


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("official") / "model.ckpt", train_state())


@pytest.fixture(scope="module")
def averaged(file: Path) -> Imported:
    return read_weights(file, **TOLD)


def assert_holds_golden(path: Path) -> None:
    for weights, name in (("ema", "params_ema"), ("raw", "params")):
        found = read_checkpoint(path, weights)
        assert found.step == 4321
        assert jax.tree.structure(found.params) == jax.tree.structure(nested(name))
        jax.tree.map(np.testing.assert_array_equal, found.params, nested(name))
        assert {(leaf.dtype, leaf.flags.c_contiguous) for _, leaf in leaves(found.params)} == {(np.dtype("f4"), True)}


def test_the_network_is_inferred_and_the_parameters_are_in_its_layout(averaged: Imported) -> None:
    assert averaged.network == DiT.original(**{name: GOLDEN[name].item() for name in SIZES})
    drawn = jax.eval_shape(averaged.network.init, jax.random.key(0))
    told = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)  # noqa: E731
    assert told(averaged.params) == told(drawn)
    assert (averaged.kind, averaged.step, averaged.moments) == ("shortcut", 4321, None)


@pytest.mark.parametrize(("weights", "expected"), [("raw", "velocity"), ("ema", "velocity_ema")])
def test_velocity_is_the_originals(file: Path, weights: str, expected: str) -> None:
    found = read_weights(file, weights=weights, **TOLD)
    d = 2.0 ** -GOLDEN["log2_steps"]
    with jax.default_matmul_precision("highest"):
        velocity = jax.jit(found.network.apply)(found.params, GOLDEN["x"], GOLDEN["t"], d, GOLDEN["labels"])
    assert np.ptp(GOLDEN[expected]) > 1  # Not a comparison of zeros.
    np.testing.assert_allclose(velocity, GOLDEN[expected], rtol=0, atol=1e-5)


def test_guided_samples_are_the_originals(averaged: Imported) -> None:
    network = averaged.network

    @jax.jit
    def draw(params: Any, start: jax.Array, label: jax.Array) -> list[jax.Array]:
        both = guided(lambda *inputs: network.apply(params, *inputs), GOLDEN["guidance"].item(), network.null_label)
        return [sample(both, start, label, dyadic_jumps(steps)) for steps in (1, 4)]

    with jax.default_matmul_precision("highest"):
        found = draw(averaged.params, GOLDEN["noise"], GOLDEN["labels"])
    for steps, images in zip((1, 4), found, strict=True):
        np.testing.assert_allclose(images, GOLDEN[f"sampled_{steps}"], rtol=0, atol=1e-5)


def test_types_that_are_not_told_the_step_size_embed_index_0_always(file: Path) -> None:
    found, told = read_weights(file, train_type="naive", **TOLD), read_weights(file, **TOLD)
    assert found.kind == "flow"
    assert read_weights(file, train_type="consistency_distillation", **TOLD).kind == "few-step"
    x, t, label = GOLDEN["x"], GOLDEN["t"], GOLDEN["labels"]
    apply = jax.jit(found.network.apply)
    with jax.default_matmul_precision("highest"):
        index_0 = apply(told.params, x, t, np.ones(6, np.float32), label)  # d = 1 is index 0.
        for d in (0.0, 0.25, 1.0):
            answer = apply(found.params, x, t, np.full(6, d, np.float32), label)
            np.testing.assert_allclose(answer, index_0, rtol=0, atol=1e-5)
        assert np.abs(apply(told.params, x, t, np.zeros(6, np.float32), label) - index_0).max() > 1e-2


def test_the_optimisers_state_is_carried_over(file: Path) -> None:
    found = read_weights(file, optimizer=True, **TOLD)
    raw = read_weights(file, weights="raw", **TOLD)
    assert found.moments is not None and found.moments["count"] == 4321
    jax.tree.map(np.testing.assert_array_equal, found.moments["mu"], raw.params)
    jax.tree.map(np.testing.assert_array_equal, found.moments["nu"], found.params)
    still = read_weights(file, optimizer=True, train_type="naive", **TOLD).moments
    assert still is not None and not still["mu"]["step"]["out"]["kernel"].any()
    np.testing.assert_array_equal(still["mu"]["step"]["out"]["bias"], raw.params["step"]["out"]["bias"])


def test_the_accidental_folder_and_later_protocols_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "model.ckpt"
    folder.mkdir()
    write(folder / "model.ckpt.tmp", train_state(), 5)
    assert_holds_golden(folder)
    assert read_weights(folder, **TOLD).step == 4321
    renamed = folder.rename(tmp_path / "mine")
    assert_holds_golden(renamed)
    assert is_official(renamed) and is_foreign(renamed)
    (renamed / "run.json").write_text("{}")  # Of something else: its name alone tells, and is not that of the file.
    assert not is_official(renamed) and not is_foreign(renamed)
    with pytest.raises(InputError, match=r"asks for '_codecs\.encode'"):  # How protocol 2 spells bytes.
        read_checkpoint(write(tmp_path / "two.ckpt", train_state(), 2))


def test_jax_arrays_and_plain_numbers_are_read(tmp_path: Path) -> None:
    state = train_state(step=4321, params=jax.tree.map(jnp.asarray, nested("params")))
    assert_holds_golden(write(tmp_path / "model.ckpt", state))


def test_a_big_endian_or_transposed_array_is_read_right(tmp_path: Path) -> None:
    params = jax.tree.map(lambda a: np.asfortranarray(a.astype(">f4")), nested("params"))
    assert_holds_golden(write(tmp_path / "model.ckpt", train_state(params=params, step=np.int64(4321))))


def test_a_checkpoint_without_averages_is_read_raw(tmp_path: Path) -> None:
    path = write(tmp_path / "model.ckpt", train_state(params_ema=None))
    with pytest.raises(InputError, match="no averaged weights: ask for the raw ones"):
        read_weights(path, **TOLD)
    raw, found = (read_weights(path, weights=weights, **TOLD) for weights in ("raw", "any"))
    assert (found.step, found.about["weights"]) == (4321, "raw")
    jax.tree.map(np.testing.assert_array_equal, found.params, raw.params)
    whole = read_weights(write(path, train_state()), weights="any", **TOLD)
    assert whole.about["weights"] == "ema"


def test_sizes_may_be_numpy_s(file: Path, averaged: Imported) -> None:
    told: Any = {name: np.asarray(value) for name, value in TOLD.items()}
    assert inspect.unwrap(read_weights)(file, **told).network == averaged.network


def test_what_the_tensors_do_not_tell_is_asked_for(file: Path) -> None:
    for left, message in (("num_heads", "give num_heads"), ("image_size", "give image_size")):
        with pytest.raises(InputError, match=message):
            read_weights(file, **{name: value for name, value in TOLD.items() if name != left})


def test_a_mismatch_is_named_tensor_by_tensor(tmp_path: Path) -> None:
    params = nested("params")
    params["DiTBlock_1"].pop("Dense_3")
    params["FinalLayer_0"]["Dense_1"]["bias"] = np.zeros(3, np.float32)
    params["Extra"] = {"kernel": np.zeros(1, np.float32)}
    path = write(tmp_path / "model.ckpt", train_state(params=params))
    with pytest.raises(InputError) as error:
        read_weights(path, weights="raw", **TOLD)
    for part in (
        "lacks DiTBlock_1/Dense_3/kernel, DiTBlock_1/Dense_3/bias",
        "has besides Extra/kernel",
        "FinalLayer_0/Dense_1/bias (3,) instead of (16,)",
    ):
        assert part in str(error.value)


class Evil:
    """Its pickle runs a command when it is loaded the usual way."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.touched}'",)


def test_a_pickle_that_runs_a_command_is_refused_and_does_not_run(tmp_path: Path) -> None:
    evil = Evil(tmp_path / "touched")
    smuggled = np.empty(1, object)
    smuggled[0] = evil
    places = {"params": evil, "opt_state": [evil], "params_ema": {"kernel": smuggled}, "step": smuggled}
    for place, content in places.items():
        path = write(tmp_path / "model.ckpt", train_state(**{place: content}))
        with pytest.raises(InputError, match=r"asks for '(posix|nt)\.system'"):
            read_checkpoint(path)
    assert not evil.touched.exists()
    # The trap is armed: the usual way does run it.
    pickle.loads(pickle.dumps(evil))
    assert evil.touched.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"PatchEmbed_0": np.array([None])}}, "dtype 'O8' instead of numbers"),
        ({"params": {"PatchEmbed_0": np.array(["text"])}}, "dtype 'U4' instead of numbers"),
        ({"params": {"PatchEmbed_0": np.zeros(2, "f4,i8")}}, "instead of numbers"),
        ({"params": {"PatchEmbed_0": "text"}}, "has 'text' where an array should be"),
        ({"params": {"PatchEmbed_0": optax.EmptyState()}}, "EmptyState' where an array should be"),
        ({"params": {"Conv_0": np.zeros(2)}}, "not those of the official DiT"),
        ({"params": print}, r"asks for 'builtins\.print'"),
        ({"step": 1.5}, "its step is no whole number"),
        ({"step": -1}, "its step is no whole number"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "model.ckpt", train_state(**changes))
    with pytest.raises(InputError, match=message):
        read_checkpoint(path, "raw")
