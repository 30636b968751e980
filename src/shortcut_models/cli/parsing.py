"""From words on the command line to frozen dataclasses, and from their fields to help texts.

A command's options are a dataclass: a field without a default is a positional argument, the docstring under
a field is its help. The settings of a preset are a nest of dataclasses, whose flags are dotted: `--model.depth`.
`-` and `_` are alike in flags. Every refusal is an InputError of one sentence that names the flag and its value.
"""

import ast
import dataclasses
import difflib
import inspect
import math
import shlex
import sys
import textwrap
import types
import typing
from collections import deque
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from shortcut_models.errors import InputError

Options = TypeVar("Options")

WIDTH = 100
"""Characters in a line of help."""
COLUMN = 30
"""Where the text beside a flag begins."""
HELP = ("-h", "--help")


class Setting(NamedTuple):
    """One field that a flag sets."""

    kind: Any
    """Its type."""
    value: Any
    """What it is without the flag; MISSING for a positional argument."""
    about: str
    """The docstring under the field."""


class Line(NamedTuple):
    """A command line, taken apart."""

    arguments: list[str]
    """Words that belong to no flag."""
    flags: dict[str, str]
    """Values by name, with `_` for `-`; of a flag that is given twice, the last one."""

    def take(self, *names: str) -> str | None:
        """Take a flag out, which may have several names; raises InputError if two of them were given."""
        found = {name: value for name in names if (value := self.flags.pop(name, None)) is not None}
        if len(found) > 1:
            raise InputError(f"{' and '.join(map(flag, found))} are names of the same: give one of them.")
        return next(iter(found.values()), None)


def wants_help(words: list[str]) -> bool:
    """Whether --help stands anywhere on the line."""
    return any(word in HELP for word in words)


def split(words: list[str], switches: Iterable[str] = ()) -> Line:
    """Take a command line apart; each flag takes a value, `--flag value` or `--flag=value`; a switch may.

    After `--`, every word is an argument. Raises InputError for a flag without its value, or with one dash.
    """
    line, rest = Line([], {}), deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            line.arguments.extend(rest)
            rest.clear()
        elif not word.startswith("-") or word == "-":
            line.arguments.append(word)
        elif not word.startswith("--"):
            raise InputError(f"{word} is unknown: flags begin with two dashes, such as --steps 4.")
        else:
            name, equals, value = word[2:].partition("=")
            if not equals:
                if name.replace("-", "_") in switches:
                    value = rest.popleft() if rest and rest[0].lower() in SWITCH else "1"
                else:
                    value = rest.popleft() if rest else "--"
            if not equals and value.startswith("--"):
                raise InputError(f"--{name} needs a value: --{name} VALUE.")
            line.flags[name.replace("-", "_")] = value
    return line


def parse(options: type[Options], command: str, words: list[str]) -> Options:
    """A command's options from its words; raises InputError for what is missing, too much, unknown or malformed."""
    known = settings(options)
    line = split(words, [name for name, setting in known.items() if setting.kind is bool])
    needed = [name for name, setting in known.items() if setting.value is dataclasses.MISSING]
    usage = " ".join([f"shortcut {command}", *(name.upper() for name in needed)])
    if len(line.arguments) < len(needed):
        missing = needed[len(line.arguments)]
        raise InputError(f"{missing.upper()} is missing ({_sentence(known[missing].about)}): {usage}.")
    if len(line.arguments) > len(needed):
        extra = line.arguments[len(needed)]
        hint = f"flags begin with two dashes, as --{extra} would" if extra in known else f"the usage is {usage}"
        raise InputError(f"argument {extra!r} is one too many: {hint}.")
    flags = {name: setting for name, setting in known.items() if name not in needed}
    check_known(line, flags)
    given = {
        name: read(name.upper(), known[name].kind, word) for name, word in zip(needed, line.arguments, strict=True)
    }
    given |= {name: read(flag(name), known[name].kind, text) for name, text in line.flags.items()}
    return options(**given)


def override(chosen: Options, line: Line, prefix: str = "") -> Options:
    """A dataclass, and those nested in it, with the fields that the line's flags set; other flags are passed over.

    Every dataclass is rebuilt once, innermost first, so that only the settings as a whole have to agree. `prefix` is
    what its flags begin with, such as "data.".
    """
    known = settings(chosen, prefix)
    given = {name: read(flag(name), known[name].kind, text) for name, text in line.flags.items() if name in known}
    return _rebuild(chosen, given, prefix)


