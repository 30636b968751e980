"""Our training step or sampler in a process of its own, as whoever uses it has it: one JSON line is one run."""

import json
import sys
from typing import Any

import jax

from benchmarks.speed import choices
from benchmarks.speed.measure import Training, config, seconds
from benchmarks.speed.sampler import Sampler


def step(size: str, objective: str = "flow matching", undo: str = "", following: bool = False, **model: Any) -> Any:
    """A training step, with a choice undone or not waited for if that is asked."""
    plain = config(size, objective, **model)
    return choices.without(undo, plain) if undo else (choices.Following if following else Training)(plain)


def sample(size: str, batch: int, steps: int, guided: bool, **model: Any) -> Sampler:
    """The drawing of one batch."""
    return Sampler(config(size, **model).model, batch, steps, guided)


def main() -> None:
    """Make what the first argument describes at the first line; run it once for every line, and say its seconds."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    make, run = {"step": step, "sample": sample}[asked.pop("kind")], None
    for _ in sys.stdin:
        try:
            run = run or make(**asked)
            answer: dict[str, Any] = {"seconds": seconds(run)}
        except jax.errors.JaxRuntimeError as error:  # Out of memory, most likely.
            answer = {"error": str(error).splitlines()[0][:200]}
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
