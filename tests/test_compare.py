"""Comparing objectives: an equal budget to the image, resumed where it stopped, told in one table."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shortcut_models.dry_run import step_flops

from shortcut_models import InputError, cli, runs, sharding
from shortcut_models.compare import METHODS, Comparison, hold, spread, table
from shortcut_models.config import Config
from shortcut_models.objectives import Progressive, Reflow, Shortcut

BUDGET = 16 * 15


@pytest.fixture(scope="module")
def words(tiny_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A comparison of seconds: an end-to-end method and two with two stages."""
    at = tiny_flags.index("--max-steps")
    flags = [*tiny_flags[:at], *tiny_flags[at + 2 :]]
    cut = flags.index("--optimizer.schedule")
    flags = [*flags[:cut], *flags[cut + 4 :], "--optimizer.warmup-steps", "2"]
    out = tmp_path_factory.mktemp("compare") / "out"
    chosen = ["--objectives", "shortcut,progressive,reflow", "--seeds", "1,", "--budget", str(BUDGET)]
    return ["compare", "digits", *flags, *chosen, "--steps", "1,4", "--count", "32", "--pairs", "32", "--out", str(out)]


@pytest.fixture(scope="module")
def compared(words: list[str]) -> Path:
    """Interrupted in its second run, and then run to the end."""
    place, fed = sharding.place_batch, []

    def stop(mesh: Any, batch: Any) -> Any:
        fed.append(batch)
        if len(fed) == 18:
            os.kill(os.getpid(), signal.SIGINT)
        return place(mesh, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "place_batch", stop)
        assert cli.main(words) == 130
    folder = Path(words[-1])
    assert [path.name for path in folder.glob("*.json")] == ["shortcut-seed-1.json"]
    assert not (folder / "table.md").exists()
    assert cli.main(words) == 0
    return folder


def read(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_every_method_sees_exactly_the_budget_and_pays_for_all_its_stages(compared: Path) -> None:
    found = read(compared)
    assert set(found) == {f"{name}-seed-1" for name in ("shortcut", "progressive", "reflow")}
    for report in found.values():
        assert report["images"] == BUDGET == sum(part["images"] for part in report["cost"])
        assert report["seconds"] == pytest.approx(sum(part["seconds"] for part in report["cost"]))
        assert report["flops"] == sum(part["flops"] for part in report["cost"])
        assert {"command", "commit", "versions", "device", "real"} <= set(report)
        assert set(report["steps"]) == {"1", "4"}
    flow = runs.read_config(compared / "flow-seed-1")
    own = runs.read_config(compared / "progressive-seed-1")
    assert (flow.max_steps, own.max_steps) == (7, 8)  # Of 15 steps; the flow is shared, and charged to each.
    assert flow.seed == own.seed == 1
    assert isinstance(own.objective, Progressive)
    assert own.objective.total_images == 8 * 16
    assert own.start_from == str(compared / "flow-seed-1")
    parts = found["progressive-seed-1"]["cost"]
    assert [part["images"] for part in parts] == [7 * 16, 8 * 16]
    assert [part["flops"] for part in parts] == [7 * step_flops(flow), 8 * step_flops(own)]
    pairs = found["reflow-seed-1"]["cost"][1]
    assert (pairs["what"], pairs["images"]) == ("32 pairs of 128 steps", 0)
    # One call of the network for one image takes a third of what a training step of flow matching does for it,
    # or a little more, since no gradient is taken of its input and of the fixed embeddings.
    assert 1 < pairs["flops"] / (32 * 128 * step_flops(flow) / 16 / 3) < 1.15
    assert isinstance(runs.read_config(compared / "reflow-seed-1").objective, Reflow)


def test_the_table_is_made_of_the_files_with_off_label_entries_in_parentheses(compared: Path) -> None:
    found = read(compared)
    lines = (compared / "table.md").read_text().splitlines()
    assert lines[0] == "| frechet-pixels-32 | 1 step | 4 steps | arithmetic | time |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| shortcut", "| progressive", "| reflow"]
    value = found["progressive-seed-1"]["steps"]["4"]["frechet-pixels-32"]
    cells = lines[3].split(" | ")
    assert not cells[1].startswith("(")
    assert cells[2].startswith(f"(**{spread([value])}**, ")
    assert cells[2].endswith(" %)")
    assert lines[4].split(" | ")[2].startswith("**")
    for name in ("samples.png", "quality.png"):
        with Image.open(compared / name) as image:
            assert min(image.size) > 100


def test_a_finished_comparison_is_not_done_again(
    compared: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortcut_models.compare.run", lambda *_: pytest.fail("did it again"))
    before = {path: path.read_bytes() for path in compared.glob("*.json")}
    assert cli.main(words) == 0
    assert (compared / "table.md").read_text() in capsys.readouterr().out
    assert {path: path.read_bytes() for path in compared.glob("*.json")} == before


def test_two_digits_of_spread() -> None:
    assert spread([0.25]) == "0.250"
    assert spread([0.2, 0.3]) == "0.250 ± 0.071"
    assert spread([22.0, 24.0]) == "23.0 ± 1.4"
    assert spread([250.0]) == "250"
    assert spread([0.0, 0.0]) == "0.000 ± 0.000"


def test_arithmetic_is_relative_to_the_least() -> None:
    def report(flops: float) -> dict[str, Any]:
        steps = {"1": {"distance": 1.0, "agreement-x": 0.5}}
        return {"steps": steps, "meant_for": {"1": True}, "flops": flops, "images": 10, "seconds": 90.0}

    found = table({"a": [report(30)], "b": [report(45), report(45)]}, [1]).splitlines()
    assert found[2] == "| a | **1.00**, 50.0 % | 1.00 | 1.5 min |"
    assert found[3] == "| b | **1.00 ± 0.00**, 50.0 % | 1.50 | 1.5 min |"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the first argument must be a data set that has a preset"),
        (["faces"], "preset 'faces' is unknown"),
        (
            ["digits", "--objectives", "shortcut,magic"],
            "objective 'magic' is unknown: the objectives are",
        ),
        (["digits", "--objectives", "shortcut,shortcut"], "must name one or more, each once"),
        (["digits", "--budget", "1000"], "1000 / 64 = 15.625; use 960 or 1024"),
        (["digits", "--budget", "0"], "a budget of 0 images is no whole number of batches of 64"),
        (
            ["digits", "--budget", "64", "--objectives", "reflow"],
            "two stages, a flow and what is made of it",
        ),
        (["digits", "--steps", "1,0"], "--steps 1,0 must be whole numbers from 1 up"),
        (["digits", "--steps", "few"], "--steps few must be whole numbers separated by commas"),
        (["digits", "--seeds", "0"], "--seeds  must name one or more"),
        (["digits", "--max-steps", "5"], "--max-steps is set by the comparison itself: use --budget"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_budget_too_small_for_the_stages_is_refused_with_the_arithmetic(tiny: Config) -> None:
    base = replace(tiny, batch_size=2, objective=Shortcut(share=0.5))
    with pytest.raises(InputError, match="7 stages of at least 1 image, but max_steps x batch_size = 6"):
        Comparison(base=base, budget=12, objectives=("progressive",))
    assert set(METHODS) <= {name for name in METHODS if Comparison(base=tiny, budget=160, objectives=(name,))}


def test_a_lock_keeps_other_processes_out_until_its_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        f"import fcntl, sys; f = open({str(path)!r}, 'w'); fcntl.flock(f, 2); print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with hold(path, wait=False) as held:
            assert not held
        other.kill()
    with hold(path) as held:
        assert held
