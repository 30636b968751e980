"""What is ours in a process of its own, as whoever uses it has it: one JSON line is one run."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from benchmarks.speed import choices, loop, sampler_choices
from benchmarks.speed.measure import Training, config, seconds

Run = Callable[..., Any]


def step(
    size: str,
    objective: str = "flow matching",
    undo: str = "",
    batch: int | None = None,
    sharding: Any = "dp",
    devices: int = 1,
    **model: Any,
) -> Training:
    """A training step, with a choice undone if that is asked, on the first of the devices."""
    plain = replace(config(size, objective, batch, **model), sharding=sharding)
    return choices.without(undo, plain) if undo else Training(plain, devices)


def sample(size: str, batch: int, guided: bool, steps: int = 1, undo: str = "", **model: Any) -> Run:
    """The drawing of one batch, by as many steps as every run asks for."""
    return partial(sampler_choices.without(undo, config(size, **model).model, batch, guided), steps=steps)


KINDS: dict[str, Run] = {"step": step, "loop": loop.Loop, "sample": sample, "budgets": sampler_choices.Budgets}


def main() -> None:
    """Make what the first argument describes at the first line; run it as every line asks, and say its seconds."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    make, run = KINDS[asked.pop("kind")], None
    for line in sys.stdin:
        try:
            run = run or make(**asked)
            answer: dict[str, Any] = {"seconds": seconds(partial(run, **json.loads(line)))}
            answer |= {"temporary": run.temporary} if isinstance(run, Training) else {}
            answer |= {"peak": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")}  # A CPU has none.
        except Exception as error:  # Out of memory, most likely; whatever it is belongs into its row.
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
