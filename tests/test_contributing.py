"""CONTRIBUTING.md, followed to the letter: each choice is a file and a line, and then trains or measures."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import catalogue, cli

# They go through the catalogue, and so must pass with what a reader has added.
from tests import test_docs
from tests.cli import test_settings
from tests.networks import test_seam

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
TINY = "--max-steps 2 --batch-size 8 --optimizer.warmup-steps 1 --optimizer.schedule constant".split()  # noqa: SIM905
SMALL = [*TINY, "--model.hidden-size", "8", "--model.depth", "1"]
SHAPE = re.compile(
    r"^## Add an? (?P<what>[\w ]+)\n.*?`src/shortcut_models/(?P<file>[\w/]+\.py)`:\n\n```python\n(?P<code>.*?)```\n\n"
    r"In `(?P<names>[A-Z]+)`:\n\n```python\n(?P<line>.*?)\n```\n\n```\n(?P<command>.*?)\n```$",
    re.DOTALL | re.MULTILINE,
)
RECIPES = {found["what"]: found.groupdict() for found in SHAPE.finditer(PAGE.read_text())}
ALL = ["objective", "data set", "network", "metric"]


def test_the_page_has_a_recipe_for_each_seam() -> None:
    assert list(RECIPES) == ALL


@pytest.mark.parametrize("what", ALL)
def test_a_recipe_is_a_file_of_at_most_twenty_lines_but_for_its_imports_and_one_line(what: str) -> None:
    recipe = RECIPES[what]
    tree = ast.parse(recipe["code"])
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    lines = [line for line in recipe["code"].splitlines() if line.strip()]
    assert len(lines) - len(imports) <= 20
    assert "\n" not in recipe["line"]
    assert "\n" not in recipe["command"]


def test_the_code_is_as_the_linter_wants_it(tmp_path: Path) -> None:
    for recipe in RECIPES.values():
        (tmp_path / Path(recipe["file"]).name).write_text(recipe["code"])
    settings = ["--config", str(PAGE.parent / "pyproject.toml"), str(tmp_path)]
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        found = subprocess.run([sys.executable, "-m", "ruff", *command, *settings], capture_output=True, text=True)
        assert not found.returncode, found.stdout


def follow(what: str, folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Do as the recipe says, with the package's folders extended by a temporary one; returns its command."""
    recipe = RECIPES[what]
    path = folder / recipe["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe["code"])
    package = importlib.import_module(f"shortcut_models.{path.parent.name}")
    patch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
    patch.delitem(sys.modules, f"{package.__name__}.{path.stem}", raising=False)
    names = getattr(catalogue, recipe["names"])
    added: dict[str, Any] = eval(f"{{{recipe['line']}}}", vars(catalogue))
    (name,) = added
    assert name not in names
    patch.setitem(names, name, added[name])
    return shlex.split(recipe["command"])[1:]


def test_a_toy_objective_and_a_toy_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train = follow("objective", tmp_path / "new", monkeypatch)
    assert cli.main([*train, *SMALL, "--run-dir", str(run)]) == 0
    kept = json.loads((run / "run.json").read_text())["config"]["objective"]
    assert (kept["kind"], kept["scale"]) == ("huber", 0.1)
    assert cli.main([*train, "--help"]) == 0
    assert "Errors well above it count by their length" in " ".join(capsys.readouterr().out.split())
    test_docs.test_the_table_of_objectives_is_the_catalogue()
    test_settings.test_every_choice_can_be_set_and_shown()

    measure = follow("metric", tmp_path / "new", monkeypatch)
    assert cli.main([*(str(run) if word == "runs/points" else word for word in measure), "--count", "8"]) == 0
    report = json.loads((run / "report.json").read_text())
    assert 0 < report["steps"]["4"]["mean-distance-8"] < 10


def test_toy_data_and_a_toy_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = follow("data set", tmp_path / "new", monkeypatch)
    network = follow("network", tmp_path / "new", monkeypatch)
    test_seam.test_a_network_fills_the_seam("sines")
    test_settings.test_every_choice_can_be_set_and_shown()
    both = [*data, *network[network.index("--model") :]]  # Both new choices in one training, for its compile time.
    run = tmp_path / "run"
    assert cli.main([*both, *TINY, "--run-dir", str(run)]) == 0
    config = json.loads((run / "run.json").read_text())["config"]
    assert (config["data"], config["model"]["kind"]) == ({"kind": "rings", "inner": 0.3}, "sines")
    assert (config["model"]["num_classes"], config["model"]["width"]) == (2, 128)
    assert cli.main(["evaluate", str(run), "--steps", "1", "--count", "8"]) == 0
    assert 0 < json.loads((run / "report.json").read_text())["steps"]["1"]["energy-8"] < 10
    assert cli.main(["sample", str(run), "--out", str(tmp_path / "a.npz")]) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["points"].shape == (16, 2)  # Nothing named a view: it follows from the shape.
