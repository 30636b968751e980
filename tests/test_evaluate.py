"""Measuring a model: the same noise and labels for every budget, and numbers that can be trusted."""

import json
from pathlib import Path

import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, cli
from shortcut_models.data.pipeline import to_uint8
from shortcut_models.evaluate import evaluate, read_report, table
from shortcut_models.metrics.digits import DigitMetrics
from shortcut_models.model import Model


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return shortcut_models.load(trained)


def test_the_numbers_are_those_of_the_samples_that_anyone_can_draw(model: Model) -> None:
    found = evaluate(model, "digits", [1, 2], count=24, seed=3)
    labels = np.arange(24) % 10
    assert list(found.report["steps"]) == ["1", "2"]
    for steps in (1, 2):
        images = to_uint8(model.sample(labels, steps=steps, seed=3))
        assert found.report["steps"][str(steps)] == pytest.approx(DigitMetrics().measure(images, labels), rel=1e-6)
        np.testing.assert_array_equal(found.images[steps], images[:10])  # One of each class.
    assert found.report["real"] == DigitMetrics().floor(24)
    json.dumps(found.report)


def test_guidance_and_weights_reach_the_samples(model: Model, trained: Path) -> None:
    plain = evaluate(model, "digits", [1], count=10).images[1].astype(int)
    for other in (
        evaluate(model, "digits", [1], count=10, guidance=8.0),
        evaluate(shortcut_models.load(trained, "raw"), "digits", [1], count=10),
        evaluate(model, "digits", [1], count=10, seed=1),
    ):
        assert np.abs(other.images[1].astype(int) - plain).max() > 0


def test_what_cannot_be_measured_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="count is 9, but measuring takes at least 10 images"):
        evaluate(model, "digits", [1], count=9)
    with pytest.raises(InputError, match="dataset 'faces' has no metrics yet: those with are digits"):
        evaluate(model, "faces", [1], count=10)


def test_an_earlier_measurement_counts_only_for_the_same_settings(
    trained_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = trained_copy / "report.json"

    def run(*words: str) -> tuple[bool, bytes]:
        assert cli.main(["evaluate", str(trained_copy), "--steps", "1", "--count", "24", *words]) == 0
        return "measured before" in capsys.readouterr().out, report.read_bytes()

    before, first = run()
    assert not before
    assert run() == (True, first)
    before, changed = run("--seed", "5")
    assert not before
    assert json.loads(changed)["protocol"] | {"seed": 0} == json.loads(first)["protocol"]
    # A report that a kill cut short, and a picture that is gone, are made anew.
    report.write_bytes(changed[:100])
    assert not run("--seed", "5")[0]
    (trained_copy / "samples.png").unlink()
    assert not run("--seed", "5")[0]
    assert (trained_copy / "samples.png").exists()


def test_a_report_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path / "report.json") is None
    (tmp_path / "report.json").write_text('{"steps": ')
    assert read_report(tmp_path / "report.json") is None
    (tmp_path / "report.json").write_text('{"steps": {}}')
    assert read_report(tmp_path / "report.json") == {"steps": {}}


def test_the_table_has_a_row_per_budget_and_one_for_the_real_images() -> None:
    report = {"steps": {"1": {"a-10": 12.0, "b": 0.5}, "128": {"a-10": 1.2344, "b": 1.0}}, "real": {"a-10": 0, "b": 1}}
    assert table(report).splitlines() == [
        "steps    a-10      b",
        "    1  12.000  0.500",
        "  128   1.234  1.000",
        " real   0.000  1.000",
    ]
