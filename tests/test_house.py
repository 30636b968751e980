"""The rules of the house: who imports whom, where a choice may be named, how long a page may be."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from shortcut_models import catalogue

ROOT = Path(__file__).parents[1]
PACKAGE = "shortcut_models"
CHOICES = {**catalogue.DATA, **catalogue.NETWORKS, **catalogue.OBJECTIVES}


class Module(NamedTuple):
    path: Path
    tree: ast.Module
    top: frozenset[str]
    """Modules imported when it is, of the package and others."""
    late: frozenset[str]
    """Modules imported by its functions."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(node: ast.AST, names: set[str], late: bool = False) -> Iterator[tuple[str, bool]]:
    """Modules that a syntax tree imports, and whether in a function; what is for type checkers alone is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports are absolute"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield (whole if whole in names else str(child.module)), late
        yield from imports_of(child, names, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def read_modules() -> dict[str, Module]:
    paths = {module_name(path): path for path in sorted((ROOT / "src").rglob("*.py"))}
    found = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        imported = list(imports_of(tree, set(paths)))
        tops, lates = (frozenset(module for module, late in imported if late == which) for which in (False, True))
        # What runs first is every package that it lies in.
        parents = {name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)} - {PACKAGE}
        found[name] = Module(path, tree, tops | parents, lates)
    return found


MODULES = read_modules()


def room(name: str) -> str:
    """The first part of a module's name after the package's."""
    return name.removeprefix(f"{PACKAGE}.").partition(".")[0]


def others(found: frozenset[str]) -> set[str]:
    """Packages that are neither ours nor Python's."""
    return {name.partition(".")[0] for name in found} - {PACKAGE} - sys.stdlib_module_names


def reached(start: str, late: bool) -> set[str]:
    """All modules that importing one brings along; with `late`, also what its functions and theirs import."""
    found, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        if name in MODULES:
            todo += MODULES[name].top | (MODULES[name].late if late else frozenset())
    return found


def circle(late: bool) -> list[str]:
    """A circle of imports; [] if there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        module = MODULES[name]
        # A package and the modules in it are one: its __init__ names them for users.
        following = (module.top | (module.late if late else frozenset())) & set(MODULES)
        for other in sorted(following):
            if not name.startswith(f"{other}.") and (found := walk(other, [*path, name])):
                return found
        done.add(name)
        return []

    return next((found for name in MODULES if (found := walk(name, []))), [])


def test_imports_run_without_a_circle() -> None:
    assert circle(late=False) == []


def test_imports_of_functions_close_no_circle_either() -> None:
    assert circle(late=True) == []


def test_data_know_no_network_objective_or_training() -> None:
    above = {"networks", "objectives", "sampling", "model", "train", "state", "weights", "starting"}
    above |= {"metrics", "cli", "evaluate"}
    for name in MODULES:
        if room(name) == "data":
            assert not {other for other in reached(name, late=True) if room(other) in above}, name


@pytest.mark.parametrize(
    ("own", "rooms"),
    [
        ("sampling", {"sampling", "errors"}),
        ("networks", {"networks", "errors"}),
        ("objectives", {"objectives", "sampling", "errors"}),
    ],
)
def test_the_maths_imports_jax_alone(own: str, rooms: set[str]) -> None:
    for name, module in MODULES.items():
        if room(name) == own:
            both = module.top | module.late
            assert others(both) <= {"jax", "numpy", "jaxtyping"}, name
            assert {room(other) for other in both if other.startswith(PACKAGE)} <= rooms, name


def test_names_and_help_load_neither_jax_nor_numpy() -> None:
    """The progress bar is all that they load of others; tests/cli measures what is really imported."""
    quick = [name for name in MODULES if room(name) in ("cli", "catalogue", "errors", "startup", PACKAGE)]
    assert len(quick) > 8
    for name in quick:
        assert others(frozenset(reached(name, late=False))) <= {"tqdm"}, name


def test_no_page_is_longer_than_500_lines() -> None:
    pages = [path for folder in ("src", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    assert {path.name: lines for path in pages if (lines := path.read_text().count("\n")) > 500} == {}


def body_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    first = node.body[ast.get_docstring(node) is not None :]
    return (node.end_lineno or 0) - first[0].lineno + 1 if first else 0


def test_no_function_has_to_be_scrolled_for() -> None:
    functions = [(name, node) for name, module in MODULES.items() for node in ast.walk(module.tree)]
    defined = [(name, node) for name, node in functions if isinstance(node, ast.FunctionDef)]
    assert [f"{name}.{node.name}" for name, node in defined if body_lines(node) > 60] == []


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not {name.rpartition(".")[2] for name in MODULES} & {"utils", "util", "helpers", "common", "misc"}


WORDS = {"points", "pairs", "prepared", "folder", "zip", "npz", "idx", "shortcut"}
"""Names that are also words for something else, such as a view, a command or the program: their classes tell."""
TABLES = {"catalogue", "presets", "cli.original_flags", "interop", "config_json", "choice_json"}
"""Where names belong: the catalogue, recipes, the original's own names and files, and upgrades of runs on disk."""


