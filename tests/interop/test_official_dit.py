"""The golden numbers were computed once with the original program; see tests/golden/official_dit.npz."""

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
from shortcut_models.interop.official_dit import infer_network, read_checkpoint, to_ours
from shortcut_models.networks.dit import DiT
from shortcut_models.sampling import dyadic_jumps, guided, sample

ROOT = Path(__file__).parents[2]
GOLDEN = dict(np.load(ROOT / "tests/golden/official_dit.npz"))
# Beside a developer's checkout; a clone does not have it.
ORIGINALS = [path for path in [ROOT.parent / "shared/golden/official_dit.ckpt"] if path.exists()]


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
    state = {"params": params, "params_ema": ema, "opt_state": opt_state, "step": np.asarray(4321, np.int32)}
    return {"train_state": state | changes, "_timestamp": 1.7e9}


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def assert_holds_golden(path: Path) -> None:
    found = read_checkpoint(path)
    assert found.step == 4321
    for tree, name in ((found.params, "params"), (found.params_ema, "params_ema")):
        assert jax.tree.structure(tree) == jax.tree.structure(nested(name))
        jax.tree.map(np.testing.assert_array_equal, tree, nested(name))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(found.params)}
    assert dtypes == {np.dtype(np.float32)}


@pytest.fixture(scope="module")
def network() -> DiT:
    return infer_network(nested("params"), int(GOLDEN["num_heads"]), int(GOLDEN["image_size"]))


@pytest.fixture(scope="module")
def velocity(network: DiT) -> Callable[..., Any]:
    return jax.jit(network.apply)


def test_the_network_is_inferred_from_the_parameters(network: DiT) -> None:
    sizes = ("image_size", "channels", "num_classes", "patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio")
    assert network == DiT.original(**{name: GOLDEN[name].item() for name in sizes})


def test_converted_parameters_have_the_networks_own_layout(network: DiT) -> None:
    ours = jax.eval_shape(network.init, jax.random.key(0))
    converted = to_ours(nested("params"))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), converted) == jax.tree.map(lambda a: (a.shape, a.dtype), ours)


@pytest.mark.parametrize(("weights", "expected"), [("params", "velocity"), ("params_ema", "velocity_ema")])
def test_velocity_is_the_originals(velocity: Callable[..., Any], weights: str, expected: str) -> None:
    params = to_ours(nested(weights))
    d = 2.0 ** -GOLDEN["log2_steps"]
    with jax.default_matmul_precision("highest"):
        found = velocity(params, GOLDEN["x"], GOLDEN["t"], d, GOLDEN["labels"])
    assert np.ptp(GOLDEN[expected]) > 1  # Not a comparison of zeros.
    np.testing.assert_allclose(found, GOLDEN[expected], rtol=0, atol=1e-5)


def test_guided_samples_are_the_originals(network: DiT) -> None:
    params = to_ours(nested("params_ema"))

    @jax.jit
    def draw(start: jax.Array, label: jax.Array) -> list[jax.Array]:
        both = guided(lambda *inputs: network.apply(params, *inputs), GOLDEN["guidance"].item(), network.null_label)
        return [sample(both, start, label, dyadic_jumps(steps)) for steps in (1, 4, 8)]

    with jax.default_matmul_precision("highest"):
        found = draw(GOLDEN["noise"], GOLDEN["labels"])
    for steps, images in zip((1, 4, 8), found, strict=True):
        np.testing.assert_allclose(images, GOLDEN[f"sampled_{steps}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_checkpoint_file_is_read(tmp_path: Path, protocol: int) -> None:
    if protocol == 2:  # Protocol 2 spells bytes as a call of _codecs.encode, which is not let in.
        with pytest.raises(InputError, match=r"asks for _codecs\.encode"):
            read_checkpoint(write(tmp_path / "model.ckpt", train_state(), protocol))
    else:
        assert_holds_golden(write(tmp_path / "model.ckpt", train_state(), protocol))


def test_the_accidental_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "model.ckpt"
    folder.mkdir()
    write(folder / "model.ckpt.tmp", train_state())
    assert_holds_golden(folder)


def test_jax_arrays_and_plain_numbers_are_read(tmp_path: Path) -> None:
    state = train_state(step=4321, params=jax.tree.map(jnp.asarray, nested("params")))
    assert_holds_golden(write(tmp_path / "model.ckpt", state))


def test_a_big_endian_or_transposed_array_is_read_right(tmp_path: Path) -> None:
    params = jax.tree.map(lambda a: np.asfortranarray(a.astype(">f4")), nested("params"))
    assert_holds_golden(write(tmp_path / "model.ckpt", train_state(params=params, step=np.int64(4321))))


@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.name)
def test_the_very_file_that_the_original_wrote_is_read(path: Path) -> None:
    assert_holds_golden(path)


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
        with pytest.raises(InputError, match=r"asks for (posix|nt)\.system.*refused"):
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
        ({"params": {"PatchEmbed_0": "text"}}, "holds a str where an array should be"),
        ({"params": {"PatchEmbed_0": optax.EmptyState()}}, "holds a EmptyState where an array should be"),
        ({"params": {"Conv_0": np.zeros(2)}}, "not those of the official DiT"),
        ({"params": print}, r"asks for builtins\.print"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "model.ckpt", train_state(**changes))
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


def test_damaged_files_are_told_apart_from_missing_ones(tmp_path: Path) -> None:
    whole = pickle.dumps(train_state(), 4)
    damaged = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "no pickle": b"PK\x03\x04 something else",
        "other layout": pickle.dumps({"params": {}}, 4),
        "a list": pickle.dumps([1, 2], 4),
        # An array that claims more elements than it has bytes.
        "short array": whole.replace(b"M\x80\x01\x85", b"M\x80\x02\x85", 1),
        # A length of 2^62 bytes that would have to be allocated.
        "bomb": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little"),
    }
    assert whole not in damaged.values()
    for name, content in damaged.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is damaged|bytes instead of"):
            read_checkpoint(path)
    for missing in (tmp_path / "missing.ckpt", tmp_path):
        with pytest.raises(InputError, match="is not there"):
            read_checkpoint(missing)
