"""Contestants in processes of their own, as a user would run them: ours, and PyTorch's."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speed.race import race

OURS = "from shortcut_models import startup; startup.prepare(); from benchmarks.speed import ours; ours.main()"
"""The allocator is set as `shortcut train` sets it, before JAX is imported."""
PEER = Path(__file__).with_name("peer.py")
PEER_NEEDS = "it needs torch and diffusers: pip install 'shortcut-models[bench]', or --peer-python"


class Child:
    """A process that answers one JSON line with another; called, it runs once, as asked, and says its seconds."""

    def __init__(self, *command: str, env: dict[str, str] | None = None) -> None:
        """Starts it, and waits for its first run."""
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        began, self.peak_was_reset = time.perf_counter(), False
        self.process: Any = subprocess.Popen(command, **pipes, text=True, env=env)
        self.error: str = self.ask({}).get("error", "")  # Why it cannot run, if it cannot.
        self.first_run = time.perf_counter() - began
        with suppress(OSError):  # Only Linux has it.
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
            self.peak_was_reset = True

    def __call__(self, **asked: Any) -> float:
        """Seconds of the run; raises RuntimeError with the process's words if there are none."""
        answer = self.ask(asked)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer, or {"error": why there is none}."""
        with suppress(BrokenPipeError):  # The process has ended; its silence says so below.
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("answer "):  # Compilers print to the same pipe.
                return json.loads(line.removeprefix("answer "))
        return {"error": f"the process ended with status {self.process.wait()}"}

    def facts(self) -> dict[str, Any]:
        """What it says of itself; bytes at its peak since the first run, and seconds from start to that run's end."""
        status = Path(f"/proc/{self.process.pid}/status").read_text() if self.peak_was_reset else ""
        peak = re.search(r"VmHWM:\s*(\d+) kB", status)
        held = {"peak": 1024 * int(peak[1])} if peak else {}
        return {"first run": self.first_run, **held, **self.ask({"facts": True})}

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Contestants:
    """Makes contestants for a device; `kept` is an empty folder for what JAX and PyTorch compile."""

    def __init__(self, device: str, kept: Path, peer_python: str | None = None) -> None:
        self.python, self.about = peer_python or sys.executable, {}
        self.env = dict(os.environ) | {"JAX_COMPILATION_CACHE_DIR": str(kept / "jax")}
        # JAX leaves a GPU's memory to its peer; PyTorch compiles anew in every run of the benchmark.
        self.env |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TORCHINDUCTOR_CACHE_DIR": str(kept / "torch")}
        on_cpu = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.env |= on_cpu if device == "cpu" else {"JAX_PLATFORMS": "cuda"}

    def ours(self, kind: str, **asked: Any) -> Child:
        """What `ours.py` makes of `kind`."""
        return Child(sys.executable, "-c", OURS, json.dumps({"kind": kind, **asked}), env=self.env)

    def peer(self, kind: str, **asked: Any) -> Child:
        """What `peer.py` makes of `kind`."""
        env = {name: value for name, value in self.env.items() if name != "PYTHONPATH"}
        child = Child(self.python, str(PEER), json.dumps({"kind": kind, **asked}), env=env)
        if "ended with" in child.error:
            child.error += f"; {PEER_NEEDS}"
        self.about |= {} if child.error else {"torch": child.facts()["torch"]}
        return child


class Outcome(NamedTuple):
    """What a race tells of each contestant."""

    times: dict[str, list[float]]
    facts: dict[str, dict[str, Any]]
    notes: dict[str, str]  # Why a contestant is missing.


def compete(
    makers: dict[str, Callable[[], Child]], rounds: int, together: bool, variants: Sequence[dict[str, Any]] = ({},)
) -> list[Outcome]:
    """Race all contestants that can be made, once for each variant of what a run is asked.

    Together, they take turns; one after the other, each has the device's memory for itself.
    """
    outcomes = [Outcome({}, {}, {}) for _ in variants]
    for group in [makers] if together else [{name: make} for name, make in makers.items()]:
        with ExitStack() as ends:
            children = {name: ends.enter_context(make()) for name, make in group.items()}
            running = {name: child for name, child in children.items() if not child.error}
            for outcome, asked in zip(outcomes, variants, strict=True):
                outcome.times.update(race({name: partial(child, **asked) for name, child in running.items()}, rounds))
            facts = {name: child.facts() for name, child in running.items()}
            for outcome in outcomes:
                outcome.facts.update(facts)
                outcome.notes.update({name: child.error for name, child in children.items() if child.error})
    return outcomes
