"""What we set out to reach, and whether the tables that were measured last say that we did."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speed.measure import Row


class Aim(NamedTuple):
    """A bound on what a row of a table says."""

    text: str
    part: str
    where: Row
    """What picks the row."""
    columns: tuple[str, ...]
    """Where the number stands; of several, the worst counts."""
    bound: float
    at_least: bool = False


_PYTORCH = ("x PyTorch eager", "x PyTorch compiled")
_FLOW: Row = {"who": "ours, flow matching"}
_SMALL, _S2 = {"size": "64x4", "dtype": "float32"}, {"size": "S/2", "dtype": "float32"}
_B2, _XL2 = {"size": "B/2", "dtype": "bfloat16"}, {"size": "XL/2", "dtype": "bfloat16"}
_ONE = {"steps": 1, "guided": False, "who": "ours"}
_CEILING = ("share of ceiling",)

AIMS = {
    "cpu": [
        Aim("step, 64x4: time over PyTorch's, eager", "train", _SMALL | _FLOW, _PYTORCH[:1], 0.9),
        Aim("step, S/2: time over PyTorch's better one", "train", _S2 | _FLOW, _PYTORCH, 0.9),
        Aim("step, S/2: share of the ceiling", "train", _S2 | _FLOW, _CEILING, 0.7, at_least=True),
        Aim(
            "step, 64x4: shortcut over flow matching",
            "train",
            _SMALL | {"who": "ours, shortcut"},
            ("x flow matching",),
            1.2,
        ),
        Aim(
            "step, S/2: shortcut over flow matching",
            "train",
            _S2 | {"who": "ours, shortcut"},
            ("x flow matching",),
            1.2,
        ),
        Aim(
            "one step of sampling, S/2, 16 images: time over PyTorch's better one",
            "sampler",
            _S2 | _ONE | {"batch": 16},
            _PYTORCH,
            0.9,
        ),
        Aim("compiling 28 blocks over compiling 2", "start", {"what": "depth 28 against depth 2"}, ("ratio",), 1.3),
        Aim("`shortcut --help`, seconds", "start", {"what": "shortcut --help"}, ("seconds",), 0.5),
        Aim("second copies of the state in a step, S/2, MiB", "memory", _S2, ("second copies",), 1),
    ],
    "gpu": [
        Aim("step, B/2, 256 images: share of the ceiling", "train", _B2 | _FLOW, _CEILING, 0.45, at_least=True),
        Aim("step, XL/2, 256 images: share of the ceiling", "train", _XL2 | _FLOW, _CEILING, 0.55, at_least=True),
        Aim(
            "step, B/2: time over PyTorch's, compiled (1.2 times as fast)", "train", _B2 | _FLOW, _PYTORCH[1:], 1 / 1.2
        ),
        Aim(
            "step, XL/2: time over PyTorch's, compiled (1.2 times as fast)",
            "train",
            _XL2 | _FLOW,
            _PYTORCH[1:],
            1 / 1.2,
        ),
        Aim(
            "one step of sampling, XL/2, 64 images: share of the ceiling",
            "sampler",
            _XL2 | _ONE | {"batch": 64},
            _CEILING,
            0.5,
            at_least=True,
        ),
    ],
}


def markdown(device: str, data: Path) -> str:
    """The aims of a device as a table, from the JSON files of the parts."""
    lines = ["| what | aim | measured | |", "|---|---|---|---|"]
    for aim in AIMS[device]:
        path = data / f"{device}-{aim.part}.json"
        value = measured(aim, json.loads(path.read_text())["rows"] if path.exists() else [])
        sign = "at least" if aim.at_least else "at most"
        found = "open" if value is None else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"
        verdict = "" if value is None else "met" if reached(aim, value) else "**missed**"
        lines.append(f"| {aim.text} | {sign} {aim.bound:.3g} | {found} | {verdict} |")
    return "\n".join(lines)


def measured(aim: Aim, rows: list[dict[str, Any]]) -> float | None:
    """The worst number of the first row that the aim is about and that has all of them, or nothing."""
    for row in rows:
        if all(row.get(name) == value for name, value in aim.where.items()) and all(c in row for c in aim.columns):
            values = [row[column] for column in aim.columns]
            return min(values) if aim.at_least else max(values)
    return None


def reached(aim: Aim, value: float) -> bool:
    """Whether the number is on the right side of the bound."""
    return value >= aim.bound if aim.at_least else value <= aim.bound
