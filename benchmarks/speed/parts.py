"""What is measured: training step, sampler, start and memory, each a list of cases and the rows that come of them."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speed.processes import Contestants, Outcome, compete
from benchmarks.speed.race import ratio

Row = dict[str, Any]

_DEMO: Row = {"image_size": 8, "channels": 1, "num_classes": 10, "patch_size": 4, "hidden_size": 128}
_DEMO |= {"depth": 4, "num_heads": 4, "scan": False}
_LATENT: Row = {"image_size": 32, "channels": 4, "num_classes": 1000, "patch_size": 2}
SIZES: dict[str, Row] = {
    "tiny": _DEMO | {"hidden_size": 8, "depth": 1, "num_heads": 1},
    "digits": _DEMO,
    "64x4": _DEMO | {"patch_size": 2, "hidden_size": 64, "scan": True},
    "S/2": _LATENT | {"image_size": 16, "hidden_size": 384, "depth": 12, "num_heads": 6, "scan": False},
    "B/2": _LATENT | {"hidden_size": 768, "depth": 12, "num_heads": 12},
    "XL/2": _LATENT | {"hidden_size": 1152, "depth": 28, "num_heads": 16},
}
"""Fields of the network; S/2 sees latents of 16 x 16 (64 tokens), B/2 and XL/2 of 32 x 32 (256 tokens)."""


class Case(NamedTuple):
    """A race of training steps or of samplers."""

    size: str
    batch: int
    rounds: int
    settings: Row = {"dtype": "float32"}  # noqa: RUF012
    guided: bool = False
    steps: tuple[int, ...] = (1,)


_XLA, _CUDNN = ({"dtype": "bfloat16", "attention": name} for name in ("xla", "cudnn"))
TRAIN = {
    "quick": [Case("tiny", 8, 1)],
    "cpu": [Case("64x4", 64, 30), Case("S/2", 16, 5)],
    "gpu": [
        Case("digits", 64, 50),
        Case("B/2", 256, 10),
        *(Case("B/2", 256, 20, settings) for settings in (_XLA, _CUDNN)),
        *(Case("XL/2", 256, 10, s) for s in (_XLA | {"remat": True}, _CUDNN | {"remat": True}, _CUDNN)),
    ],
}
SAMPLE = {
    "quick": [Case("tiny", 2, 1, guided=True, steps=(1, 2))],
    "cpu": [
        Case("digits", 1, 4, steps=(1, 4, 128)),
        Case("digits", 256, 5, guided=True, steps=(4,)),
        Case("S/2", 16, 7),
    ],
    "gpu": [
        Case(size, batch, 10, _CUDNN, guided, steps)
        for size in ("B/2", "XL/2")
        for batch, guided, steps in [(1, False, (1, 128)), (64, False, (1, 4)), (64, True, (1,))]
    ],
}
_XL2 = [("XL/2", 256, remat, accumulation) for remat in (False, True) for accumulation in (1, 16)]
MEMORY = {"quick": [("tiny", 8, False, 1)], "cpu": [("S/2", 16, False, 1), *_XL2]}
MEMORY["gpu"] = [*MEMORY["cpu"], ("B/2", 256, False, 1), ("B/2", 256, True, 1)]

OURS = ("ours, flow matching", "ours, shortcut")
PYTORCH = {"PyTorch eager": False, "PyTorch compiled": True}


def train(chosen: str, make: Contestants) -> Iterator[Row]:
    """Seconds of a step for every network, by two objectives and by PyTorch."""
    for case in TRAIN[chosen]:
        asked = {"model": SIZES[case.size] | case.settings, "batch": case.batch}
        makers = {who: partial(make.ours, "step", objective=who.removeprefix("ours, "), **asked) for who in OURS}
        outcome = _race(case, chosen, make, makers, partial(make.peer, "step", **asked), [{}])[0]
        yield from rows({"size": case.size, "batch": case.batch, **case.settings}, outcome)


def sample(chosen: str, make: Contestants) -> Iterator[Row]:
    """Seconds of a batch drawn, for several numbers of steps, guided and not."""
    for case in SAMPLE[chosen]:
        asked = {"model": SIZES[case.size] | case.settings, "batch": case.batch, "guided": case.guided}
        makers, variants = {"ours": partial(make.ours, "sample", **asked)}, [{"steps": steps} for steps in case.steps]
        outcomes = _race(case, chosen, make, makers, partial(make.peer, "sample", **asked), variants)
        about = {"size": case.size, **case.settings, "batch": case.batch, "guided": case.guided}
        for steps, outcome in zip(case.steps, outcomes, strict=True):
            for row in rows(about | {"steps": steps}, outcome, steps):
                yield row | ({"images/s": 1e3 * case.batch / row["ms"]} if "ms" in row else {})


def _race(case: Case, chosen: str, make: Contestants, ours: Row, peer: Any, variants: list[Row]) -> list[Outcome]:
    makers = {"ceiling": partial(make.ours, "ceiling", dtype=case.settings["dtype"]), **ours}
    makers |= {name: partial(peer, compiled=compiled) for name, compiled in PYTORCH.items()}
    # On a GPU, each contestant has the memory for itself.
    return compete(makers, case.rounds, chosen != "gpu", variants)


def rows(about: Row, outcome: Outcome, calls: int = 1) -> Iterator[Row]:
    """A row for every contestant but the ceiling; a run of ours makes `calls` times the operations that it tells."""
    times, facts, notes = outcome
    ceiling = facts["ceiling"]["operations"] / min(times["ceiling"])
    for name in [name for name in times if name != "ceiling"]:
        seconds = statistics.median(times[name])
        row = {**about, "who": name, "ms": 1e3 * seconds, "first run s": facts[name]["first run"]}
        row |= {"peak MiB": facts[name]["peak"] / 2**20} if "peak" in facts[name] else {}
        if name.startswith("ours"):
            done = calls * facts[name]["operations"]
            row |= {"GFLOP": done / 1e9, "ceiling TFLOP/s": ceiling / 1e12}
            row["share of ceiling"] = done / seconds / ceiling
            others = [other for other in (OURS[0], *PYTORCH) if other in times and other != name]
            row |= {f"x {other.removeprefix('ours, ')}": ratio(times[name], times[other]) for other in others}
        yield row
    yield from ({**about, "who": name, "note": note} for name, note in notes.items())


def start(chosen: str, make: Contestants) -> Iterator[Row]:
    """Seconds of fresh processes: medians, but of `train` one of each kind."""
    shortcut, turns = str(Path(sys.executable).with_name("shortcut")), 1 if chosen == "quick" else 3
    commands = {"python, importing nothing": [sys.executable, "-c", ""]}
    commands |= {f"import {name}": [sys.executable, "-c", f"import {name}"] for name in ("jax", "shortcut_models")}
    for what, command in (commands | {"shortcut --help": [shortcut, "--help"]}).items():
        yield {"what": what, "seconds": statistics.median(elapsed(command, make.env) for _ in range(turns))}
    small = "--batch-size=8 --model.hidden-size=8 --model.num-heads=1 --model.depth=1"
    settings = f"--max-steps=1 --log-interval=1 {small if chosen == 'quick' else ''}".split()
    with tempfile.TemporaryDirectory() as folder:
        env = make.env | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for state in ("empty", "filled"):
            seconds = elapsed([shortcut, "train", "digits", *settings, "--run-dir", f"{folder}/{state}"], env)
            yield {"what": f"train digits for one step and save, compilation cache: {state}", "seconds": seconds}


def elapsed(command: list[str], env: dict[str, str]) -> float:
    """Seconds of a process that must end well."""
    began = time.perf_counter()
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - began


def memory(chosen: str, make: Contestants) -> Iterator[Row]:
    """MiB that a training step holds."""
    for size, batch, remat, accumulation in MEMORY[chosen]:
        about = {"dtype": "float32" if size in ("tiny", "S/2") else "bfloat16", "remat": remat}
        asked = {"model": SIZES[size] | about, "batch": batch, "accumulation": accumulation}
        with make.ours("memory", **asked) as child:
            facts = {"note": child.error} if child.error else child.ask({"facts": True})
        yield {"size": size, "batch": batch, **about, "accumulation": accumulation, **facts}


PARTS = {"train": train, "sampler": sample, "start": start, "memory": memory}
