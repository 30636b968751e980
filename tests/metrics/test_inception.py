"""Inception against the programs that define FID, with weights from a recipe; and files that are not Inception's."""

import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from shortcut_models import InputError
from shortcut_models.data.pixels import to_network
from shortcut_models.metrics import Inception
from shortcut_models.metrics.features import inception
from shortcut_models.metrics.features.inception import SHA256, InceptionFeatures, find_inception
from shortcut_models.metrics.features.inception_shapes import SHAPES
from shortcut_models.metrics.features.protocols import find_protocol, resize_matrix

GOLDEN = Path(__file__).parents[1] / "golden"
LAYOUT: dict[str, list[int]] = json.loads((GOLDEN / "inception_layout.json").read_text())
IMAGES = dict(np.load(GOLDEN / "metrics" / "images.npz"))


def weight(name: str, shape: list[int], seed: int) -> np.ndarray:
    """A tensor as the golden runs had it."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    if name.endswith("running_var") or (len(shape) == 1 and not name.endswith(("running_mean", "bias"))):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(("running_mean", "bias")):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return (rng.standard_normal(shape) * np.sqrt(1.5 / int(np.prod(shape[1:])))).astype(np.float32)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    found = {name: weight(name, shape, int(IMAGES["weights_seed"])) for name, shape in LAYOUT.items()}
    return found | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros(1, np.int64)}


@pytest.fixture(scope="module")
def file(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def network(file: Path) -> Inception:
    return Inception.load(file, check_hash=False)


def test_the_tensors_are_those_of_the_published_file() -> None:
    assert {name: tuple(shape) for name, shape in LAYOUT.items()} == SHAPES


@pytest.mark.parametrize(("protocol", "golden"), [("paper", "original"), ("adm", "adm"), ("clean", "clean")])
def test_pool_features_are_those_of_the_programs(network: Inception, protocol: str, golden: str) -> None:
    picked = IMAGES["picked"]
    found = network.features(IMAGES["images"][picked], protocol)
    assert {name: array.shape for name, array in found.items()} == {
        "pool": (4, 2048),
        "spatial": (4, 2023),
        "logits": (4, 1008),
        "logits_unbiased": (4, 1008),
    }
    np.testing.assert_allclose(found["pool"][:, ::8], IMAGES[f"{golden}_pool"][picked], atol=2e-6)
    np.testing.assert_allclose(found["pool"].mean(axis=1), IMAGES[f"{golden}_mean"][picked], atol=2e-6)
    np.testing.assert_allclose(found["pool"].std(axis=1), IMAGES[f"{golden}_std"][picked], atol=2e-6)
    if protocol == "adm":
        for name in ("spatial", "logits", "logits_unbiased"):
            np.testing.assert_allclose(found[name], IMAGES[f"adm_{name}"], atol=1e-5)


def test_the_paper_takes_floats_as_they_are_and_clips_after_its_resize(network: Inception) -> None:
    found = network.features(IMAGES["decoded"], "paper")["pool"]
    np.testing.assert_allclose(found[:, ::8], IMAGES["original_decoded_pool"], atol=2e-6)


def test_batches_change_nothing_and_bytes_are_rounded(network: Inception, monkeypatch: pytest.MonkeyPatch) -> None:
    images = IMAGES["images"][IMAGES["picked"]]
    whole = network.features(images, "adm")
    near = to_network(images) + np.float32(0.4 / 127.5)
    np.testing.assert_array_equal(network.features(near, "adm")["pool"], whole["pool"])
    monkeypatch.setattr(inception, "BATCH", 4)
    seven = np.concatenate([images, images[:3]])
    np.testing.assert_array_equal(
        network.features(seven, "adm")["pool"], np.concatenate([whole["pool"], whole["pool"][:3]])
    )


@pytest.mark.parametrize(
    ("protocol", "golden", "tolerance"),
    [("adm", "adm_resized", 2e-3), ("clean", "clean_resized", 1e-3), ("paper", "original_resized", 2e-5)],
)
def test_resizes_are_those_of_the_programs(protocol: str, golden: str, tolerance: float) -> None:
    matrix = resize_matrix(find_protocol(protocol).resize, 40).astype(np.float64)
    given = IMAGES["images"][:2].astype(float)
    if protocol == "paper":
        given = np.concatenate([given / 127.5 - 1, IMAGES["decoded"][:1]])
    found = np.einsum("ih,jw,nhwc->nijc", matrix, matrix, given, optimize=True)
    clip = find_protocol(protocol).clip
    found = np.clip(found, *clip) if clip else found
    np.testing.assert_allclose(found[:, ::13, ::13], IMAGES[golden], atol=tolerance)


@pytest.mark.parametrize("size", [64, 299, 301, 512])
@pytest.mark.parametrize("kind", ["centres", "corner", "bicubic"])
def test_a_resize_keeps_what_is_constant(kind: str, size: int) -> None:
    matrix = resize_matrix(kind, size)
    assert matrix.shape == (299, size)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    if size == 299:
        np.testing.assert_array_equal(matrix, np.eye(299))


@pytest.mark.parametrize("size", [31, 512, 700])
def test_the_bicubic_resize_is_pillows(size: int) -> None:
    from PIL import Image

    given = np.random.default_rng(0).uniform(0, 255, (size, size)).astype(np.float32)
    expected = np.asarray(Image.fromarray(given).resize((299, 299), Image.Resampling.BICUBIC))
    matrix = resize_matrix("bicubic", size).astype(np.float64)
    np.testing.assert_allclose(matrix @ given @ matrix.T, expected, atol=1e-3)


@pytest.mark.parametrize("size", [81, 256, 320])
def test_the_papers_resize_is_that_of_jax_to_the_last_bits(size: int) -> None:
    # By places in float64 it would be off by 3e-5 of a pixel at 320, and spatial features by more than 2e-5.
    eye = np.eye(size, dtype=np.float32)
    expected = jax.image.resize(eye, (299, size), "bilinear", antialias=False)
    np.testing.assert_allclose(resize_matrix("centres", size), expected, rtol=0, atol=1e-7)


def test_another_file_than_the_published_one_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match=r"is not the published Inception .* --any-inception takes it all the same"):
        Inception.load(file)
    assert SHA256.startswith("6726825d0af5f729")
    assert SHA256.endswith("9fb9129b2")
    assert len(SHA256) == 64


class Removes:
    """What removes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.remove, (str(self.path),)


