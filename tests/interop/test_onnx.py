"""Exported samplers: onnxruntime answers as the model does, whatever the network, budget, batch and guidance."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from shortcut_models import InputError, cli, load, sampling
from shortcut_models.data.digits import Digits
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.interop import exporting, onnx_noise
from shortcut_models.interop.epsilon_dit import EpsilonDiT
from shortcut_models.interop.onnx_file import export_onnx
from shortcut_models.interop.onnx_graph import Graph, Port, Tensor, assemble, constant, write
from shortcut_models.interop.samplers import Ddim, FewStep
from shortcut_models.interop.stablehlo_file import export_stablehlo
from shortcut_models.model import Model
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.shortcut import Shortcut
from tests.codecs import vaes

SIZES: dict[str, Any] = {
    "image_size": 8,
    "channels": 1,
    "num_classes": 10,
    "patch_size": 4,
    "hidden_size": 16,
    "depth": 2,
    "num_heads": 2,
}
DATA = Unavailable(x_shape=(8, 8, 1), classes=10)


def model_of(network: Any = DiT(**SIZES), objective: Any = Shortcut(), data: Any = DATA) -> Model:  # noqa: B008
    """A network whose every weight counts: drawn ones are zero in places."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: (rng.standard_normal(leaf.shape) * 0.2).astype(np.float32), shapes)
    return Model(network, params, objective, data, step=0, weights="ema", devices=jax.local_devices()[:1])


def draw(path: Path, **feed: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0])


def noise_of(model: Model, count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, *model.network.shape)).astype(np.float32)


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()), rtol=0)


def agree(model: Model, out: Path, steps: int, guidance: float = 1.0) -> None:
    """One file answers for a batch of three, and for one of them alone, as `Model.sample` does."""
    export_onnx(model, out, steps=steps, guidance=guidance)
    onnx.checker.check_model(out, full_check=True)
    noise, labels = noise_of(model, 3), np.array([1, model.null_label, 0])
    expected = model.sample(labels, steps, guidance, noise=noise)
    near(draw(out, noise=noise, label=labels), expected)
    near(draw(out, noise=noise[:1], label=labels[:1]), expected[:1])


@pytest.mark.parametrize(
    ("network", "objective", "steps", "guidance"),
    [
        (DiT(**SIZES), Shortcut(), 1, 1.0),
        (DiT(**SIZES), Shortcut(), 4, 2.5),
        (DiT(**SIZES, scan=False), Shortcut(), 4, 1.0),
        (DiT.original(**SIZES), FewStep(), 3, 1.0),
        (EpsilonDiT(**SIZES), Ddim(), 4, 1.5),
        (EpsilonDiT(**SIZES), Ddim(), 1, 1.0),
        (MLP(num_classes=3), Shortcut(), 1, 3.0),
        (MLP(num_classes=3), FlowMatching(), 4, 1.0),
    ],
)
def test_it_answers_as_the_model_does(
    network: Any, objective: Any, steps: int, guidance: float, tmp_path: Path
) -> None:
    agree(model_of(network, objective), tmp_path / "x.onnx", steps, guidance)


def test_what_it_takes_and_says_of_itself(tmp_path: Path) -> None:
    export_onnx(model_of(data=Digits()), tmp_path / "digits.onnx", steps=2, guidance=1.5)
    export_onnx(model_of(MLP(num_classes=3)), tmp_path / "points.onnx", steps=1)
    digits, points = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("digits", "points"))
    ports = [(port.name, port.type, port.shape) for port in [*digits.get_inputs(), *digits.get_outputs()]]
    image = ["n", 8, 8, 1]
    assert ports == [
        ("noise", "tensor(float)", image),
        ("label", "tensor(int64)", ["n"]),
        ("image", "tensor(float)", image),
    ]
    assert [(port.name, port.shape) for port in points.get_outputs()] == [("points", ["n", 2])]
    about = digits.get_modelmeta().custom_metadata_map
    assert (about["steps"], about["guidance"], about["weights"], about["decoded"]) == ("2", "1.5", "ema", "false")
    assert (about["num_classes"], about["labels"]) == ("10", "0 to 9; 10 is no label")


