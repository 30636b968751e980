"""Pages are made of the files, and the benchmark keeps within its limits."""

import ast
import json
from pathlib import Path

import pytest

from benchmarks.speed import page

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = sorted((REPOSITORY / "benchmarks").rglob("*.py"))


def test_a_page_takes_its_tables_from_the_files(tmp_path: Path) -> None:
    rows = [{"who": "ours", "ms": 12.345, "x shortcut": 3}, {"who": "a|b", "ok": True, "ms": 12345.0}]
    report = {"rows": rows, "about": {"torch": "2"}, "busy": True, "command": "x", "device": "cpu"}
    report |= {"time": "2026-01-02T", "commit": "0123456789abcdef+"}
    (tmp_path / "speed-cpu-train.json").write_text(json.dumps(report))
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- speed-cpu-train -->\nold\n<!-- /speed-cpu-train -->\n<!-- b -->\n?\n<!-- /b -->\nz\n")
    page.write(path, tmp_path)
    text = path.read_text()
    assert "| who | ms | ok |\n|---|---|---|\n| ours | 12.3 |  |\n| a/b | 12345 | yes |" in text
    assert "`x`, commit 0123456789ab+, cpu, 2026-01-02, PROVISIONAL: other programs were running; torch 2.\n" in text
    assert "old" not in text
    assert "<!-- b -->\nNot measured yet.\n<!-- /b -->\nz\n" in text
    page.write(path, tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["speed.md", "gpu.md", "scaling.md"])
def test_the_tables_in_the_repository_are_those_of_its_files(name: str, tmp_path: Path) -> None:
    there = (REPOSITORY / "docs" / name).read_text()
    (tmp_path / name).write_text(there)
    page.write(tmp_path / name, REPOSITORY / page.RESULTS)
    assert (tmp_path / name).read_text() == there


def test_every_file_of_results_is_read_somewhere() -> None:
    read = "".join(path.read_text() for path in [*BENCHMARKS, *(REPOSITORY / "docs").glob("*.md")])
    for path in (REPOSITORY / page.RESULTS).glob("*.json"):
        assert path.name in read or f"<!-- {path.stem} -->" in read


def test_the_benchmark_and_its_page_stay_short() -> None:
    code = [path for path in BENCHMARKS if path.parent.name == "speed"]
    assert sum(len(path.read_text().splitlines()) for path in code) <= 700
    assert len((REPOSITORY / page.PAGES[0]).read_text().splitlines()) <= 120


def test_one_module_of_the_speed_benchmark_imports_the_package() -> None:
    importing = [p.name for p in BENCHMARKS if p.parent.name == "speed" and _of_the_package(ast.parse(p.read_text()))]
    assert importing == ["ours.py"]


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_nothing_of_the_package_or_of_jax_is_patched(path: Path) -> None:
    tree = ast.parse(path.read_text())
    theirs = _of_the_package(tree) | {"jax", "jnp"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not {module, *(name.name for name in node.names)} & {"mock", "unittest", "unittest.mock"}
        elif isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id == "setattr")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in theirs:
            assert isinstance(node.ctx, ast.Load), f"line {node.lineno} sets {node.value.id}.{node.attr}"
            assert not node.attr.startswith("_"), f"line {node.lineno} reads {node.value.id}.{node.attr}"


def _of_the_package(tree: ast.Module) -> set[str]:
    """The names that a module imports from the package; none of them may be private."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shortcut_models"):
            assert not any(name.name.startswith("_") for name in node.names)
            names |= {name.asname or name.name for name in node.names}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names if name.name.startswith("shortcut_models")}
    return names