def test_files_that_are_not_inceptions_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    path = tmp_path / "weights.safetensors"
    for changed, words in (
        ({"fc.bias": None}, "lacks Inception's tensor fc.bias: give the published file"),
        ({"fc.bias": None, "fc.weight": None}, "lacks Inception's tensor fc.weight and 1 more"),
        ({"fc.bias": np.full(1008, np.nan, np.float32)}, "holds NaN or infinite numbers in fc.bias"),
        (
            {"fc.weight": np.zeros((1000, 2048), np.float32)},
            r"has fc.weight of shape \(1000, 2048\), but Inception's is",
        ),
        (
            {"fc.bias": np.zeros(1000, np.float32)},
            r"has fc.bias of shape \(1000,\), but Inception's is \(1008,\): give",
        ),
        (
            {"Mixed_7b.branch1x1.bn.bias": np.zeros(1, np.float32)},
            r"has Mixed_7b.branch1x1.bn.bias of shape \(1,\), but",
        ),
        (
            {"Mixed_6a.branch3x3.bn.running_var": np.full(384, -1, np.float32)},
            "variances below zero in Mixed_6a.branch3x3.bn.running_var: it is damaged",
        ),
    ):
        save_file({name: a for name, a in {**tensors, **changed}.items() if a is not None}, path)
        with pytest.raises(InputError, match=words):
            Inception.load(path, check_hash=False)
    weights = path.with_suffix(".pth")
    weights.write_bytes(pickle.dumps({"fc.bias": Removes(path)}, 2))
    with pytest.raises(InputError, match=r"cannot be read \(.*\): download pt_inception-2015-12-05-6726825d.pth again"):
        Inception.load(weights, check_hash=False)
    assert path.exists()
    weights.write_bytes(b"")
    with pytest.raises(InputError, match=f"^{weights} is empty: download pt_inception-2015-12-05-6726825d.pth again.$"):
        Inception.load(weights, check_hash=False)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        Inception.load(path, check_hash=False)
    with pytest.raises(InputError, match="cannot be read for Inception's weights: No such file"):
        Inception.load(tmp_path / "none.safetensors")


