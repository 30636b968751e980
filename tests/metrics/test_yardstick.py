"""Protocols, and what goes with them; several seeds; what a report says of how its numbers were made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick import POOL, Noise, Quick

from shortcut_models import InputError, metrics
from shortcut_models.data.pixels import to_uint8
from shortcut_models.evaluate import Plan, evaluate, measure_model, table
from shortcut_models.metrics import statistics, yardstick
from shortcut_models.metrics.features import inception
from shortcut_models.metrics.statistics import stats
from shortcut_models.metrics.yardstick import Wish, choose_yardstick

SHAPE = (4, 4, 3)
SUITE = ["fid-adm-30", "sfid-adm-30", "is-adm-30", "precision-adm-30", "recall-adm-30"]


class Model:
    """Noise, of a size that follows from the steps; sample i follows from (seed, i)."""

    num_classes = 5

    def sample(self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int) -> np.ndarray:
        rngs = [np.random.default_rng([seed, i]) for i in range(first, first + len(labels))]
        return np.stack([rng.uniform(-1, 1, SHAPE) for rng in rngs]).astype(np.float32) / steps * guidance

    def decode(self, x: np.ndarray) -> np.ndarray:
        return x


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    network = Quick()
    found = lambda file, any_file: network  # noqa: ARG005, E731
    monkeypatch.setattr(inception, "find_inception", found)
    monkeypatch.setattr(statistics, "find_inception", found)
    monkeypatch.setattr(statistics, "ARRAYS", {"pool": ("mu", "sigma", POOL), "spatial": ("mu_s", "sigma_s", 7)})
    return network


def measure(wish: Wish, data: Noise | None = None, **plan: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"budgets": (1,), "count": 30} | plan
    found = measure_model(Model(), choose_yardstick(data, SHAPE, wish), Plan(**settings))
    assert found is not None
    json.dumps(found.report)
    return found.report


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    stats(Noise(), tmp_path / "ours.npz", "adm")
    return tmp_path / "ours.npz"


@pytest.fixture
def foreign(tmp_path: Path, ours: Path) -> Path:
    """The same numbers as another program writes them."""
    with np.load(ours) as known:
        np.savez(tmp_path / "foreign.npz", mu=known["mu"], sigma=known["sigma"])
    return tmp_path / "foreign.npz"


def test_a_protocol_measures_what_is_published_with_it(ours: Path) -> None:
    for name in ("fid-adm", "adm"):
        report = measure(Wish(protocol=name, stats=ours), Noise())
        assert list(report["steps"]["1"]) == SUITE
        assert "left_out" not in report
        assert report["about"]["labels"] == "balanced"
    by_data = measure(Wish(protocol="fid-adm"), Noise())
    assert report["steps"]["1"] == pytest.approx(by_data["steps"]["1"], rel=1e-6)
    paper = measure(Wish(protocol="fid-paper"), Noise())
    assert list(paper["steps"]["1"]) == ["fid-paper-30"]
    assert paper["about"]["labels"] == "random"


def test_what_cannot_be_measured_of_a_protocol_is_left_out_and_said(foreign: Path) -> None:
    report = measure(Wish(protocol="fid-adm", stats=foreign))
    assert list(report["steps"]["1"]) == ["fid-adm-30", "is-adm-30"]
    assert report["left_out"].startswith("sfid-adm, pr-adm: there are no real images to compare with: no data were")
    assert report["real"] == {}
    assert "ratio" not in report
    assert [line.split()[0] for line in table(report).splitlines()] == ["steps", "1", "perfect", "left"]
    # What is asked for by its own name is refused instead.
    with pytest.raises(
        InputError, match="pr-adm cannot be measured: there are no real images to compare with: no data were named"
    ):
        measure(Wish(metrics=("fid-adm", "pr-adm"), stats=foreign, stats_protocol="adm"))


def test_the_protocol_says_what_a_foreign_file_was_made_under(foreign: Path, ours: Path) -> None:
    expected = measure(Wish(metrics=("fid-adm",), stats=ours), Noise())["steps"]["1"]["fid-adm-30"]
    assert measure(Wish(protocol="fid-adm", stats=foreign))["steps"]["1"]["fid-adm-30"] == expected
    assert measure(Wish(stats=foreign, stats_protocol="adm"))["steps"]["1"] == {"fid-adm-30": expected}
    with pytest.raises(InputError, match="does not say which protocol it was made under"):
        measure(Wish(stats=foreign))
    with pytest.raises(InputError, match="was made under the protocol adm, not paper"):
        measure(Wish(protocol="fid-paper", stats=ours))


def test_images_in_a_file_of_statistics_serve_precision_and_recall(foreign: Path, quick: Quick, tmp_path: Path) -> None:
    images = Noise().open("test").arrays["image"]
    with np.load(foreign) as known:
        np.savez(tmp_path / "with.npz", **known, arr_0=images)
    found = measure(Wish(protocol="fid-adm", stats=tmp_path / "with.npz"))
    fake = quick.features(to_uint8(Model().sample(np.zeros(30), 1, 1.0, 0, first=0)), "adm")
    expected = metrics.precision_recall(fake["pool"], quick.features(images, "adm")["pool"])
    assert (found["steps"]["1"]["precision-adm-30"], found["steps"]["1"]["recall-adm-30"]) == expected
    assert found["about"]["reference"]["pr-adm"] == "40 images of with.npz"
    with np.load(foreign) as known:
        np.savez(tmp_path / "odd.npz", **known, arr_0=images[..., 0])
    with pytest.raises(InputError, match=r"arr_0 of .*odd.npz is uint8 \(40, 4, 4\), but images are uint8"):
        measure(Wish(protocol="fid-adm", stats=tmp_path / "odd.npz"))
    with np.load(foreign) as known:
        np.savez(tmp_path / "few.npz", **known, arr_0=images[:3])
    with pytest.raises(InputError, match=r"pr-adm takes at least 4 real images to compare with, but .*few.npz has 3"):
        measure(Wish(protocol="fid-adm", stats=tmp_path / "few.npz"))


def test_several_seeds_give_the_mean_and_the_deviation() -> None:
    wish = Wish(metrics=("fid-adm",))
    alone = [measure(wish, Noise(), seed=seed, budgets=(1, 2))["steps"] for seed in (3, 4, 5)]
    found = measure(wish, Noise(), seed=3, seeds=3, budgets=(1, 2))
    for steps in ("1", "2"):
        values = [one[steps]["fid-adm-30"] for one in alone]
        assert found["steps"][steps]["fid-adm-30"] == pytest.approx(np.mean(values), rel=1e-12)
        assert found["deviation"][steps]["fid-adm-30"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert found["by_seed"] == {str(seed): one for seed, one in zip((3, 4, 5), alone, strict=True)}
    assert f" ± {found['deviation']['1']['fid-adm-30']:.3f}" in table(found)
    assert "deviation" not in measure(wish, Noise())
    with pytest.raises(InputError, match="--seeds is 0"):
        Plan(budgets=(1,), count=30, seeds=0)


def test_a_report_says_all_that_makes_its_numbers_what_they_are(ours: Path) -> None:
    about = measure(Wish(protocol="fid-paper"), Noise())["about"]
    constants = about["metrics"]["fid-paper"]
    assert constants["offset"] == 1e-6
    assert constants["takes"] == "floats"
    assert constants["prepared"] == {
        "name": "paper",
        "takes": "floats",
        "resize": "centres",
        "clip": (-1, 1),
        "scaled": False,
    }
    assert about["inception"] == "0" * 64
    assert about["data"]["identity"] == "noise"
    about = measure(Wish(protocol="fid-adm", stats=ours), Noise())["about"]
    assert about["stats"]["sha256"] == yardstick.sha256_of(ours)
    assert (about["stats"]["protocol"], about["stats"]["count"]) == ("adm", 60)
    assert about["reference"]["fid-adm"] == "statistics of ours.npz"
    assert about["reference"]["pr-adm"] == "60 examples of the train split"


def test_ratios_stand_beside_every_distance_and_nothing_else() -> None:
    report = evaluate(Model(), Noise(), [1], 30, protocol="fid-adm").report
    assert list(report["ratio"]["1"]) == ["fid-adm-30", "sfid-adm-30"]
    for name, ratio in report["ratio"]["1"].items():
        assert ratio == report["steps"]["1"][name] / report["real"][name]
    assert table(report).splitlines()[0].split() == ["steps", "fid-adm-30", "ratio", "sfid-adm-30", "ratio", *SUITE[2:]]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(protocol="fid-mine"), "--protocol fid-mine is unknown: the protocols are fid-paper, fid-adm, fid-clean"),
        (Wish(protocol="fid-adm", metrics=("kid",)), "--protocol fid-adm stands for metrics: give it or --metrics"),
        (Wish(), "there is nothing to compare with: give --stats FILE or --data NAME_OR_PATH"),
        (
            Wish(metrics=("kid",)),
            "kid cannot be measured: there are no real images to compare with: no data were named",
        ),
    ],
)
def test_wishes_that_cannot_be_are_refused(wish: Wish, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_yardstick(None, SHAPE, wish)


class Latents(Noise):
    """Images that are stored as latents, and cannot be looked at."""

    def open(self, split: str = "train") -> Any:
        del split
        raise InputError("the data set holds latents, not images: give statistics of its images.")


def test_a_model_of_latents_is_measured_by_statistics(ours: Path) -> None:
    report = measure(Wish(stats=ours), Latents())
    assert list(report["steps"]["1"]) == ["fid-adm-30"]
    assert report["about"]["real"].startswith("none: the data set holds latents")
    with pytest.raises(
        InputError, match="fid-adm cannot be measured: there are no real images to compare with: the data set holds"
    ):
        measure(Wish(metrics=("fid-adm",)), Latents())
