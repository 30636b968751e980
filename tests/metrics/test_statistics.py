"""Files of reference statistics, and the metrics that read Inception's features, by a network that is quick."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick import POOL, SPATIAL, Noise, Quick

from shortcut_models import InputError, catalogue
from shortcut_models.evaluate import evaluate
from shortcut_models.metrics import (
    density_coverage,
    frechet,
    inception_score,
    kid,
    precision_recall,
    references,
    scores,
    statistics,
)
from shortcut_models.metrics.base import Metric, Reference
from shortcut_models.metrics.features import inception
from shortcut_models.metrics.features.inception import Inception, InceptionFeatures
from shortcut_models.metrics.gaussian import bias, fit_gaussian, frechet_distance, frechet_infinity
from shortcut_models.metrics.inception import IS_ADM, IS_FIDELITY, MEMORISATION
from shortcut_models.metrics.measure import Measurement
from shortcut_models.metrics.statistics import read_stats, reference_images, reference_of, stats

RNG = np.random.default_rng(0)


class Model:
    """Floats that reach past [-1, 1], as a decoder's do."""

    num_classes = 5

    def __init__(self) -> None:
        self.labels: list[np.ndarray] = []

    def sample(self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int) -> np.ndarray:
        self.labels.append(labels)
        rngs = [np.random.default_rng([seed, i]) for i in range(first, first + len(labels))]
        return np.stack([rng.uniform(-1.1, 1.1, (4, 4, 3)) for rng in rngs]).astype(np.float32) / steps * guidance

    def decode(self, x: np.ndarray) -> np.ndarray:
        return x


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    network = Quick()
    found = lambda file, any_file: network  # noqa: ARG005, E731
    monkeypatch.setattr(inception, "find_inception", found)
    monkeypatch.setattr(statistics, "find_inception", found)
    monkeypatch.setattr(statistics, "ARRAYS", {"pool": ("mu", "sigma", POOL), "spatial": ("mu_s", "sigma_s", SPATIAL)})
    return network


def metric_of(name: str) -> Metric:
    metric: Metric = catalogue.find("metric", catalogue.METRICS, name)
    return replace(metric, features=metric.features.ready(None, False))


def train_features(network: Inception, protocol: str) -> dict[str, np.ndarray]:
    return network.features(Noise().open().arrays["image"], protocol)


@pytest.mark.parametrize("protocol", ["paper", "adm", "clean"])
def test_statistics_are_those_of_all_training_images_and_say_how_they_were_made(
    protocol: str, tmp_path: Path, quick: Quick
) -> None:
    about = stats(Noise(), tmp_path / "stats.npz", protocol)
    assert about["count"] == 60
    assert (about["protocol"], about["inception"], about["data"]) == (protocol, quick.sha256, "noise")
    found, features = dict(np.load(tmp_path / "stats.npz")), train_features(quick, protocol)
    for array, mean, sigma in (("pool", "mu", "sigma"), ("spatial", "mu_s", "sigma_s")):
        np.testing.assert_allclose(found[mean], features[array].astype(float).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            found[sigma], np.cov(features[array].astype(float), rowvar=False), rtol=1e-9, atol=1e-12
        )
        assert found[mean].dtype == found[sigma].dtype == np.float64
    known = read_stats(tmp_path / "stats.npz", protocol)
    assert (known.count, known.about) == (60, about)


def test_statistics_are_kept_but_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "stats.npz"
    about = stats(Noise(), out, "adm")
    before = out.stat().st_mtime_ns
    assert stats(Noise(), out, "adm") == about
    assert out.stat().st_mtime_ns == before
    for data, protocol in ((Noise(name="other"), "adm"), (Noise(), "clean")):
        with pytest.raises(InputError, match="holds other statistics: choose another file, or remove it"):
            stats(data, out, protocol)
    with pytest.raises(InputError, match="protocol 'fid' is unknown: the protocols are paper, adm, clean"):
        stats(Noise(), tmp_path / "more.npz", "fid")


