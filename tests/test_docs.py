"""What README and docs show is true: code runs, commands parse, links lead somewhere, tables name what there is."""

import ast
import doctest
import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shortcut_models import catalogue
from shortcut_models.cli import COMMANDS, parsing, settings
from shortcut_models.errors import InputError
from shortcut_models.interop import flags

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


def blocks(page: Path, kind: str) -> list[str]:
    return [found["text"] for found in FENCE.finditer(page.read_text()) if found["kind"] == kind]


def named(page: Path) -> list[str]:
    """What stands in code on a page: lines of commands, and spans."""
    text = page.read_text()
    lines = [line for kind in ("", "bash") for block in blocks(page, kind) for line in block.splitlines()]
    return lines + SPAN.findall(FENCE.sub("", text))


def commands() -> list[list[str]]:
    found = []
    for page in PAGES:
        # What CONTRIBUTING adds is unknown here; tests/test_contributing.py follows it.
        for line in named(page) if page.name != "CONTRIBUTING.md" else ():
            if line.removeprefix(".venv/bin/").startswith("shortcut "):
                found.append(shlex.split(line, comments=True)[1:])
    return found


CODE = [
    pytest.param(page, number, id=f"{page.name}-{number}")
    for page in PAGES
    if page.name != "CONTRIBUTING.md"
    for number in range(len(blocks(page, "python")))
]


@pytest.mark.parametrize(("page", "number"), CODE)
def test_code_on_a_page_runs(page: Path, number: int, request: pytest.FixtureRequest) -> None:
    code = blocks(page, "python")[number]
    if '"runs/digits"' in code:
        code = code.replace('"runs/digits"', repr(str(request.getfixturevalue("trained"))))
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    for name, shape in re.findall(r"^(\w+) = .*# float32 (\(.*?\))", code, re.MULTILINE):
        assert getattr(names[name], "shape", None) == ast.literal_eval(shape)


def check(words: list[str]) -> None:
    """Parse a command line as the command does, without doing it; raises InputError."""
    name, rest = words[0], [word for word in words[1:] if word not in parsing.HELP]
    if name not in COMMANDS:
        raise InputError(f"command {name!r} is unknown.")
    options: Any = getattr(importlib.import_module(f"shortcut_models.cli.{name}"), name.capitalize(), None)
    if name == "prepare":
        line = parsing.split(rest, ["check"])
        parsing.check_known(line, {*parsing.settings(options), "check"})
        assert len(line.arguments) == (1 if "check" in line.flags else 2), words
        assert ("size" in line.flags) != ("check" in line.flags), words
    elif name in ("train", "compare"):
        line = parsing.split(rest, ["dry_run"])
        preset = settings.check_preset(line.arguments, name)
        if line.flags.get("data", "glyphs") not in catalogue.DATA:
            line.flags["data"] = "glyphs"  # For a path, which need not be there.
        settings.resolve(preset, line, list(parsing.settings(options)))
        parsing.override(options(), line)
    elif options:
        parsing.parse(options, name, rest)
    else:
        settings.check_preset(parsing.split(rest).arguments, name)


WITHOUT = {"PRESET": "digits", "COMMAND": "train"}
"""What placeholders stand for."""


def test_nothing_on_a_page_is_of_a_kind_that_is_not_checked() -> None:
    pages = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")}
    assert pages == set(PAGES)
    assert {found["kind"] for page in PAGES for found in FENCE.finditer(page.read_text())} == {"", "bash", "python"}


def test_every_command_of_the_official_code_is_understood() -> None:
    found = [shlex.split(line)[2:] for page in PAGES for line in named(page) if line.startswith("python train.py --")]
    assert len(found) >= 4
    for words in found:
        flags.check(flags.FLAGS | flags.OURS | flags.read_flags(words))


def test_every_command_on_a_page_parses() -> None:
    found = commands()
    assert {words[0] for words in found} >= {"train", "sample", "evaluate", "compare", "prepare"}
    for words in found:
        filled = [WITHOUT.get(word, word) for word in words if word != "..."]
        if filled[1:]:  # The name of a command alone is no command line.
            check(filled)


@pytest.mark.parametrize(
    "line",
    ["train digits --model.bootstrap-every 4", "train numbers", "sample runs/x --stpes 2", "draw runs/x", "prepare a"],
)
def test_a_command_that_would_be_refused_does_not_parse(line: str) -> None:
    with pytest.raises((InputError, AssertionError)):
        check(line.split())


def test_every_link_leads_to_a_file() -> None:
    for page in PAGES:
        links = LINK.findall(FENCE.sub("", page.read_text()))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


def test_files_and_targets_that_pages_name_exist() -> None:
    targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    inside, missing = ROOT / "src/shortcut_models", []
    for page in PAGES:
        for text in named(page):
            words = text.partition("#")[0].split()
            if words[:1] == ["make"] and words[1] not in targets:
                missing.append(text)
            if words[:2] == ["python", "-m"] and not any(
                (ROOT / words[2].replace(".", "/")).with_suffix(end).exists() for end in ("", ".py")
            ):
                missing.append(text)
            scripts = [word for word in words if re.fullmatch(r"[\w/]+\.py", word)]
            missing += [
                name for name in scripts if not any((at / name).exists() for at in (ROOT, inside, ROOT / "tests"))
            ]
    assert [name for name in missing if Path(name).name not in NEW] == []


NEW = {"utils.py", *re.findall(r"(\w+\.py)`:$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)}
"""Files that CONTRIBUTING has its reader make, or not."""


def test_the_table_of_objectives_is_the_catalogue() -> None:
    table = (ROOT / "README.md").read_text().split("| objective |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    # Those of the official code, each with its recipe there; a method that is new need not have a row.
    own = [name.removesuffix("-original") for name in catalogue.OBJECTIVES if name.endswith("-original")]
    assert sorted(listed) == sorted(own)
    assert len(own) == 7
    for name in own:
        number = re.search(r"arXiv (\d+\.\d+)", catalogue.OBJECTIVES[name].about)
        row = next(line for line in table.splitlines() if f"`{name}`" in line)
        assert number
        assert f"https://arxiv.org/abs/{number[1]}" in row


def test_recipes_show_commands_that_parse() -> None:
    for entry in catalogue.PRESETS.values():
        page = importlib.import_module(f"shortcut_models.{entry.where.partition(':')[0]}").__doc__ or ""
        lines = [line.strip() for line in page.splitlines() if line.startswith("    shortcut ")]
        for line in lines:
            for part in line.split(", then "):
                check(shlex.split(part, comments=True)[1:])


def test_the_citation_and_the_package_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation, licence = (ROOT / "CITATION.cff").read_text(), (ROOT / "LICENSE").read_text()
    (author,) = (person["name"] for person in project["authors"])
    assert f"\nversion: {project['version']}\n" in citation
    assert f"  - name: {author}\n" in citation
    assert author in licence
    assert project["urls"]["Paper"] in citation
    assert f"\n## {project['version']}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "src/shortcut_models/py.typed").exists()


@pytest.mark.parametrize("module", ["sampling", "objectives.path", "metrics.points", "interop.tracked_names"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"shortcut_models.{module}"))
    assert found.attempted
    assert not found.failed
