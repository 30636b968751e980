"""Contestants that live in processes of their own, as a user would run them: the peer, and ourselves."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speed.measure import Row, race
from shortcut_models import startup
from shortcut_models.networks import DiT

Times = dict[Any, list[float]]
"""Seconds of every contestant in every round."""


class Facts(NamedTuple):
    """What a process tells besides the seconds of its runs."""

    first_run: float
    """Seconds from its start to the end of its first run, which imports and compiles."""
    peak: float | None
    """Bytes that it held at most: on a GPU, from its start; else the process, after its first run."""
    temporary: int | None
    """Bytes that a step of ours needs besides its state."""

    @property
    def columns(self) -> Row:
        """For a row of a table."""
        peak = {} if self.peak is None else {"peak MiB": self.peak / 2**20}
        return {"first run s": self.first_run, **peak}


ABSENT = "absent: pip install 'shortcut-models[bench]', or --peer-python with torch and diffusers"


class Child:
    """A process that answers one JSON line with another; called, it runs once, as asked, and says its seconds."""

    def __init__(
        self, *command: str, without: tuple[str, ...] = (), tuned: bool = False, env: dict[str, str] | None = None
    ) -> None:
        """The allocator is the system's, as it is, unless `tuned`: then it keeps memory, as `shortcut train` does."""
        more = env or {}
        env = {name: value for name, value in os.environ.items() if name not in (startup.ALLOCATOR, *without)}
        env |= ({startup.ALLOCATOR: startup.KEEP_MEMORY} if tuned else {}) | more
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.began, self.first_run, self.answer = time.perf_counter(), 0.0, {}
        self.peak_was_reset = False
        self.process: Any = subprocess.Popen(command, **pipes, text=True, env=env)

    def __call__(self, **asked: Any) -> float:
        """Seconds, as the process says; raises RuntimeError with its words if it has none."""
        answer = self.ask(asked)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer, or {"error": why there is none}."""
        with suppress(BrokenPipeError):  # Then it has ended, which its silence tells, too.
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            # Compilers print to the same place.
            if line.startswith("answer "):
                self.answer = json.loads(line.removeprefix("answer "))
                if not self.first_run:
                    self.first_run = time.perf_counter() - self.began
                    self._reset_peak()
                return self.answer
        return {"error": f"the process ended with status {self.process.wait()}"}

    @property
    def facts(self) -> Facts:
        """What it has told so far, and what the system knows of it."""
        return Facts(self.first_run, self.answer.get("peak") or self._peak(), self.answer.get("temporary"))

    def _reset_peak(self) -> None:
        with suppress(OSError):  # Linux's alone.
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
            self.peak_was_reset = True

    def _peak(self) -> int | None:
        if not self.peak_was_reset:
            return None
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return 1024 * int(found[1]) if found else None  # None of a process that has ended.

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def ours(kind: str, *, tuned: bool = True, faked: int = 1, **asked: Any) -> Child | str:
    """What `benchmarks.speed.own` makes of `kind` as a contestant, or a sentence saying why there is none.

    Its CPU stands for `faked` devices; each of them is slower by a third than a CPU that is one.
    """
    command = [sys.executable, "-m", "benchmarks.speed.own", json.dumps({"kind": kind, **asked})]
    return _begun(Child(*command, tuned=tuned, env={"JAX_NUM_CPU_DEVICES": str(faked)}))[0]


class Peers:
    """PyTorch's contestants."""

    def __init__(self, python: str | None = None) -> None:
        self.python = python or sys.executable
        self.version = ""

    def make(self, kind: str, model: DiT, batch: int, *, compiled: bool, **more: Any) -> Child | str:
        """A contestant, or a sentence saying why there is none."""
        size = {"image": model.image_size, "patch": model.patch_size, "channels": model.channels, "batch": batch}
        size |= {"width": model.hidden_size, "depth": model.depth, "heads": model.num_heads}
        asked = {"kind": kind, "classes": model.num_classes, "dtype": model.dtype, "compiled": compiled}
        script = str(Path(__file__).with_name("peer.py"))
        command = [self.python, script, json.dumps({**asked, **size, **more})]
        made, answer = _begun(Child(*command, without=("PYTHONPATH",)))
        self.version = answer.get("torch", self.version)
        # Importing them takes seconds, so only what went wrong asks whether they are there.
        if isinstance(made, str) and not self._there():
            return ABSENT
        return made

    def _there(self) -> bool:
        command = [self.python, "-c", "import torch, diffusers"]
        return not subprocess.run(command, capture_output=True, check=False).returncode


def _begun(child: Child) -> tuple[Child | str, dict[str, Any]]:
    """The contestant after its first call, which compiles, or why it cannot run; and what it answered."""
    answer = child.ask({})
    if "error" in answer:
        child.close()
        return answer["error"], answer
    return child, answer


@contextmanager
def ready(makers: dict[Any, Callable[[], Any]]) -> Iterator[tuple[dict[Any, Any], dict[Any, str]]]:
    """All contestants that could be made, and why the others could not; their processes end with the block."""
    # Setting up takes longer than the race, and is mostly one thread's work: two at a time. What comes last takes
    # longest, as PyTorch's compiler does, so it begins.
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(reversed(makers), pool.map(lambda name: makers[name](), reversed(makers)), strict=True))
    made = {name: found[name] for name in makers}
    try:
        notes = {name: one for name, one in made.items() if isinstance(one, str)}
        yield {name: one for name, one in made.items() if name not in notes}, notes
    finally:
        for one in made.values():
            if isinstance(one, Child):
                one.close()


def in_turn(makers: dict[tuple[Any, str], Callable[[], Any]]) -> Iterator[tuple[Any, dict[str, Any], dict[str, str]]]:
    """Makers by case and name: for each case its contestants and why others are absent, after setting up all cases'."""
    with ready(makers) as (made, notes):
        for case in dict.fromkeys(case for case, _ in makers):
            contestants = {name: one for (of, name), one in made.items() if of == case}
            yield case, contestants, {name: note for (of, name), note in notes.items() if of == case}


def compete(
    makers: dict[Any, Callable[[], Any]], rounds: int, together: bool
) -> tuple[Times, dict[Any, Facts], dict[Any, str]]:
    """Times of all contestants that could be made, what their processes tell, and why the others could not be made.

    Together, they take turns, see `race`. One after the other, each has the device's memory for itself.
    """
    times: Times = {}
    told: dict[Any, Facts] = {}
    notes: dict[Any, str] = {}
    for group in [makers] if together else [{name: make} for name, make in makers.items()]:
        with ready(group) as (contestants, reasons):
            times |= race(contestants, rounds)
            told |= facts(contestants)
            notes |= reasons
    return times, told, notes


def facts(contestants: dict[Any, Any]) -> dict[Any, Facts]:
    """What those that are processes tell, while they live."""
    return {name: one.facts for name, one in contestants.items() if isinstance(one, Child)}