def test_the_weights_are_looked_for_where_they_are_told_to_be(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SHORTCUT_INCEPTION", raising=False)
    with pytest.raises(
        InputError, match=r"the weights of Inception are not in .*hub/checkpoints: download pt_inception"
    ):
        find_inception()
    asked: list[tuple[Path, bool]] = []
    load = Inception.load
    monkeypatch.setattr(inception, "_LOADED", {})
    monkeypatch.setattr(
        Inception, "load", lambda path, check_hash: asked.append((path, check_hash)) or load(file, check_hash=False)
    )
    hub = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    hub.parent.mkdir(parents=True)
    hub.touch()
    find_inception()
    monkeypatch.setenv("SHORTCUT_INCEPTION", str(file))
    first = find_inception(any_file=True)
    assert find_inception(file, any_file=True) is first  # Read once.
    assert asked == [(hub, True), (file, False)]


def test_images_that_are_not_rgb_are_refused_and_grey_samples_become_so(network: Inception) -> None:
    grey = IMAGES["images"][:2, ..., :1]
    with pytest.raises(InputError, match=r"images have shape \(2, 40, 40, 1\), but Inception takes one or more as"):
        network.features(grey, "adm")
    with pytest.raises(InputError, match="protocol 'fidelity' is unknown: the protocols are paper, adm, clean"):
        network.features(IMAGES["images"][:1], "fidelity")
    with pytest.raises(InputError, match="needs the weights of Inception: give --inception FILE"):
        InceptionFeatures(protocol="adm")(grey)


def test_images_may_lie_in_memory_in_any_way(network: Inception) -> None:
    images = IMAGES["images"][:2]
    turned, floats = np.ascontiguousarray(images[:, ::-1, :, ::-1])[:, ::-1, :, ::-1], to_network(images)
    for protocol in ("paper", "adm"):
        whole = network.features(images, protocol)["pool"]
        for same in (turned, np.asfortranarray(images), list(images), floats.astype(float), floats.astype(">f4")):
            np.testing.assert_array_equal(network.features(same, protocol)["pool"], whole)
        np.testing.assert_array_equal(network.features(images[:1], protocol)["pool"], whole[:1])
        half = floats.astype(np.float16)
        np.testing.assert_array_equal(
            network.features(half, protocol)["pool"], network.features(half.astype(np.float32), protocol)["pool"]
        )


def test_what_are_no_images_is_refused(network: Inception) -> None:
    images = IMAGES["images"][:2]
    nan = to_network(images)
    nan[1, 3, 3, 0] = np.nan
    for wrong, words in (
        (images.astype(int), "images have the type int64, but must be uint8, or floats in"),
        (images > 9, "images have the type bool"),
        (images.astype(np.float32), "images are floats between 0 and 255, but must lie in about"),
        (nan, "hold NaN or infinite numbers"),
        (images[:, :0], r"images have shape \(2, 0, 40, 3\), but Inception takes one or more"),
        (images[0], r"images have shape \(40, 40, 3\), but"),
        (images[:0], r"images have shape \(0, 40, 40, 3\), but"),
        (images[..., [0, 1, 2, 0]], r"images have shape \(2, 40, 40, 4\), but"),
        ([images[0], images[1, :9]], "images of several sizes are no array"),
    ):
        for protocol in ("paper", "adm"):
            with pytest.raises(InputError, match=words):
                network.features(wrong, protocol)
