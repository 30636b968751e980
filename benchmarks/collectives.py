"""What a compiled program sends between devices: read from its text, with the bytes.

XLA inserts the communication, so only the compiled program says what it is. The test of the training
step (tests/test_collectives.py) and the page on scaling (scaling.py) both read it here.
"""

import re
from collections import Counter
from math import prod
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "f16": 2,
    "bf16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
}
_BYTES |= {"u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|branch_computations|\w+_computation)=(\{[^}]*\}|%?[\w.\-]+)")


class Collective(NamedTuple):
    """One operation between devices."""

    kind: str
    """One of KINDS."""
    size: int
    """Bytes of the whole: what all devices hold after a gather or a reduction, or before a reduce-scatter."""
    turns: int
    """How often one run of the program does it: inside a scan, the scan's length."""
    name: str
    """Where in the traced program it comes from."""


class Instruction(NamedTuple):
    """One operation of a compiled program."""

    shape: str
    operation: str
    rest: str


def collectives(program: str) -> list[Collective]:
    """All collectives of a compiled program, `jitted.lower(...).compile().as_text()`.

    A loop counts its known number of turns. Raises ValueError for a loop with collectives whose
    number of turns the compiler does not know.
    """
    computations, entry = _parse(program)
    return _walk(computations, entry, 1)


def bytes_by_kind(found: list[Collective]) -> dict[str, int]:
    """Bytes of one run of the program, turns included, for each kind that occurs."""
    total: Counter[str] = Counter()
    for one in found:
        total[one.kind] += one.size * one.turns
    return dict(total)


def _parse(program: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """The computations of a compiled program, their instructions by name, and the one that it starts with."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", {}
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            # Long tuples carry comments, /*index=5*/, which only clutter.
            shape = re.sub(r"/\*.*?\*/", "", instruction[2])
            current[instruction[1]] = Instruction(shape, instruction[3], instruction[4])
    return computations, entry


def _walk(computations: dict[str, dict[str, Instruction]], name: str, turns: int | None) -> list[Collective]:
    found = []
    for one in computations[name].values():
        kind = one.operation.removesuffix("-start")
        if kind in KINDS:
            if turns is None:
                raise ValueError(f"{kind} in a loop whose number of turns is unknown: {one.rest[:200]}")
            source = re.search(r'op_name="([^"]*)"', one.rest)
            size = _whole(one, kind, computations[name])
            if kind == "all-gather" and _widened(one, computations[name], computations):
                size //= 2
            found.append(Collective(kind, size, turns, source[1] if source else ""))
            continue
        inner = turns
        if one.operation == "while":
            known = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', one.rest)
            inner = turns * int(known[1]) if known and turns is not None else None
        for called in _CALLED.findall(one.rest):
            for target in re.findall(r"[\w.\-]+", called):
                found += _walk(computations, target, inner) if target in computations else []
    return found


def _whole(one: Instruction, kind: str, others: dict[str, Instruction]) -> int:
    if kind == "reduce-scatter":
        operands = re.findall(r"%([\w.\-]+)", one.rest.split("),")[0])
        return sum(_size(others[operand].shape) for operand in operands)
    if one.operation in ("all-gather-start", "collective-permute-start"):
        # (operands, results, ...): an asynchronous one names both.
        return max(_size(part) for part in re.findall(r"\w+\[[^\]]*\]", one.shape))
    return _size(one.shape)


def _widened(one: Instruction, others: dict[str, Instruction], computations: dict[str, dict[str, Instruction]]) -> bool:
    """Whether what is sent was bfloat16 until then: XLA's CPU backend alone makes float32 of it to send it."""
    operand = re.search(r"%([\w.\-]+)", one.rest)
    source = others.get(operand[1]) if operand else None
    if source and source.operation == "fusion" and (called := re.search(r"calls=%?([\w.\-]+)", source.rest)):
        others = computations[called[1]]
        source = list(others.values())[-1]  # The root comes last.
    if source is None or source.operation != "convert" or not one.shape.startswith("f32"):
        return False
    before = re.search(r"%([\w.\-]+)", source.rest)
    return before is not None and others[before[1]].shape.startswith("bf16")


def _size(shape: str) -> int:
    parts = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return int(sum(_BYTES[kind] * prod(int(n) for n in dims.split(",") if n) for kind, dims in parts))