def test_a_file_gives_the_number_that_the_data_give(tmp_path: Path, quick: Quick) -> None:
    for protocol in ("adm", "clean"):
        stats(Noise(), tmp_path / f"{protocol}.npz", protocol)
        names = [f"fid-{protocol}"] + ["sfid-adm"] * (protocol == "adm")
        by_file = evaluate(Model(), Noise(), [1], 30, metrics=names, stats=tmp_path / f"{protocol}.npz").report
        by_data = evaluate(Model(), Noise(), [1], 30, metrics=names).report
        for kind in ("steps", "real", "ratio"):
            assert json.dumps(by_file[kind])[:12] == json.dumps(by_data[kind])[:12]
        assert by_file["steps"]["1"] == pytest.approx(by_data["steps"]["1"], rel=1e-9)
        assert by_file["real"] == pytest.approx(by_data["real"], rel=1e-9)
        assert by_file["about"]["reference"][f"fid-{protocol}"] == f"statistics of {protocol}.npz"
        images = np.clip(np.round((Model().sample(np.arange(30), 1, 1.0, 0, first=0) + 1) * 127.5), 0, 255)
        expected = frechet(
            quick.features(images.astype(np.uint8), protocol)["pool"], train_features(quick, protocol)["pool"]
        )
        assert by_data["steps"]["1"][f"fid-{protocol}-30"] == pytest.approx(expected, rel=1e-9)
        assert by_data["ratio"]["1"][f"fid-{protocol}-30"] == pytest.approx(
            expected / by_data["real"][f"fid-{protocol}-30"]
        )


def test_an_fid_stands_beside_what_a_perfect_model_would_get(quick: Quick) -> None:
    report = evaluate(Model(), Noise(), [1], 30, metrics=["fid-adm", "kid"]).report
    expected = bias(fit_gaussian(train_features(quick, "adm")["pool"]), 30)
    assert report["perfect"] == {"fid-adm-30": pytest.approx(expected)}
    few = evaluate(Model(), Noise(), [1], 20, metrics=["fid-adm"]).report
    assert few["about"]["perfect"].endswith(
        "to first order in 1 / N: too low below 24 samples, twice the features of fid-adm"
    )
    assert report["about"]["perfect"].endswith("to first order in 1 / N")


def test_the_paper_measures_floats_as_they_are_with_random_labels_and_its_offset(quick: Quick) -> None:
    model = Model()
    report = evaluate(model, Noise(), [1], 30, metrics=["fid-paper"]).report
    floats = Model().sample(np.arange(30), 1, 1.0, 0, first=0)
    real, fake = (fit_gaussian(a["pool"]) for a in (train_features(quick, "paper"), quick.features(floats, "paper")))
    expected = frechet_distance(fake, real, offset=1e-6)
    assert report["steps"]["1"]["fid-paper-30"] == pytest.approx(expected, rel=1e-9)
    assert abs(expected - frechet_distance(fake, real)) > 1e-6
    assert report["about"]["labels"] == "random"
    assert (np.concatenate(model.labels) != np.arange(30) % 5).any()
    with pytest.raises(InputError, match=r"takes .* labels but .* takes .* labels: say which labels to take"):
        evaluate(Model(), Noise(), [1], 30, metrics=["fid-paper", "fid-adm"])
    both = evaluate(Model(), Noise(), [1], 30, metrics=["fid-paper", "fid-adm"], labels="balanced").report
    assert list(both["steps"]["1"]) == ["fid-paper-30", "fid-adm-30"]


def test_statistics_of_another_protocol_or_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "adm.npz"
    stats(Noise(), path, "adm")
    with pytest.raises(InputError, match="was made under the protocol adm, not clean"):
        read_stats(path, "clean")
    with pytest.raises(InputError, match=r"fid-clean prepares images as the protocol clean, but .* under adm"):
        evaluate(Model(), Noise(), [1], 30, metrics=["fid-clean"], stats=path)
    other = replace(metric_of("fid-adm"), features=InceptionFeatures(protocol="adm", network=Quick("1" * 64)))
    with pytest.raises(InputError, match="was made with another Inception"):
        reference_of(read_stats(path), other)
    with pytest.raises(InputError, match="serves none of frechet-pixels: choose metrics such as fid-adm"):
        evaluate(Model(), Noise(), [1], 30, metrics=["frechet-pixels"], stats=path)


