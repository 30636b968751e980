"""Contestants in processes of their own: what they answer, what they hold, and how they end."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import peers
from benchmarks.speed.measure import config
from shortcut_models import startup

TINY = {"hidden_size": 16, "num_heads": 2, "depth": 2}


def test_a_missing_peer_says_so(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    absent = peers.Peers(str(tmp_path / "python"))
    assert absent.make("step", config("digits").model, 1, compiled=False) == peers.ABSENT


def test_a_peer_that_ends_says_so() -> None:
    child = peers.Child(sys.executable, "-c", "raise SystemExit(3)")
    child.process.wait()
    assert child.ask({}) == {"error": "the process ended with status 3"}
    with pytest.raises(RuntimeError, match="status 3"):
        child()
    assert peers._begun(child)[0] == "the process ended with status 3"


@pytest.mark.parametrize("together", [True, False])
def test_contestants_in_processes_of_their_own_compete_and_end(together: bool) -> None:
    code = "import sys, time\nfor _ in sys.stdin: print('noise\\nanswer {\"seconds\": 0.2}', flush=True)"
    children = [peers.Child(sys.executable, "-c", code) for _ in range(2)]
    makers = {str(i): partial(iter([child]).__next__) for i, child in enumerate(children)}
    times, told, notes = peers.compete(makers | {"absent": lambda: "no such thing"}, 3, together)
    assert times == {"0": [0.2] * 3, "1": [0.2] * 3}
    assert notes == {"absent": "no such thing"}
    assert told.keys() == {"0", "1"}
    assert [child.process.poll() for child in children] == [0, 0]


def test_a_process_tells_its_first_run_and_what_it_holds_after_it() -> None:
    # 256 MiB in the first run and 64 in the next; what is given back is forgotten.
    code = """import sys, time
for turn, _ in enumerate(sys.stdin):
    held = b"x" * 2**(28 - 2 * min(turn, 1))
    del held
    time.sleep(0.2)
    print('answer {"seconds": 1, "temporary": 7}', flush=True)"""
    child = peers.Child(sys.executable, "-c", code)
    child()
    first = child.facts
    assert 0.2 < first.first_run < 60
    child()
    later = child.facts
    child.close()
    assert later.first_run == first.first_run
    assert later.temporary == 7
    if sys.platform == "linux":
        assert first.peak is not None
        assert later.peak is not None
        assert first.peak < 2**26 < later.peak < 2**27
        assert later.columns == {"first run s": first.first_run, "peak MiB": later.peak / 2**20}


def test_what_a_device_held_counts_before_what_the_process_did() -> None:
    child = peers.Child(
        sys.executable, "-c", 'for _ in open(0): print(\'answer {"seconds": 1, "peak": 3}\', flush=True)'
    )
    child()
    assert child.facts.peak == 3
    child.close()


def test_our_step_in_a_process_of_its_own_has_the_allocator_that_is_asked_for() -> None:
    told = "print('answer', json.dumps({'is': os.environ.get(sys.argv[1], '')}), flush=True)"
    code = f"import json, os, sys\nfor _ in sys.stdin: {told}"
    for tuned, expected in ((True, startup.KEEP_MEMORY), (False, "")):
        child = peers.Child(sys.executable, "-c", code, startup.ALLOCATOR, tuned=tuned)
        assert child.ask({}) == {"is": expected}
        child.close()


def test_we_run_in_a_process_of_our_own() -> None:
    step = peers.ours("step", size="digits", undo="buffers not donated", batch=8, **TINY)
    assert isinstance(step, peers.Child)
    assert step() > 0
    drawn = peers.ours("sample", size="digits", batch=2, guided=True, **TINY)
    assert isinstance(drawn, peers.Child)
    assert drawn(steps=4) > 0
    for child in (step, drawn):
        child.close()


def test_what_keeps_us_from_running_is_told() -> None:
    found = peers.ours("sample", size="digits", batch=2, guided=True, hidden_size=15)
    assert isinstance(found, str)
    assert "15" in found


def test_all_cases_are_set_up_before_the_first_runs() -> None:
    made: list[Any] = []

    def make(what: Any) -> Callable[[], Any]:
        return lambda: made.append(what) or ("absent" if what == (2, "b") else what)

    makers = {(case, name): make((case, name)) for case in (1, 2) for name in "ab"}
    found = []
    for case, contestants, notes in peers.in_turn(makers):
        assert len(made) == 4
        found.append((case, contestants, notes))
    assert found == [(1, {"a": (1, "a"), "b": (1, "b")}, {}), (2, {"a": (2, "a")}, {"b": "absent"})]


def test_the_peers_program_finds_pythons_own_modules() -> None:
    # Its folder comes first on its path, so that a profile.py in there would stand for Python's.
    beside = {path.stem for path in Path(peers.__file__).parent.glob("*.py")}
    assert not beside & sys.stdlib_module_names
