"""Our training step in a process of its own, for what is chosen when a process starts: the allocator."""

import json
import sys
import time

from benchmarks.speed.measure import Training, config


def main() -> None:
    """Make the step of the size that the first argument names; then take one for every line, and say its seconds."""
    step = Training(config(sys.argv[1]))
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        print("answer " + json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