@pytest.mark.parametrize("network", [DiT(**SIZES), MLP(num_classes=3)])
def test_labels_that_there_are_not_are_refused(network: Any, tmp_path: Path) -> None:
    model = model_of(network)
    export_onnx(model, tmp_path / "x.onnx", steps=1)
    export_stablehlo(model, tmp_path / "x.stablehlo", steps=1)
    noise, program = noise_of(model, 2), jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    for wrong in (-1, model.num_classes + 1, 2**32):
        with pytest.raises(Exception, match="indices element out of data bounds"):
            draw(tmp_path / "x.onnx", noise=noise, label=np.array([0, wrong]))
        if wrong < 2**31:
            found = np.asarray(program.call(noise, np.array([0, wrong], np.int32)))
            assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()


def test_labels_of_a_model_without_labels_are_ignored(tmp_path: Path) -> None:
    data = Unavailable(x_shape=(2,), classes=2, names=("tame", "wild"))
    model = model_of(MLP(num_classes=3), FlowMatching(label_dropout=1.0), data)
    export_onnx(model, tmp_path / "x.onnx", steps=2)
    noise = noise_of(model, 3)
    near(draw(tmp_path / "x.onnx", noise=noise, label=np.array([0, 1, 2])), model.sample([3] * 3, 2, noise=noise))
    about = onnxruntime.InferenceSession(tmp_path / "x.onnx").get_modelmeta().custom_metadata_map
    assert [about[name] for name in ("num_classes", "labels", "class_names")] == ["0", "none", "[]"]


def test_fresh_noise_between_jumps_follows_from_the_seed_which_is_0_unless_given(tmp_path: Path) -> None:
    model = model_of(objective=Consistency())
    agree(model, tmp_path / "x.onnx", steps=3)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    assert [port.name for port in session.get_inputs()] == ["noise", "label"]
    noise, labels = noise_of(model, 300), np.arange(300) % 10
    for seed in (0, 7, 2**32 - 1):
        feed = {"noise": noise, "label": labels, "seed": np.array(seed)}
        near(draw(tmp_path / "x.onnx", **feed), model.sample(labels, 3, seed=seed, noise=noise))


def test_a_seed_that_is_none_and_rows_that_are_not_as_many_are_refused(tmp_path: Path) -> None:
    model = model_of(MLP(num_classes=3), Consistency())
    export_onnx(model, tmp_path / "x.onnx", steps=2)
    export_onnx(model_of(MLP(num_classes=1), FlowMatching(label_dropout=1.0)), tmp_path / "bare.onnx", steps=1)
    refused = pytest.raises(Exception, match="indices element out of data bounds")
    for seed in (-1, 2**32, 2**40):
        with refused:
            draw(tmp_path / "x.onnx", noise=noise_of(model, 2), label=np.array([0, 1]), seed=np.array(seed))
    for name in ("x.onnx", "bare.onnx"):
        for count, labels in ((1, 4), (4, 1), (4, 2)):
            with refused:
                draw(tmp_path / name, noise=noise_of(model, count), label=np.zeros(labels, np.int64))


def test_noise_drawn_in_a_graph_is_that_of_jax(tmp_path: Path) -> None:
    (batch,) = jax.export.symbolic_shape("n")
    graph = Graph(batch, rows="count")
    keys = onnx_noise.image_keys(graph, Tensor("seed", (), np.dtype(np.int64)))
    drawn = onnx_noise.normal(graph, keys, constant(np.int64(2)), (batch, 40, 50))
    inputs = [Port("seed", (), np.dtype(np.int64)), Port("count", (1,), np.dtype(np.int64))]
    proto = assemble(graph, "noise", inputs, [Port(drawn.name, ("n", 40, 50), drawn.dtype)])
    write(tmp_path / "x.onnx", proto, graph, {})
    for seed in (0, 5, 2**32 - 1):
        found = draw(tmp_path / "x.onnx", seed=np.array(seed), count=np.array([100]))
        keys = sampling.image_keys(jnp.uint32(seed), jnp.arange(100, dtype=jnp.uint32))
        expected = np.asarray(sampling.fresh_noise(keys, jnp.int32(2), (40, 50)))
        # The same bits: what differs is the rounding of a logarithm and of a polynomial.
        np.testing.assert_allclose(found, expected, atol=5e-6, rtol=0)
        assert np.abs(expected).max() > 4  # The tail too: beyond 2.9 it is another polynomial.


