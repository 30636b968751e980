"""A pickle read by a closed interpreter: some forty opcodes, and nothing that a file names is ever called.

A pickle is a program for a small stack machine, and one of its opcodes calls any function that it
names. Python's own `pickle.Unpickler` can be told to know few names, but its other opcodes still
allocate whatever lengths a file promises, and nest without end. Here a name is only a `Name`, a call
of an allowed one only a `Made` that keeps its arguments, and bytes stay where they lie in the file:
what is read is a description, out of which other modules make arrays (see `pickled_arrays` and
`torch_file`). Opcodes are those that Python's pickler writes in protocols 2 to 5 for such files;
https://docs.python.org/3/library/pickletools.html describes each.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shortcut_models.errors import InputError

MOST_OPCODES = 200_000
"""A checkpoint of XL's 28 blocks with its optimiser's state has some 55,000; so many need a quarter of a second."""
DEEPEST = 16
"""Levels of names in a tree of parameters."""
LONGEST_TEXT = 1 << 16
LONGEST_INTEGER = 16
"""Bytes; PyTorch's magic number has ten."""
LARGEST_KEY = 1 << 20
"""Integers name parameters by their index. Larger ones could be chosen to collide in a dict."""


def shown(name: object, most: int = 60) -> str:
    """A file's own word for a message: quoted, cut to a sane length, control characters escaped."""
    text = name if isinstance(name, str) else type(name).__name__
    return repr(text if len(text) <= most else f"{text[:most]}...")


class Damaged(InputError):  # noqa: N818 - a file is
    """Says what is wrong in words that complete "FILE cannot be read: "."""


@dataclass(frozen=True)
class Name:
    """A function or class that the file names; only named, never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Made:
    """What a call of an allowed name would have made: its arguments, and the state set on it, if any."""

    by: str
    """The full name, or "persistent id"."""
    args: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Grammar:
    """The full names that one kind of file may use, exactly, and how."""

    calls: frozenset[str] = frozenset()
    """Functions and classes that may be called with arguments (REDUCE)."""
    makes: frozenset[str] = frozenset()
    """Classes of which an instance may be made without calling them (NEWOBJ)."""
    states: frozenset[str] = frozenset()
    """Those among both whose instances may be given a state (BUILD)."""
    mentions: frozenset[str] = frozenset()
    """Names that may stand as arguments, but are not called."""
    persistent: bool = False
    """Whether the file may point outside of itself, as PyTorch's do for storages."""

    def knows(self, name: str) -> bool:
        """Whether the name may be used at all."""
        return name in self.calls or name in self.makes or name in self.mentions


def read_pickle(data: memoryview, grammar: Grammar, start: int = 0) -> tuple[Any, int]:
    """The object that the pickle at `start` describes, and where the pickle ends.

    The object consists of dicts (with text or small integers as keys), lists, tuples, text, numbers,
    None, `Name`, `Made`, and views of `data` in place of bytes. Containers may be shared, and even hold
    themselves: whoever walks them must count (see `tree_of`). Raises `Damaged`.
    """
    return _Machine(data, grammar, start).run()


def tree_of(kept: Any, leaf: Callable[[Any], Any]) -> dict[str, Any]:
    """Nested dicts as the file has them, each entry that is no dict replaced by `leaf(entry)`.

    Raises `Damaged` for what is no dict, for a dict that is there twice (2 kB of shared dicts can
    stand for 2^40 entries, and a dict can hold itself), and for more than DEEPEST levels.
    """
    seen: set[int] = set()

    def walk(node: Any, depth: int) -> Any:
        if type(node) is not dict:
            return leaf(node)
        if id(node) in seen or depth > DEEPEST:
            raise Damaged("its parameters are nested within one another" if depth > DEEPEST else "it has a dict twice")
        seen.add(id(node))
        return {str(name): walk(value, depth + 1) for name, value in node.items()}

    if type(kept) is not dict:
        raise Damaged(f"it has a {type(kept).__name__} where parameters should be")
    return walk(kept, 0)


