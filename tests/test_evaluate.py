"""Measuring a model: the same noise and labels for every budget, and numbers that can be trusted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, catalogue
from shortcut_models import evaluate as module
from shortcut_models.data.base import Data
from shortcut_models.data.pixels import to_network, to_uint8
from shortcut_models.evaluate import Plan, evaluate, measure_model, read_report, rounded, table
from shortcut_models.metrics.measure import Measurement
from shortcut_models.metrics.references import read, real_values, references
from shortcut_models.metrics.yardstick import Wish, choose_yardstick


def data_set(name: str) -> Data:
    return catalogue.find("data set", catalogue.DATA, name)()


DIGITS = data_set("digits")


class Noisy:
    """A model of the digits: real ones with noise that shrinks with the steps. Sample i follows from (seed, i)."""

    num_classes = 10

    def __init__(self) -> None:
        self.images, self.classes = read(DIGITS.open(), np.arange(1797))
        self.calls: list[dict[str, Any]] = []

    def sample(self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int) -> np.ndarray:
        self.calls.append({"labels": labels, "steps": steps, "guidance": guidance, "seed": seed, "first": first})
        found = []
        for i, label in enumerate(labels, start=first):
            rng = np.random.default_rng([seed, i])
            of_class = np.flatnonzero(self.classes == label) if label < 10 else np.arange(1797)
            image = to_network(self.images[rng.choice(of_class)][None])[0]
            found.append(image + guidance * rng.standard_normal(image.shape) / steps)
        return np.stack(found).astype(np.float32)

    def decode(self, x: np.ndarray) -> np.ndarray:
        return x


def test_the_numbers_are_those_of_the_samples_that_anyone_can_draw() -> None:
    model = Noisy()
    found = evaluate(model, DIGITS, [1, 2], 24, seed=3)
    metrics = [catalogue.find("metric", catalogue.METRICS, name) for name in DIGITS.metrics]
    labels = np.arange(24) % 10
    assert list(found.report["steps"]) == ["1", "2"]
    for steps in (1, 2):
        images = to_uint8(model.sample(labels, steps, 1.0, 3, first=0))
        by_hand = Measurement(metrics)
        by_hand.add(images, labels)
        assert found.report["steps"][str(steps)] == by_hand.values(references(DIGITS, metrics))
        np.testing.assert_array_equal(found.samples[steps], images[:10])  # One of each class.
    assert found.report["steps"]["1"] != found.report["steps"]["2"]
    assert found.report["real"] == real_values(DIGITS, metrics, 24).values
    assert list(found.report["real"]) == ["frechet-pixels-24", "frechet-digitnet1-24", "agreement-digitnet1-24"]
    # There are no held-out digits to be as good as.
    assert "ratio" not in found.report
    assert found.report["about"]["labels"] == "balanced"
    json.dumps(found.report)


def test_memory_holds_one_chunk_and_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Noisy()
    whole = evaluate(model, DIGITS, [1], 40)
    monkeypatch.setattr(module, "chunk_size", lambda shape: 16)  # noqa: ARG005
    model.calls.clear()
    cut = evaluate(model, DIGITS, [1], 40)
    assert [(call["first"], len(call["labels"])) for call in model.calls] == [(0, 16), (16, 16), (32, 8)]
    assert cut.report["steps"]["1"] == pytest.approx(whole.report["steps"]["1"], rel=1e-6)
    np.testing.assert_array_equal(cut.samples[1], whole.samples[1])


def test_guidance_and_seed_reach_the_samples() -> None:
    model = Noisy()
    evaluate(model, DIGITS, [1, 4], 10, guidance=1.5, seed=7)
    assert [(c["steps"], c["guidance"], c["seed"]) for c in model.calls] == [(1, 1.5, 7), (4, 1.5, 7)]
    np.testing.assert_array_equal(model.calls[0]["labels"], model.calls[1]["labels"])


def test_metrics_can_be_chosen() -> None:
    found = evaluate(Noisy(), DIGITS, [1], 12, metrics=["agreement-digitnet1"])
    assert list(found.report["steps"]["1"]) == list(found.report["real"]) == ["agreement-digitnet1-12"]


def test_without_labels_agreement_is_left_out_and_said_to_be() -> None:
    model = Noisy()
    found = evaluate(model, DIGITS, [1], 12, labels="none")
    assert set(np.concatenate([call["labels"] for call in model.calls])) == {10}
    assert list(found.report["steps"]["1"]) == ["frechet-pixels-12", "frechet-digitnet1-12"]
    sentence = "agreement-digitnet1: no labels were asked for, so there are none to agree with."
    assert found.report["left_out"] == sentence
    assert table(found.report).splitlines()[-1] == f"left out: {sentence}"
    with pytest.raises(InputError, match="without labels nothing is left to measure of agreement-digitnet1"):
        evaluate(model, DIGITS, [1], 12, labels="none", metrics=["agreement-digitnet1"])


def test_labels_may_have_the_proportions_of_the_data() -> None:
    model = Noisy()
    report = evaluate(model, DIGITS, [1], 1797, labels="data", metrics=["frechet-pixels"]).report
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(np.concatenate([call["labels"] for call in model.calls])).tolist() == counts
    assert report["about"]["labels"] == "data"
    assert report["about"]["class_counts"] == counts
    with pytest.raises(InputError, match="--labels data mixes classes as real images are: say whose, by --data"):
        choose_yardstick(None, (8, 8, 1), Wish(metrics=("is-adm",), labels="data"))


class Unlabelled(Noisy):
    unconditional = True


def test_a_model_without_labels_is_measured_by_the_null_label() -> None:
    model = Unlabelled()
    evaluate(model, DIGITS, [1], 12)
    assert set(np.concatenate([call["labels"] for call in model.calls])) == {10}


class Twenty(Noisy):
    num_classes = 20


def test_a_model_of_other_classes_is_refused_unless_none_is_asked_for() -> None:
    with pytest.raises(InputError, match="the model has 20 classes, but the data set has 10"):
        evaluate(Twenty(), DIGITS, [1], 40)
    found = evaluate(Twenty(), DIGITS, [1], 12, labels="none", metrics=["frechet-pixels"])
    assert found.report["steps"]["1"]["frechet-pixels-12"] > 0


def test_labels_that_are_drawn_at_random_need_no_sample_of_each_class() -> None:
    found = evaluate(Noisy(), DIGITS, [1], 5, labels="random", metrics=["frechet-pixels"])
    assert found.report["steps"]["1"]["frechet-pixels-5"] > 0


def test_what_cannot_be_measured_is_refused() -> None:
    for count, metrics, words in (
        (9, None, "--count is 9, but measuring by balanced labels takes at least 10 samples, one of each class"),
        (1, None, "--count is 1, but measuring takes at least 2 samples"),
        (10, ["frechet-faces"], "metric 'frechet-faces' is unknown"),
        (10, ["energy"], "measure points, but the samples are 8x8x1"),
        (10, ["frechet-glyphnet1"], "glyphnet1 measures 32x32x3 images, but the samples are 8x8x1"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate(Noisy(), DIGITS, [1], count, metrics=metrics)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": (1, 2_000_000)}, "--steps is 2000000, but must be a whole number between 1 and 1000000"),
        ({"budgets": (1, 0)}, "--steps is 0, but must be"),
        ({"guidance": 1e39}, r"--guidance is 1e\+39, but must be 0 or between"),
        ({"guidance": float("nan")}, "--guidance is nan, but must be a finite number"),
        ({"count": 2**32}, "--count is 4294967296, but must be a whole number between 0 and 4294967295"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"seed": 2**32 - 1, "seeds": 2}, "--seed is 4294967295"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused_before_any_is(changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"budgets": (1,), "count": 10}
    with pytest.raises(InputError, match=words):
        Plan(**(given | changes))


@pytest.mark.parametrize(
    ("data", "metrics", "labels", "words"),
    [
        ("points", ("energy",), None, "energy keeps all samples to compare them, at most 1048576, not 1000000000"),
        ("digits", ("frechet-pixels",), "data", "count is 1000000000, but labels mixed like the data are for at most"),
    ],
)
def test_more_samples_than_fit_are_refused_before_any_is_drawn(
    data: str, metrics: tuple[str, ...], labels: Any, words: str
) -> None:
    class Idle:
        num_classes = 4 if data == "points" else 10

    model: Any = Idle()
    with pytest.raises(InputError, match=words):
        evaluate(model, data_set(data), [1], 10**9, metrics=metrics, labels=labels)


def test_however_many_samples_are_asked_for_they_are_drawn_at_once_with_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, turns = Noisy(), iter([False, False, True])
    yardstick = choose_yardstick(DIGITS, (8, 8, 1), Wish(metrics=("frechet-pixels",)))
    plan = Plan(budgets=(1, 4), count=10**9)
    assert measure_model(model, yardstick, plan, stopping=lambda: next(turns)) is None
    # Labels are made chunk by chunk: those of all would be gigabytes, and a long wait.
    assert [(call["first"], len(call["labels"])) for call in model.calls] == [(0, 2048), (2048, 2048)]
    assert "/2000000000 [" in capsys.readouterr().err


class Spread:
    """A model of the points: real ones, the further apart the fewer the steps."""

    num_classes = 4

    def sample(self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int) -> np.ndarray:
        turns = np.random.default_rng([seed, first]).integers(0, 10_000, len(labels))
        return read(data_set("points").open(), 4 * turns + labels)[0] * np.float32(guidance + 1 / steps)

    def decode(self, x: np.ndarray) -> np.ndarray:
        return x


def test_points_are_measured_beside_their_ratio_to_held_out_ones() -> None:
    found = evaluate(Spread(), data_set("points"), [1, 100], 200)
    names = ["energy-200", "sliced-wasserstein-200"]
    for steps in ("1", "100"):
        assert list(found.report["steps"][steps]) == names
        for name in names:
            expected = found.report["steps"][steps][name] / found.report["real"][name]
            assert found.report["ratio"][steps][name] == expected
    assert found.report["ratio"]["1"]["energy-200"] > 10
    assert found.report["ratio"]["100"]["energy-200"] < 3
    assert found.samples[1].dtype == np.float32
    assert found.samples[1].shape == (200, 2)
    assert "ratio" in table(found.report).splitlines()[0]


def test_a_report_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path / "report.json") is None
    (tmp_path / "report.json").write_text('{"steps": ')
    assert read_report(tmp_path / "report.json") is None
    (tmp_path / "report.json").write_text('{"steps": {}}')
    assert read_report(tmp_path / "report.json") == {"steps": {}}


def test_the_table_has_a_row_per_budget_and_one_for_the_real_samples() -> None:
    report = {"steps": {"1": {"a-10": 12.0, "b": 0.5}, "128": {"a-10": 1.2344, "b": 1.0}}, "real": {"a-10": 0, "b": 1}}
    assert table(report).splitlines() == [
        "steps    a-10      b",
        "    1  12.000  0.500",
        "  128   1.234  1.000",
        " real   0.000  1.000",
    ]
    report["ratio"] = {"1": {"a-10": 3.0}, "128": {"a-10": 0.75}}
    assert table(report).splitlines() == [
        "steps    a-10  ratio      b",
        "    1  12.000   3.00  0.500",
        "  128   1.234   0.75  1.000",
        " real   0.000         1.000",
    ]


def test_small_numbers_have_three_digits_too() -> None:
    assert [rounded(value) for value in (0.174, 1.558, 0.99, 12.0, 0.0)] == [
        "0.174",
        "1.558",
        "0.990",
        "12.000",
        "0.000",
    ]
    assert [rounded(value) for value in (0.0035, 0.000213, 0.05)] == ["0.00350", "0.000213", "0.0500"]
    assert [rounded(value) for value in (3e-9, float("nan"), float("inf"))] == ["3.00e-09", "nan", "inf"]
    report = {"steps": {"1": {"a": 0.00354}}, "real": {"a": 0.00249}, "deviation": {"1": {"a": 0.0004}}}
    assert table(report).splitlines() == [
        "steps                  a",
        "    1  0.00354 ± 0.00040",
        " real            0.00249",
    ]
