import pytest

from benchmarks.speed.race import race, ratio


def test_contestants_take_turns_of_like_length() -> None:
    order: list[str] = []

    def slow() -> float:
        order.append("S")
        return 10.0 + len(order)

    def quick() -> float:
        order.append("q")
        return 0.05

    times = race({"slow": slow, "quick": quick}, 8)
    # A slow one runs once a turn, a quick one until the turn is filled; before that, half as often, at least once.
    assert order[:3] == ["S", "q", "q"]
    found = "".join(order[3:])
    rounds = [found[i : i + 7] for i in range(0, len(found), 7)]
    assert len(rounds) == 8
    assert set(rounds) == {"SSqqqqq", "qqqqqSS"}
    assert times["quick"] == pytest.approx([0.05] * 8)
    # The second of the two runs counts.
    assert times["slow"] == [10.0 + 4 + 7 * i + turn.rindex("S") for i, turn in enumerate(rounds)]


def test_a_contestant_that_runs_alone_needs_no_warming() -> None:
    calls: list[int] = []

    def run() -> float:
        calls.append(0)
        return 0.05

    race({"one": run}, 4)
    assert len(calls) == 2 + 4 * 3


def test_rounds_that_something_slowed_leave_a_ratio_as_it_is() -> None:
    assert ratio([4.7, 4.7, 3.0, 4.8], [2.0, 3.1, 2.0, 2.1]) == 1.5