@dataclass(eq=False, repr=False)  # A repr would be as large as the file.
class _Machine:
    """The stack machine: a position in the file, a stack, marks into it, and a memo."""

    data: memoryview
    grammar: Grammar
    at: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> tuple[Any, int]:
        for _ in range(MOST_OPCODES):
            if self.at >= len(self.data):
                raise Damaged("it ends in the middle")
            code = self.data[self.at]
            self.at += 1
            if code == STOP:
                return self.pop(), self.at
            operation = OPCODES.get(code)
            if operation is None:
                raise Damaged(f"byte {self.at - 1:,} ({code:#04x}) is no opcode that a checkpoint needs")
            operation(self)
        raise Damaged(f"it has more than {MOST_OPCODES:,} opcodes, far more than a checkpoint needs")

    def take(self, length: int) -> memoryview:
        """The next bytes of the file, where they lie."""
        left = len(self.data) - self.at
        if length > left:
            raise Damaged(f"it promises {length:,} bytes at byte {self.at:,}, but {left:,} are left")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, length: int) -> str:
        if length > LONGEST_TEXT:
            raise Damaged(f"it has a text of {length:,} bytes, longer than any name in a checkpoint")
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError:
            raise Damaged(f"the text before byte {self.at:,} is no UTF-8") from None

    def line(self) -> str:
        piece = bytes(self.data[self.at : self.at + 256])
        if b"\n" not in piece:
            raise Damaged(f"the name at byte {self.at:,} has no end")
        text = self.text(piece.index(b"\n"))
        self.at += 1
        return text

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged(f"byte {self.at - 1:,} needs an object where there is none")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise Damaged(f"byte {self.at - 1:,} ends a list that has no start")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def remember(self, index: int) -> None:
        if index > MOST_OPCODES:
            raise Damaged(f"it numbers an object {index:,}, more than it can have")
        value = self.pop()
        self.memo[index] = value
        self.stack.append(value)

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Damaged(f"it refers to an object {index:,} that it does not have")
        self.stack.append(self.memo[index])

    def protocol(self) -> None:
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            raise Damaged(f"it is a pickle of protocol {version}; 2 to 5 are known")

    def frame(self) -> None:
        length = self.number("<Q")
        self.take(length)  # Only to see that it is there: what it frames is read next.
        self.at -= length

    def integer(self) -> None:
        length = self.take(1)[0]
        if length > LONGEST_INTEGER:
            raise Damaged(f"it has an integer of {length} bytes")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def tuple(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.pop()
        if type(target) is not list:
            raise Damaged(f"it appends to a {type(target).__name__}")
        target += items
        self.stack.append(target)

    def set_items(self, items: list[Any]) -> None:
        target = self.pop()
        if type(target) is not dict or len(items) % 2:
            raise Damaged(f"it sets names in a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            other: Any = key
            if type(key) is int and 0 <= key < LARGEST_KEY:
                other = str(key)
            elif type(key) is str:
                other = int(key) if key.isascii() and key.isdigit() and len(key) < 8 else key
            else:
                raise Damaged(f"it has a {type(key).__name__} where a name should be")
            if key in target or other in target:
                raise Damaged(f"it has the name {shown(str(key))} twice")
            target[key] = value
        self.stack.append(target)

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Damaged("it names a function by something other than text")
        # Compared as a pair first: "a" + "b.c" is not "a.b" + "c", and no allowed name has a dot in it.
        if "." in name or not self.grammar.knows(f"{module}.{name}"):
            raise Damaged(f"it asks for {shown(f'{module}.{name}')}, which no checkpoint of a network needs")
        self.stack.append(Name(module, name))

    def stack_name(self) -> None:
        name = self.pop()
        self.name(self.pop(), name)

    def call(self, allowed: frozenset[str]) -> None:
        args, function = self.pop(), self.pop()
        if type(function) is not Name or type(args) is not tuple or str(function) not in allowed:
            raise Damaged(
                f"it calls {shown(str(function) if type(function) is Name else function)} in a way "
                "that no checkpoint does"
            )
        if str(function) == "collections.OrderedDict":
            if args:
                raise Damaged("it makes an OrderedDict in a way that no checkpoint does")
            self.stack.append({})
        else:
            self.stack.append(Made(str(function), args))

    def set_state(self) -> None:
        state, target = self.pop(), self.pop()
        if type(target) is dict and type(state) is dict and list(state) == ["_metadata"]:
            pass  # PyTorch's versions of a network's parts; nothing here depends on them.
        elif type(target) is Made and target.by in self.grammar.states and target.state is None:
            target.state = state
        else:
            raise Damaged(f"it sets the state of a {type(target).__name__} that has none")
        self.stack.append(target)

    def persistent_id(self) -> None:
        if not self.grammar.persistent:
            raise Damaged("it points to something outside of itself")
        self.stack.append(Made("persistent id", (self.pop(),)))


STOP = ord(".")
OPCODES: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("J"): lambda m: m.stack.append(m.number("<i")),
    ord("K"): lambda m: m.stack.append(m.number("<B")),
    ord("M"): lambda m: m.stack.append(m.number("<H")),
    ord("G"): lambda m: m.stack.append(m.number(">d")),
    0x8A: _Machine.integer,
    ord("X"): lambda m: m.stack.append(m.text(m.number("<I"))),
    0x8C: lambda m: m.stack.append(m.text(m.number("<B"))),
    ord("B"): lambda m: m.stack.append(m.take(m.number("<I"))),
    ord("C"): lambda m: m.stack.append(m.take(m.number("<B"))),
    0x8E: lambda m: m.stack.append(m.take(m.number("<Q"))),
    0x96: lambda m: m.stack.append(m.take(m.number("<Q"))),
    ord(")"): lambda m: m.stack.append(()),
    0x85: lambda m: m.tuple(1),
    0x86: lambda m: m.tuple(2),
    0x87: lambda m: m.tuple(3),
    ord("t"): lambda m: m.stack.append(tuple(m.pop_mark())),
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: _Machine.stack_name,
    ord("R"): lambda m: m.call(m.grammar.calls),
    0x81: lambda m: m.call(m.grammar.makes),
    ord("b"): _Machine.set_state,
    ord("Q"): _Machine.persistent_id,
}
"""In order: protocol and frame, numbers, text, bytes, containers, memo, names, calls and state."""