def check_known(line: Line, names: Iterable[str]) -> None:
    """Raise InputError, with the nearest name, for a flag that is not among the names."""
    names = list(names)
    for name in line.flags:
        if name not in names:
            near = _nearest(name, names)
            hint = f"did you mean {flag(near)}?" if near else "--help lists the flags."
            raise InputError(f"{flag(name)} is unknown: {hint}")


def settings(chosen: Any, prefix: str = "") -> dict[str, Setting]:
    """All fields of a dataclass or an instance, by dotted name; a nested instance's fields, not itself."""
    found = {}
    cls = chosen if isinstance(chosen, type) else type(chosen)
    kinds, notes = typing.get_type_hints(cls), _notes(cls)
    for field in dataclasses.fields(chosen):
        if not field.init:
            continue
        value = _default(field) if chosen is cls else getattr(chosen, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= settings(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = Setting(kinds[field.name], value, notes.get(field.name, ""))
    return found


def read(name: str, kind: Any, text: str) -> Any:
    """The value that a word stands for, as a field of this type; raises InputError, saying what was expected."""
    try:
        return _convert(kind, text)
    except ValueError:
        pass
    wrong = ""
    if typing.get_origin(kind) is tuple:
        part = typing.get_args(kind)[0]
        wrong = next((f": {word!r} is not" for word in text.split(",") if not _fits(part, word)), "")
    elif typing.get_origin(kind) is Literal:
        near = difflib.get_close_matches(text, map(str, typing.get_args(kind)), 1)
        wrong = f": did you mean {near[0]}?" if near else ""
    end = "" if wrong.endswith("?") else "."
    raise InputError(f"{name} {shlex.quote(text)} must be {_expected(kind)}{wrong}{end}")


def write(value: Any) -> str:
    """A value as the word that `read` turns into it again."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(write, value))
    return "none" if value is None else str(value)


def whole_numbers(name: str, text: str, least: int) -> tuple[int, ...]:
    """Whole numbers separated by commas; raises InputError naming the one that is none, or below `least`."""
    expected = f"--{name} {text} must be whole numbers from {least} up, separated by commas"
    numbers = []
    for part in text.strip(",").split(","):
        if not _fits(int, part) or int(part) < least:
            raise InputError(f"{expected}: {part!r} is not." if part else f"{expected}.")
        numbers.append(int(part))
    return tuple(numbers)


def check_counts(steps: int, count: int) -> None:
    """Raise InputError unless there is something to sample, in at least one step."""
    if steps < 1:
        raise InputError(f"--steps is {steps}, but sampling takes at least 1 step.")
    if count < 1:
        raise InputError(f"--count is {count}, but at least 1 sample must be drawn.")


def flag(name: str) -> str:
    """A dotted field name as a flag."""
    return f"--{name.replace('_', '-')}"


def command_line(command: str, words: list[str]) -> str:
    """What was typed, for the record."""
    return shlex.join(["shortcut", command, *words])


def usage(options: type, command: str) -> str:
    """The help of a command whose options are all in one dataclass."""
    known = settings(options)
    needed = [name for name, setting in known.items() if setting.value is dataclasses.MISSING]
    text = inspect.cleandoc(options.__doc__ or "")
    words = " ".join([f"usage: shortcut {command}", *(name.upper() for name in needed), "[--FLAG VALUE ...]"])
    return "\n\n".join([words, text, describe(known)])


def describe(known: dict[str, Setting]) -> str:
    """A line or more for each setting: the flag, what it takes, what it is for, what it is without."""
    return "\n".join(_describe(name, setting) for name, setting in known.items())


def entry(left: str, text: str) -> str:
    """Text in the right column beside a flag or name; below it where that is too long."""
    left = f"  {left}"
    lines = textwrap.wrap(text, WIDTH - COLUMN, break_on_hyphens=False, break_long_words=False)
    if len(left) > COLUMN - 2 or not lines:
        lines.insert(0, "")
    first = left.ljust(COLUMN) + lines[0] if lines[0] else left
    return "\n".join([first, *(" " * COLUMN + line for line in lines[1:])])


def _describe(name: str, setting: Setting) -> str:
    if setting.value is dataclasses.MISSING:
        return entry(name.upper(), setting.about)
    shown = write(setting.value)
    default = f" ({shown})" if setting.value not in (None, "") else ""
    return entry(f"{flag(name)} {_takes(setting.kind)}", f"{setting.about}{default}".strip())


def _takes(kind: Any) -> str:
    """What stands for the value in a help text."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(write(part) for part in parts if part != "")
    if origin is tuple:
        return f"{_takes(parts[0])},..."
    if _is_union(kind):
        return "|".join(_takes(part) for part in parts if part is not types.NoneType)
    return {int: "INT", float: "FLOAT", bool: "0|1", Path: "PATH"}.get(kind, "TEXT")


def _expected(kind: Any) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ("one of " if len(parts) > 1 else "") + ", ".join(write(part) for part in parts if part != "")
    if origin is tuple:
        return f"{_expected(parts[0]).removeprefix('a ')}s separated by commas"
    if _is_union(kind):
        return " or ".join("none" if part is types.NoneType else _expected(part) for part in parts)
    return {
        int: "a whole number",
        float: "a finite number",
        bool: "0, 1, true or false",
        Path: "a path on this machine",
    }[kind]


SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _convert(kind: Any, text: str) -> Any:
    """Raises ValueError if the text is no such value."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return {write(part): part for part in parts}[text] if text in map(write, parts) else _refuse(text)
    if origin is tuple:
        return tuple(_convert(parts[0], part) for part in text.split(",")) if text else ()
    if _is_union(kind):
        if types.NoneType in parts and text.lower() == "none":
            return None
        fitting = [part for part in parts if part is not types.NoneType and _fits(part, text)]
        return _convert(fitting[0], text) if fitting else _refuse(text)
    if kind is bool:
        return SWITCH[text.lower()] if text.lower() in SWITCH else _refuse(text)
    if kind is float:
        return float(text) if math.isfinite(float(text)) else _refuse(text)
    if kind is Path:
        return Path(text) if text and "://" not in text else _refuse(text)
    if kind in (int, str):
        return kind(text)
    raise TypeError(f"no flag can set a field of type {kind}")


def _refuse(text: str) -> typing.NoReturn:
    raise ValueError(text)


def _fits(kind: Any, text: str) -> bool:
    try:
        _convert(kind, text)
    except ValueError:
        return False
    return True


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _rebuild(chosen: Any, given: dict[str, Any], prefix: str) -> Any:
    changes = {}
    for field in dataclasses.fields(chosen):
        name, value = prefix + field.name, getattr(chosen, field.name)
        if name in given:
            changes[field.name] = given[name]
        elif any(other.startswith(f"{name}.") for other in given):
            changes[field.name] = _rebuild(value, given, f"{name}.")
    return dataclasses.replace(chosen, **changes)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _nearest(name: str, names: list[str]) -> str | None:
    """The name that was probably meant: of the same part and spelt alike, or of another part, or of none."""
    part, _, last = name.rpartition(".")
    beside = {other.rpartition(".")[2]: other for other in names if other.rpartition(".")[0] == part}
    elsewhere = {other.rpartition(".")[2]: other for other in names}
    for ends, likeness in ((beside, 0.7), (elsewhere, 0.85)):
        if near := difflib.get_close_matches(last, ends, 1, likeness):
            return ends[near[0]]
    return next(iter(difflib.get_close_matches(name, names, 1, 0.85)), None)


def _sentence(about: str) -> str:
    """A help text as part of a sentence."""
    return about[:1].lower() + about[1:].rstrip(".")


def _notes(cls: type) -> dict[str, str]:
    """The docstring under each field, own or inherited; {} where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _notes_by_class(base.__module__).get(base.__qualname__, {})
    return found


@cache
def _notes_by_class(module: str) -> dict[str, dict[str, str]]:
    if module in ("builtins", "typing"):
        return {}
    try:
        body = ast.parse(inspect.getsource(sys.modules[module])).body
    except (OSError, TypeError):
        return {}
    return {node.name: _field_notes(node) for node in body if isinstance(node, ast.ClassDef)}


def _field_notes(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
            case _:
                pass
    return found