def test_statistics_of_other_programs_are_read_under_the_protocol_that_is_said(tmp_path: Path) -> None:
    path, whole = tmp_path / "foreign.npz", {"mu": np.zeros(POOL), "sigma": np.eye(POOL)}
    np.savez(path, **whole, arr_0=np.zeros((3, 4, 4, 3), np.uint8))
    found = read_stats(path, "adm")
    assert (found.protocol, found.count, set(found.gaussians)) == ("adm", 0, {"pool"})
    assert reference_of(found, metric_of("sfid-adm")) is None
    assert reference_of(found, metric_of("kid")) is None
    with pytest.raises(
        InputError, match="does not say which protocol it was made under: say --stats-protocol paper, adm or clean"
    ):
        read_stats(path)
    for changed, words in (
        ({"mu": np.full(POOL, 1e200)}, r"holds numbers beyond 1e\+30 in mu"),
        ({"mu": np.zeros(5)}, r"has mu of shape \(5,\), but Inception's is \(12,\): give statistics of its"),
        ({"sigma": np.full((POOL, POOL), np.nan)}, "holds NaN or infinite numbers in sigma"),
        ({"sigma": None}, "lacks the array sigma"),
        ({"mu": None}, "lacks the array mu"),
    ):
        given: dict[str, Any] = {name: a for name, a in {**whole, **changed}.items() if a is not None}
        np.savez(path, **given)
        with pytest.raises(InputError, match=words):
            read_stats(path, "adm")
    path.write_bytes(b"no archive")
    with pytest.raises(
        InputError, match=r"cannot be read \(it is no zip, or a damaged one\): make or download it again"
    ):
        read_stats(path, "adm")
    for name, words in (("none.npz", "No such file"), ("", "it is a folder")):
        with pytest.raises(InputError, match=f"cannot be read for statistics: {words}"):
            read_stats(tmp_path / name, "adm")


def test_companions_are_the_public_functions(quick: Quick) -> None:
    names = ["kid", "pr-adm", "prdc", "is-adm", "is-fidelity"]
    found = evaluate(Model(), Noise(), [1], 30, metrics=names).report["steps"]["1"]
    images = np.clip(np.round((Model().sample(np.arange(30), 1, 1.0, 0, first=0) + 1) * 127.5), 0, 255)
    fake = quick.features(images.astype(np.uint8), "adm")
    pair = fake["pool"], train_features(quick, "adm")["pool"]
    precision, recall = precision_recall(*pair, k=3)
    density, coverage = density_coverage(*pair, k=5)
    shuffled = fake["logits_unbiased"][np.random.RandomState(2020).permutation(30)]
    mean, deviation = inception_score(shuffled, 10)
    assert found == pytest.approx(
        {
            "kid-30": kid(*pair),
            "precision-adm-30": precision,
            "recall-adm-30": recall,
            "density-30": density,
            "coverage-30": coverage,
            "is-adm-30": inception_score(fake["logits_unbiased"], 1)[0],
            "is-fidelity-30": mean,
            "is-fidelity-deviation-30": deviation,
        },
        rel=1e-9,
    )


@pytest.mark.parametrize("chunk", [3, 10, 100])
def test_the_score_in_chunks_is_streamed(chunk: int) -> None:
    logits = RNG.standard_normal((47, 6)).astype(np.float32)
    metric, none = replace(IS_ADM, size=10), Reference("", 0, {})
    sums = metric.empty()
    for start in range(0, 47, chunk):
        sums = metric.add(sums, {"logits_unbiased": logits[start : start + chunk]}, np.zeros(0))
        assert len(sums["waiting"]) < 10
    assert metric.value(sums, none) == pytest.approx(scores.chunked_score(logits, 10), rel=1e-12)
    assert metric.value(metric.add(metric.empty(), {"logits_unbiased": logits[:20]}, np.zeros(0)), none) == (
        pytest.approx(scores.chunked_score(logits[:20], 10), rel=1e-12)
    )
    assert IS_FIDELITY.rows == ("logits_unbiased",)


def test_fid_infinity_is_against_all_real_images(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "DRAWN", 20)  # Of more, metrics that keep every feature take a part.
    report = evaluate(Model(), Noise(name="infinity"), [1], 40, metrics=["fid-infinity", "kid"]).report
    images = np.clip(np.round((Model().sample(np.arange(40), 1, 1.0, 0, first=0) + 1) * 127.5), 0, 255)
    fake, real = quick.features(images.astype(np.uint8), "adm")["pool"], train_features(quick, "adm")["pool"]
    assert report["steps"]["1"]["fid-infinity-40"] == pytest.approx(frechet_infinity(fake, fit_gaussian(real)))
    counts = {name: int(what.split()[0]) for name, what in report["about"]["reference"].items()}
    assert counts == {"fid-infinity": 60, "kid": 20}


