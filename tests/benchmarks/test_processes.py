"""Contestants in processes of their own: what they answer, what they hold, and how they end."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.speed import processes
from benchmarks.speed.processes import Child, Contestants, compete


def test_a_process_that_ends_says_so() -> None:
    with Child(sys.executable, "-c", "raise SystemExit(3)") as child:
        assert child.error == "the process ended with status 3"
        with pytest.raises(RuntimeError, match="status 3"):
            child()


@pytest.mark.parametrize("together", [True, False])
def test_all_that_can_run_compete_in_every_variant_and_end(together: bool) -> None:
    # A run takes as many seconds as it is asked to; a first run is asked nothing.
    code = """import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    answer = {"of": OWN} if "facts" in asked else {"seconds": OWN * asked.get("n", 1)}
    print("answer", json.dumps(answer), flush=True)"""
    made: list[Child] = []

    def make(own: int) -> Child:
        # One after the other, each has the device for itself.
        assert together or all(child.process.poll() == 0 for child in made)
        made.append(Child(sys.executable, "-c", code.replace("OWN", str(own))))
        return made[-1]

    makers = {"a": partial(make, 2), "b": partial(make, 3), "none": partial(Child, sys.executable, "-c", "")}
    one, five = compete(makers, 2, together, [{"n": 1}, {"n": 5}])
    assert one.times == {"a": [2, 2], "b": [3, 3]}
    assert five.times == {"a": [10, 10], "b": [15, 15]}
    assert one.facts.keys() == five.facts.keys() == {"a", "b"}
    assert (one.facts["a"]["of"], one.facts["b"]["of"]) == (2, 3)
    assert one.notes == five.notes == {"none": "the process ended with status 0"}
    assert [child.process.poll() for child in made] == [0, 0]


def test_a_process_tells_its_first_run_and_what_it_holds_after_it() -> None:
    # 256 MiB in the first run and 64 in the next: what was given back before the race does not count.
    code = """import sys, time
for turn, _ in enumerate(sys.stdin):
    held = b"x" * 2**(28 - 2 * min(turn, 1))
    del held
    time.sleep(0.1)
    print('answer {"seconds": 1}', flush=True)"""
    with Child(sys.executable, "-c", code) as child:
        first = child.facts()
        child()
        later = child.facts()
    assert 0.1 < first["first run"] == later["first run"] < 60
    if sys.platform == "linux":
        assert first["peak"] < 2**26 < later["peak"] < 2**27


def test_what_a_device_held_counts_before_what_the_process_did() -> None:
    code = 'for _ in open(0): print(\'answer {"seconds": 1, "peak": 3}\', flush=True)'
    with Child(sys.executable, "-c", code) as child:
        assert child.facts()["peak"] == 3


def test_a_missing_peer_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with Contestants("cpu", tmp_path, str(tmp_path / "python")).peer("step", model={}) as child:
        assert child.error == f"the process ended with status 1; {processes.PEER_NEEDS}"


def test_the_peer_measures_on_the_same_device_and_finds_nothing_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "src")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    on_cpu, on_gpu = Contestants("cpu", tmp_path), Contestants("gpu", tmp_path)
    assert (on_cpu.env["CUDA_VISIBLE_DEVICES"], on_cpu.env["JAX_PLATFORMS"]) == ("", "cpu")
    assert (on_gpu.env["CUDA_VISIBLE_DEVICES"], on_gpu.env["JAX_PLATFORMS"]) == ("0", "cuda")
    told = "print('answer', json.dumps({'torch': [os.environ.get(n) for n in NAMES]}), flush=True)"
    names = ["PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR", "CUDA_VISIBLE_DEVICES"]
    script = tmp_path / "peer.py"
    script.write_text(f"import json, os\nNAMES = {names}\nfor _ in open(0): {told}")
    monkeypatch.setattr(processes, "PEER", script)
    with on_cpu.peer("step"):
        assert on_cpu.about == {"torch": [None, str(tmp_path / "torch"), ""]}
    assert os.environ["PYTHONPATH"] == "src"


def test_the_peers_program_finds_pythons_own_modules() -> None:
    # Its folder comes first on its path, so that a profile.py in there would stand for Python's.
    beside = {path.stem for path in Path(processes.__file__).parent.glob("*.py")}
    assert not beside & sys.stdlib_module_names