def own_pages(entry: catalogue.Entry) -> str:
    return f"{PACKAGE}.{entry.where.partition(':')[0]}"


def strings(tree: ast.AST) -> Iterator[str]:
    """String literals that are no docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def is_table(name: str) -> bool:
    inner = name.removeprefix(f"{PACKAGE}.")
    return any(inner == table or inner.startswith(f"{table}.") for table in TABLES)


def test_a_choice_is_named_in_the_catalogue_alone() -> None:
    found = [
        f"{name} says {text!r}"
        for name, module in MODULES.items()
        if not is_table(name)
        for text in strings(module.tree)
        if text in CHOICES and text not in WORDS and own_pages(CHOICES[text]) != name
    ]
    assert found == []


KNOWN = {
    ("compare", "Pairs"),  # A comparison draws the pairs that a method needs, and opens what it has drawn.
}
"""Modules that use the class of a choice, and why."""


def test_no_module_but_a_neighbour_imports_the_class_of_a_choice() -> None:
    where = {tuple(entry.where.split(":")) for entry in CHOICES.values()}
    classes = {(f"{PACKAGE}.{module}", attribute) for module, attribute in where}
    found = []
    for name, module in MODULES.items():
        if is_table(name):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and room(str(node.module)) != room(name):
                found += [(room(name), alias.name) for alias in node.names if (node.module, alias.name) in classes]
    assert set(found) <= KNOWN


def test_nothing_asks_which_choice_it_has() -> None:
    classes = {
        entry.where.partition(":")[2] for entry in CHOICES.values() if not entry.where.partition(":")[2].isupper()
    }
    for name, module in MODULES.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                assert not asked & classes, f"{name} line {node.lineno}"


def pins(name: str) -> dict[str, str]:
    """The versions that a file of constraints sets."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if not line.startswith("#"))


def test_the_lower_bounds_are_those_of_the_lowest_environment() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["hf"], *extras["tensorboard"]]
    bounds = dict(line.lower().split(">=") for line in listed)
    assert len(bounds) > 14
    assert {name: pins("constraints-lowest.txt").get(name) for name in bounds} == bounds


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-3.13.txt", "constraints-lowest.txt"])
def test_whatever_the_tests_need_is_pinned(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["hf"], *extras["tensorboard"], *extras["dev"]]
    needed = {re.split("[>=[]", line.lower())[0] for line in listed} - {project["name"]}
    assert needed <= set(pins(name))


# In two parts each, so that this page does not hold what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        [
            "/wo" + "rk/",
            "/tmp" + "/wt",
            "/ro" + "ot/",
            "/home/" + r"(?!someone)\w+/",
            "/Us" + r"ers/\w+/",
            r"pypi\." + "org",
            "python" + r"hosted\.org",
            "index-" + "url",
            "registry" + r"\.npmjs",
        ]
    )
)


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_names_a_machine_s_folders_or_a_registry() -> None:
    found = []
    for path in committed():
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                text = content.decode("utf-8", "replace")
                found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in FORBIDDEN.finditer(text)]
    assert found == []
