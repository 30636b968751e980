"""Our training step in a process of its own, as whoever trains has it: one JSON line is one step."""

import json
import sys
import time
from typing import Any

import jax

from benchmarks.speed.measure import Training, config


def main() -> None:
    """Make the step that the first argument describes; take one for every line, and say its seconds."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    step = None
    for _ in sys.stdin:
        try:
            step = step or Training(config(asked["size"], asked["objective"], **asked["model"]))
            began = time.perf_counter()
            step()
            answer: dict[str, Any] = {"seconds": time.perf_counter() - began}
        except jax.errors.JaxRuntimeError as error:  # Out of memory, most likely.
            answer = {"error": str(error).splitlines()[0][:200]}
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