def test_memorisation_finds_copies() -> None:
    real = RNG.standard_normal((50, 9)).astype(np.float32)
    copies = real[:8] + np.float32(1e-3)
    others = RNG.standard_normal((12, 9)).astype(np.float32)
    found: dict[str, Any] = MEMORISATION.values(
        {"pool": np.concatenate([copies, others])}, Reference("", 50, {"pool": real}), 20
    )
    near = np.sort(np.linalg.norm(np.concatenate([copies, others])[:, None] - real, axis=-1), axis=1)
    assert found == pytest.approx(
        {
            "memorisation-distance-of-50-20": np.median(near[:, 0]),
            "memorisation-share-of-50-20": np.mean(near[:, 0] < near[:, 1] / 3),
        },
        rel=1e-5,
    )
    assert found["memorisation-share-of-50-20"] == 8 / 20


def test_grey_samples_are_taken_as_rgb(quick: Quick) -> None:
    grey = RNG.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    found = InceptionFeatures(protocol="adm", network=quick)(grey)
    np.testing.assert_array_equal(found["pool"], quick.features(np.repeat(grey, 3, axis=-1), "adm")["pool"])


def test_a_measurement_computes_inceptions_features_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [], Quick.features
    monkeypatch.setattr(Quick, "features", lambda *given: calls.append(1) or plain(*given))
    measurement = Measurement([metric_of(name) for name in ("fid-adm", "sfid-adm", "kid", "is-adm", "prdc")])
    measurement.add(RNG.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8), np.zeros(6, int))
    assert calls == [1]


@pytest.mark.parametrize("kind", ["is not symmetric", "has variances below zero"])
def test_what_is_no_covariance_is_refused(tmp_path: Path, kind: str) -> None:
    sigma = np.eye(POOL, dtype=np.float32)
    if kind == "is not symmetric":
        sigma[3, 4] = 5
    else:
        sigma = -sigma
    np.savez(tmp_path / "stats.npz", mu=np.zeros(POOL), sigma=sigma)
    with pytest.raises(InputError, match=f"stats.npz has a sigma that {kind}, so it is no covariance"):
        read_stats(tmp_path / "stats.npz", "adm")


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"inception": 5}, "its inception is 5, but must be text"),
        ({"protocol": "foo"}, 'its protocol is "foo", but must be one of paper, adm, clean'),
        ({"count": -3}, "its count is -3, but must be a whole number from 2 up"),
        ({"count": True}, "its count is true, but"),
        ({"grey": "no"}, 'its grey is "no", but must be true or false'),
        ({"data": [1]}, r"its data is \[1\], but must be text"),
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path: Path, fact: dict[str, Any], words: str) -> None:
    path = tmp_path / "stats.npz"
    about = json.dumps({"protocol": "adm", "count": 3} | fact)
    np.savez(path, mu=np.zeros(POOL), sigma=np.eye(POOL), about=np.array(about))
    with pytest.raises(
        InputError, match=rf"^{path} does not say of itself what .* writes \({words}.*\): make it again"
    ):
        read_stats(path, "adm")


def test_damaged_images_in_a_file_of_statistics_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "adm.npz"
    images = RNG.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    np.savez(path, mu=np.zeros(POOL), sigma=np.eye(POOL), arr_0=images)
    found = reference_images(path)
    assert found is not None
    np.testing.assert_array_equal(found[2]["image"], images[2])
    whole = path.read_bytes()
    at = whole.index(images.tobytes()) + 5000
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(
        InputError, match=rf"^{path} cannot be read \(it is no zip, or a damaged one\): make or download"
    ):
        reference_images(path)
    assert read_stats(path, "adm").protocol == "adm"  # What it does not touch is whole.
    for wrong, words in (
        (
            np.array([{}, None]),
            rf"^{path} cannot be read \(its array 'arr_0.npy' holds neither numbers nor text.*\): make",
        ),
        (images[:0], r"arr_0 of .* is uint8 \(0, 40, 40, 3\), but images are uint8 \(N, H, W, 3\), at least one"),
        (images[..., :1], r"arr_0 of .* is uint8 \(3, 40, 40, 1\), but images are"),
    ):
        np.savez(path, mu=np.zeros(POOL), sigma=np.eye(POOL), arr_0=wrong)
        with pytest.raises(InputError, match=words):
            reference_images(path)
