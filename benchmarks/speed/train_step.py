"""The training step: seconds, share of the ceiling, ratio to the peers."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from benchmarks.speed.measure import (
    OBJECTIVES,
    Product,
    Row,
    ceiling,
    config,
    operations,
    race,
    ratio,
    work,
)
from benchmarks.speed.peers import Facts, Peers, Times, compete, facts, in_turn, ours


class Case(NamedTuple):
    """A step to be measured."""

    size: str
    dtype: str
    rounds: int
    attention: str | None = None
    remat: bool | None = None
    """As the size has them, if None."""
    batch: int | None = None
    alone: bool = False
    """Whether each contestant has the memory for itself, and none takes turns."""

    @property
    def model(self) -> Row:
        """Settings of the network."""
        given = {"dtype": self.dtype, "attention": self.attention, "remat": self.remat}
        return {name: value for name, value in given.items() if value is not None}


CPU = [Case("64x4", "float32", 30), Case("S/2", "float32", 5)]
MORE = [
    Case("digits", "float32", 20),
    Case("64x4", "bfloat16", 8),
    Case("S/2", "bfloat16", 5),
    Case("B/2", "float32", 3, batch=4),
    Case("B/2", "bfloat16", 3, batch=4),
    Case("XL/2", "float32", 2, batch=4, alone=True),
]
GPU = [
    Case("digits", "float32", 50, alone=True),
    Case("B/2", "bfloat16", 20, "cudnn", alone=True),
    Case("B/2", "bfloat16", 20, "xla", alone=True),
    Case("B/2", "float32", 10, alone=True),
    Case("XL/2", "bfloat16", 10, "cudnn", remat=False, alone=True),
    Case("XL/2", "bfloat16", 10, "cudnn", remat=True, alone=True),
    Case("XL/2", "bfloat16", 10, "xla", remat=True, alone=True),
]


def run(device: str, peers: Peers) -> Iterator[Row]:
    """A row for every size, dtype and objective, and for every peer."""
    if device == "gpu":
        yield from _one_by_one(GPU, peers)
        return
    for case, contestants, notes in in_turn({(c, name): make for c in CPU for name, make in _makers(c, peers).items()}):
        yield from _rows(case, race(contestants, case.rounds), facts(contestants), notes)


def run_more(device: str, peers: Peers) -> Iterator[Row]:
    """The same for what takes a CPU longer: more sizes, and bfloat16. A GPU's set has them already."""
    del device
    return _one_by_one(MORE, peers)


def _one_by_one(cases: list[Case], peers: Peers) -> Iterator[Row]:
    for case in cases:
        yield from _rows(case, *compete(_makers(case, peers), case.rounds, together=not case.alone))


def _makers(case: Case, peers: Peers) -> dict[str, Callable[[], Any]]:
    step, plain = partial(ours, "step", size=case.size, batch=case.batch, **case.model), _config(case)
    peer = partial(peers.make, "step", plain.model, plain.batch_size)
    return {
        "ceiling": partial(Product, case.dtype),
        **{name: partial(step, objective=name) for name in OBJECTIVES},
        "PyTorch eager": partial(peer, compiled=False),
        "PyTorch compiled": partial(peer, compiled=True),
    }


def _config(case: Case, objective: str = "flow matching") -> Any:
    return config(case.size, objective, case.batch, **case.model)


def _rows(case: Case, times: Times, told: dict[str, Facts], notes: dict[str, str]) -> Iterator[Row]:
    about = {"size": case.size, "batch": _config(case).batch_size, **case.model}
    highest = ceiling(times["ceiling"])
    for name in (*OBJECTIVES, "PyTorch eager", "PyTorch compiled"):
        row = {**about, "who": f"ours, {name}" if name in OBJECTIVES else name}
        if name in notes:
            yield {**row, "note": notes[name]}
            continue
        seconds = statistics.median(times[name])
        row |= {"ms": 1e3 * seconds, **told[name].columns}
        if name in OBJECTIVES:
            row |= work(operations(_config(case, name)), seconds, highest)
            for other in [other for other in times if other not in ("ceiling", name)]:
                row[f"x {other}"] = ratio(times[name], times[other])
        yield row
