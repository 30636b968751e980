"""`shortcut import` and `load`: the model folder answers what the source's own code answered."""

import json
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, cli

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = dict(np.load(GOLDEN / "official_dit.npz"))


def numbers(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / f"weights/{name}.npz"))


def last(images: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(images, np.float32), 1, -1)


def imported(out: Path, file: str, *words: object) -> shortcut_models.Model:
    assert cli.main(["import", str(GOLDEN / "weights" / file), str(out), *map(str, words)]) == 0
    return shortcut_models.load(out)


def assert_close(found: Any, expected: np.ndarray, within: float = 1e-5) -> None:
    assert np.abs(expected).max() > 0.5  # Not a comparison of zeros.
    assert np.abs(np.asarray(found) - expected).max() < within * np.abs(expected).max()


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state: dict[str, Any] = {"params": {}, "params_ema": {}, "step": np.asarray(4321, np.int32)}
    for path, array in OFFICIAL.items():
        top, *inner = path.split("/")
        if inner:
            node = state[top]
            for part in inner[:-1]:
                node = node.setdefault(part, {})
            node[inner[-1]] = array
    file = tmp_path_factory.mktemp("official") / "model.ckpt"
    file.write_bytes(pickle.dumps({"train_state": state}))
    return file


def test_sit_answers_as_it_did(tmp_path: Path) -> None:
    g = numbers("sit_tiny")
    model = imported(tmp_path / "sit", "sit_tiny.pt", "--num-heads", 2)
    with jax.default_matmul_precision("highest"):
        assert_close(model.velocity(last(g["x"]), g["t"], 0.125, g["y"]), last(g["velocity_ema"]))
    assert (model.weights, model.data.codec.identity, model.num_classes) == ("ema", "", 5)
    assert model.objective.jumps(4).d.tolist() == [0.0] * 4  # A flow is not told the step.


def test_meanflow_jumps_as_it_did(tmp_path: Path) -> None:
    g = numbers("meanflow_tiny")
    model = imported(tmp_path / "meanflow", "meanflow_tiny.pt", "--num-heads", 2)
    with jax.default_matmul_precision("highest"):
        assert_close(-model.velocity(last(g["x"]), 1 - g["t"], g["t"] - g["r"], g["y"]), last(g["u_ema"]))
        assert_close(model.sample(g["labels"], steps=2, noise=last(g["noise"])), last(g["sampled_2"]))
    assert model.step == 400_000
    assert json.loads((tmp_path / "meanflow/config.json").read_text())["codec"]["scale"] == 0.18125


def test_dit_is_a_velocity_and_samples_as_ddim(tmp_path: Path) -> None:
    g = numbers("dit_tiny")
    model = imported(tmp_path / "dit", "dit_tiny.pt", "--num-heads", 4)
    with jax.default_matmul_precision("highest"):
        assert_close(
            model.velocity(last(g["straight_z"]), g["straight_t"], 0.0, g["y"]), last(g["straight_velocity"]), 1e-4
        )
        assert_close(model.sample(g["labels"], steps=4, noise=last(g["noise"])), last(g["ddim_4"]), 1e-4)


def test_the_official_codes_checkpoint_loads_by_either_way(official: Path, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {name: int(OFFICIAL[name]) for name in ("num_heads", "image_size")}
    flags = [word for name, size in sizes.items() for word in (f"--{name.replace('_', '-')}", str(size))]
    assert cli.main(["import", str(official), str(tmp_path / "out"), *flags, "--weights", "raw"]) == 0
    given = OFFICIAL["x"], OFFICIAL["t"], 2.0 ** -OFFICIAL["log2_steps"], OFFICIAL["labels"]
    with jax.default_matmul_precision("highest"):
        raw, averaged = shortcut_models.load(tmp_path / "out"), shortcut_models.load(official, **sizes)
        assert_close(raw.velocity(*given), OFFICIAL["velocity"])
        assert_close(averaged.velocity(*given), OFFICIAL["velocity_ema"])
    assert (raw.step, raw.weights, averaged.weights) == (4321, "raw", "ema")


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("naive", "flow-matching"),
        ("livereflow", "live-reflow"),
        ("consistency_distillation", "consistency-distillation"),
        ("progressive", "progressive"),
    ],
)
def test_a_training_type_is_sampled_as_ours_is(official: Path, tmp_path: Path, kind: str, objective: str) -> None:
    heads, side = (str(int(OFFICIAL[name])) for name in ("num_heads", "image_size"))
    flags = ["--num-heads", heads, "--image-size", side, "--train-type", kind]
    assert cli.main(["import", str(official), str(tmp_path / "out"), *flags]) == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["objective"]["kind"] == objective


def test_a_side_that_no_patches_fill_is_refused(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", str(official), str(tmp_path / "out"), "--num-heads", "4", "--image-size", "7"]) == 2
    assert "image_size 7 is no multiple of the side of its patches, 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_imported_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", str(GOLDEN / "weights/sit_tiny.pt"), str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "give num_heads (`shortcut import --num-heads`; " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    assert cli.main([*words, "--num-heads", "2"]) == 2
    assert "is there already" in capsys.readouterr().err
    for name in ("x.onnx", "x.SAFETENSORS"):
        assert cli.main([*words[:2], str(tmp_path / name), "--num-heads", "2"]) == 2
        assert f"{name} is named like a file, but import writes a model folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(InputError, match="shortcut import"):
        shortcut_models.load(GOLDEN / "weights/sit_tiny.pt")


def test_what_is_ours_needs_no_import(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shortcut_models.save_pretrained(shortcut_models.load(trained), tmp_path / "model")
    for source, told in (
        (tmp_path / "model", "is a model folder already: use it as it is"),
        (trained, "is a run: use it as it is, or make a model folder of it with `shortcut export`"),
    ):
        assert cli.main(["import", str(source), str(tmp_path / "out")]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