def test_the_decoder_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTCUT_VAE", str(vaes.write_tiny(tmp_path / "vae")))
    network = DiT(**SIZES | {"channels": 4})
    model = model_of(network, data=Unavailable(x_shape=network.shape, classes=10, latent_scale=0.18215))
    export_onnx(model, tmp_path / "x.onnx", steps=1, decode=True)
    noise, labels = noise_of(model, 3), np.array([1, 2, 3])
    found = draw(tmp_path / "x.onnx", noise=noise, label=labels)
    assert found.shape == (3, 16, 16, 3)
    near(found, model.decode(model.sample(labels, 1, noise=noise)))


def test_weights_are_written_once_and_beside_the_file_if_they_are_many(tmp_path: Path) -> None:
    model = model_of(MLP(num_classes=3))
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    export_onnx(model, tmp_path / "all.onnx", steps=128)
    assert weights < (tmp_path / "all.onnx").stat().st_size < weights + 20_000
    export_onnx(model, tmp_path / "split.onnx", steps=128, limit=1000)
    assert (tmp_path / "split.onnx").stat().st_size < 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.onnx", "split.onnx", "split.onnx.data"]
    feed = {"noise": noise_of(model, 5), "label": np.arange(5) % 3}
    np.testing.assert_array_equal(draw(tmp_path / "all.onnx", **feed), draw(tmp_path / "split.onnx", **feed))
    with pytest.raises(InputError, match=r"split\.onnx is there already"):
        export_onnx(model, tmp_path / "split.onnx")
    (tmp_path / "split.onnx").unlink()
    with pytest.raises(InputError, match=r"split\.onnx\.data is there already"):
        export_onnx(model, tmp_path / "split.onnx")
    (tmp_path / "link.onnx").symlink_to("nowhere.onnx")
    with pytest.raises(InputError, match=r"link\.onnx is there already"):
        export_onnx(model, tmp_path / "link.onnx")


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_onnx(model_of(MLP(num_classes=3)), tmp_path / f"{name}.onnx", steps=1)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


class Sorting(MLP):
    """A network with an operation that is not translated."""

    def apply(self, params: Any, x: Any, t: Any, d: Any, label: Any) -> Any:
        return jax.numpy.sort(super().apply(params, x, t, d, label), axis=1)


def test_nothing_is_left_of_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(told: str, model: Model, **settings: Any) -> None:
        with pytest.raises(InputError, match=told):
            export_onnx(model, tmp_path / "new" / "x.onnx", **settings)
        assert not list(tmp_path.iterdir())  # Not even the folder that was made for it.

    model = model_of(MLP(num_classes=3))
    refused("its operation sort has no counterpart", model_of(Sorting(num_classes=3)))
    refused("steps is 0", model, steps=0)
    refused("steps is 10000000000, but sampling takes at most 1,000,000", model, steps=10**10)
    refused("makes no latents, which a decoder would take: leave --decode out", model, decode=True)
    refused(
        "guidance is 2.0, but this model was trained without labels",
        model_of(MLP(num_classes=3), FlowMatching(label_dropout=1.0)),
        guidance=2.0,
    )

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(InputError, match=r"new/x\.stablehlo: no space left"):
        patched.setattr(Path, "write_bytes", full)
        export_stablehlo(model, tmp_path / "new" / "x.stablehlo")
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
    refused("answers otherwise than this model, by .* so that nothing was written", model, steps=64)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    refused("the package onnxruntime is needed to write .onnx files: pip install", model)


