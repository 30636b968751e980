"""Contestants that live in processes of their own, as a user would run them: the peer, and ourselves."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.speed.measure import race
from shortcut_models import startup
from shortcut_models.models import DiT

Times = dict[str, list[float]]
"""Seconds of every contestant in every round."""

ABSENT = "absent: pip install 'shortcut-models[bench]', or --peer-python with torch and diffusers"


class Child:
    """A process that answers one JSON line with another; called, it runs once and says its seconds."""

    def __init__(self, *command: str, without: tuple[str, ...] = (), tuned: bool = False) -> None:
        """The allocator is the system's, as it is, unless `tuned`: then it keeps memory, as `shortcut train` does."""
        env = {name: value for name, value in os.environ.items() if name not in (startup.ALLOCATOR, *without)}
        env |= {startup.ALLOCATOR: startup.KEEP_MEMORY} if tuned else {}
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process: Any = subprocess.Popen(command, **pipes, text=True, env=env)

    def __call__(self) -> float:
        """Seconds, as the process says; raises RuntimeError with its words if it has none."""
        answer = self.ask({})
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
                return json.loads(line.removeprefix("answer "))
        return {"error": f"the process ended with status {self.process.wait()}"}

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def ours(kind: str, *, tuned: bool = True, **asked: Any) -> Child | str:
    """What `benchmarks.speed.own` makes of `kind` as a contestant, or a sentence saying why there is none."""
    question = json.dumps({"kind": kind, **asked})
    return _begun(Child(sys.executable, "-m", "benchmarks.speed.own", question, tuned=tuned))[0]


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
        # Importing them takes ten seconds, so only what went wrong asks whether they are there.
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


def compete(makers: dict[str, Callable[[], Any]], rounds: int, together: bool) -> tuple[Times, dict[str, str]]:
    """Times of all contestants that could be made, and why the others could not.

    Together, they take turns, see `race`. One after the other, each has the device's memory for itself.
    """
    if together:
        # Setting up takes longer than the race, and is mostly one thread's work.
        with ThreadPoolExecutor(2) as pool:
            made = dict(zip(makers, pool.map(lambda make: make(), makers.values()), strict=True))
        notes = {name: one for name, one in made.items() if isinstance(one, str)}
        return _race({name: one for name, one in made.items() if name not in notes}, rounds), notes
    times, notes = {}, {}
    for name, make in makers.items():
        one = make()
        if isinstance(one, str):
            notes[name] = one
        else:
            times |= _race({name: one}, rounds)
    return times, notes


def _race(contestants: dict[str, Any], rounds: int) -> Times:
    try:
        return race(contestants, rounds)
    finally:
        for one in contestants.values():
            if isinstance(one, Child):
                one.close()
