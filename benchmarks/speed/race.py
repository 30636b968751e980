"""Contestants that take turns, and the ratio of their times."""

import random
from collections.abc import Callable
from typing import Any

WINDOW = 0.15
"""Seconds of a turn, where a run is shorter."""


def race(contestants: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Mean seconds of one run of every contestant, in every round; a contestant returns its own seconds.

    They take turns, in another order every round, so that whatever else the machine does slows all of
    them alike. A turn is as many runs as fill WINDOW, at least one, after half as many that are not
    counted: they find the caches full of another's data and the threads asleep.
    """
    calls = {name: _calls(run) for name, run in contestants.items()}
    times: dict[Any, list[float]] = {name: [] for name in contestants}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for name in shuffle.sample(list(contestants), len(contestants)):
            run, count = contestants[name], calls[name]
            for _ in range((count + 1) // 2 if len(contestants) > 1 else 0):
                run()
            times[name].append(sum(run() for _ in range(count)) / count)
    return times


def ratio(times: list[float], others: list[float]) -> float:
    """Of two contestants' best rounds, since whatever else the machine does only ever slows them."""
    return min(times) / min(others)


def _calls(run: Callable[[], float]) -> int:
    taken = run()
    if taken < 1:  # The first run may still warm up; a longer one needs no second look.
        taken = run()
    return max(1, min(20, round(WINDOW / taken)))