@pytest.mark.parametrize(("objective", "guidance", "renoises"), [(Shortcut(), 2.0, False), (Consistency(), 1.0, True)])
def test_stablehlo_answers_as_the_model_does(objective: Any, guidance: float, renoises: bool, tmp_path: Path) -> None:
    model = model_of(MLP(num_classes=3), objective)
    export_stablehlo(model, tmp_path / "x.stablehlo", steps=3, guidance=guidance)
    program = jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    noise, labels = noise_of(model, 5), np.arange(5) % 3
    found = program.call(noise, labels.astype(np.int32), *([np.uint32(9)] if renoises else []))
    near(np.asarray(found), model.sample(labels, 3, guidance, seed=9, noise=noise))
    with pytest.raises(InputError, match=r"x\.stablehlo is there already"):
        export_stablehlo(model, tmp_path / "x.stablehlo")


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits.ONNX"
    assert cli.main(["export", str(trained), str(out), "--steps", "2", "--weights", "raw"]) == 0
    assert "sampler of 2 steps" in capsys.readouterr().out
    model = load(trained, "raw")
    noise, labels = noise_of(model, 3), np.array([0, 4, 9])
    near(draw(out, noise=noise, label=labels), model.sample(labels, 2, noise=noise))


SERVED = """
import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
print(sorted({name.split(".")[0] for name in sys.modules} & {"jax", "shortcut_models", "scipy"}))
"""


def serve(*words: object) -> subprocess.CompletedProcess[str]:
    """The example, as a program that has never heard of us."""
    example = Path(__file__).parents[2] / "examples" / "serve_onnx.py"
    command = [sys.executable, "-c", SERVED, str(example), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_example_draws_what_the_model_does_without_it(tmp_path: Path) -> None:
    model = model_of()
    export_onnx(model, tmp_path / "x.onnx", steps=2)
    done = serve(tmp_path / "x.onnx", tmp_path / "out.npz", 12)
    assert re.fullmatch(r"onnxruntime: 12 samples in \d+\.\d+ s\n\[\]\n", done.stdout), done
    found = np.load(tmp_path / "out.npz")
    labels = np.arange(12) % 10
    noise = np.random.default_rng(0).standard_normal((12, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(found["labels"], labels)
    expected = np.clip(127.5 * (model.sample(labels, 2, noise=noise) + 1), 0, 255)
    np.testing.assert_allclose(found["images"], expected, atol=0.51)


def test_the_example_measures_itself_against_the_run_that_it_is_of(trained: Path, tmp_path: Path) -> None:
    export_onnx(load(trained, "raw"), tmp_path / "x.onnx", steps=2, guidance=1.23456789)
    done = serve(tmp_path / "x.onnx", tmp_path / "out.npz", 3, trained)
    *_, ours, told, _ = done.stdout.splitlines() or [done.stderr]
    assert ours.startswith("shortcut-models: 3 samples in "), done
    found = re.fullmatch(r"onnxruntime takes \d+\.\d\d of its time; largest difference (.+)", told)
    assert found and float(found[1]) < 1e-4, told
    done = serve(tmp_path / "x.onnx", tmp_path / "out.npz", 3, tmp_path / "nowhere")
    assert done.returncode == 1 and "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_the_example_says_how_it_is_run_and_what_it_cannot_read(tmp_path: Path) -> None:
    for words in ([], ["x.onnx", "out.npz", "many"], ["x.onnx", "out.npz", "0"]):
        assert "FILE.onnx OUT.npz [COUNT [RUN]]" in serve(*words).stderr
    done = serve(tmp_path / "x.onnx", tmp_path / "out.npz")
    assert done.returncode == 1 and "x.onnx cannot be read: " in done.stderr and "Traceback" not in done.stderr
    export_onnx(model_of(), tmp_path / "x.onnx", steps=1)
    foreign = onnx.load(tmp_path / "x.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "x.onnx")
    done = serve(tmp_path / "x.onnx", tmp_path / "out.npz")
    assert done.returncode == 1 and done.stderr.endswith(
        "x.onnx is no sampler that `shortcut export` wrote: it does not say its num_classes.\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x.onnx", "--dtype", "bfloat16"], "--dtype bfloat16 is for model folders"),
        (["x.onnx", "--steps", "0"], "--steps is 0"),
        (["folder", "--steps", "2"], "--steps is for samplers, but folder ends with neither .onnx nor .stablehlo"),
        (["folder", "--decode"], "--decode is for samplers"),
        (["x.pt"], "x.pt is no file that export writes: name a folder, or FILE.onnx or FILE.stablehlo"),
        ([".onnx"], ".onnx is no file that export writes"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    words: list[str],
    told: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", str(trained), *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
