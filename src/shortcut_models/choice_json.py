"""A choice of the catalogue as plain values, its name as "kind", and back."""

import dataclasses
import types
import typing
from typing import Any

from shortcut_models import catalogue
from shortcut_models.errors import InputError

_IMAGES = ("tfds", "folder", "zip", "huggingface", "webdataset", "npz", "idx", "fashion-mnist")
LATER: dict[str, Any] = {
    "start_as": "auto",
    "start_optimizer": False,
    "dit.position_dtype": "float32",
    "prepared.first": 0,
    "prepared.vae_identity": "",
    **{f"unavailable.{name}": "" for name in ("vae_identity", "encoded_by")},
    "shortcut.longer": False,
    "shortcut.overlap": False,
    "progressive.teacher_weights": "ema",
    **{f"{kind}.{name}": "" for kind in _IMAGES for name in ("vae", "vae_identity")},
    **{f"{kind}.vae_dtype": "float32" for kind in _IMAGES},
    **{f"{kind}.first": 0 for kind in _IMAGES},
}
"""Fields that came after files of today's format were written, such as these, and what a file without
them means: the behaviour of that time, which need not be today's default."""


MOST = 60
"""Characters of a file's own words, and such words, in a message: the file may be anybody's."""
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", types.NoneType: "null"}
"""What a message calls plain types."""


def to_json(names: dict[str, catalogue.Entry], choice: Any) -> dict[str, Any]:
    """A choice's name as "kind", and its fields: lists for tuples, dicts for dataclasses."""
    return {"kind": catalogue.kind_of(names, choice), **fields_to_json(choice)}


def from_json(names: dict[str, catalogue.Entry], data: Any, section: str) -> Any:
    """Undo `to_json`; `section` is what messages call it, such as "data".

    Raises InputError for a kind that is unknown, and for fields that are unknown or missing.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in names:
        raise InputError(f"{section}.kind is {_shown(kind)}, but this version knows {', '.join(names)}.")
    values = {name: value for name, value in data.items() if name != "kind"}
    return build(catalogue.find(section, names, kind), values, f"{section}.", f"{kind}.")


def fields_to_json(choice: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values."""
    return {field.name: _plain(getattr(choice, field.name)) for field in dataclasses.fields(choice)}


def build(cls: type, data: dict[str, Any], prefix: str, later: str) -> Any:
    """A dataclass from plain values; `prefix` and `later` are what its fields are called in messages and in LATER."""
    names = [field.name for field in dataclasses.fields(cls)]
    data = {**{name: LATER[later + name] for name in names if later + name in LATER}, **data}
    if set(names) != set(data):
        odd = sorted(set(names) ^ set(data))
        told = [prefix + (name if name in names or name.isidentifier() else _shown(name))[:MOST] for name in odd[:MOST]]
        raise InputError(f"the fields {', '.join(told)} are not those of this version.")
    hints = typing.get_type_hints(cls)

    def built(name: str) -> Any:
        value = data[name]
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, dict):
            return build(typing.cast(type, hints[name]), value, f"{prefix}{name}.", f"{later}{name}.")
        return _typed(_tuples(value), hints[name], f"{prefix}{name}")

    return cls(**{name: built(name) for name in names})


def _typed(value: Any, hint: Any, name: str) -> Any:
    """The value of a field, a whole number as a float where one belongs; raises InputError if its type is another.

    Python would not ask, and a network takes a text that it does not know for its default.
    """
    if _is(value, hint):
        return value
    if type(value) is int and _is(float(value), hint):
        return float(value)
    raise InputError(f"{name} is {_shown(value)}, but must be {_expected(hint)}.")


def _shown(value: Any) -> str:
    """A file's own value for a message: short, and without what a terminal would obey."""
    return repr(value)[:MOST]


def _is(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if kind is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if kind is tuple:
        each = [parts[0]] * len(value) if type(value) is tuple and parts[1:] == (...,) else parts
        return type(value) is tuple and len(value) == len(each) and all(map(_is, value, each))
    if kind in WORDS:
        return type(value) is kind
    # Of other hints, which networks of anybody's may have, only classes say what belongs there.
    return kind is typing.Any or not isinstance(kind, type) or isinstance(value, kind)


def _expected(hint: Any) -> str:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is typing.Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if kind is tuple:
        return f"a list, each {_expected(parts[0])}"
    return " or ".join(map(_expected, parts)) if parts else WORDS.get(kind, "a choice with its fields")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return fields_to_json(value)
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    """Lists back to tuples: frozen dataclasses have no lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
