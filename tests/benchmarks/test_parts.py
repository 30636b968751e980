"""What is measured, on networks so small that it takes a moment, and the numbers that rows are made of."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.scaling import Machine, expected
from benchmarks.speed import __main__, ours, parts
from benchmarks.speed.processes import Contestants, Outcome
from shortcut_models.model import Model
from shortcut_models.presets import get_preset

TINY = parts.SIZES["tiny"] | {"scan": True}
REPOSITORY = Path(__file__).parents[2]

PEER = """#!{python}
import json, sys
given = json.loads(sys.argv[2])
for line in sys.stdin:
    told = {{"torch": "2.0", "peak": 2**21}} if "facts" in line else {{"seconds": 2.0 if given["compiled"] else 4.0}}
    print("answer", json.dumps(told), flush=True)
"""


def test_the_quick_command_runs_and_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = tmp_path / "python"
    peer.write_text(PEER.format(python=sys.executable))
    peer.chmod(0o755)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    pages = [path.read_bytes() for path in (REPOSITORY / "docs").glob("*.md")]
    command = [sys.executable, "-m", "benchmarks.speed", "sampler", "--quick", "--peer-python", str(peer)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    report = json.loads((tmp_path / "speed-quick-sampler.json").read_text())
    assert report["command"] == "python -m benchmarks.speed sampler --device cpu --quick"
    assert report["device"] == "1 x cpu"
    assert report["versions"]["jax"] == jax.__version__
    assert report["about"]["torch"] == "2.0"
    assert report["about"]["largest product, float32, TFLOP/s"] > 0
    for steps, (own, eager, compiled) in zip((1, 2), (report["rows"][:3], report["rows"][3:]), strict=True):
        assert [row["who"] for row in (own, eager, compiled)] == ["ours", *parts.PYTORCH]
        assert own["steps"] == eager["steps"] == steps
        assert (eager["ms"], eager["peak MiB"], compiled["ms"]) == (4000, 2, 2000)
        assert 0 < own["ms"] < 1000
        assert own["x PyTorch eager"] == pytest.approx(own["ms"] / 4000)
        assert own["x PyTorch compiled"] == pytest.approx(own["ms"] / 2000)
        assert 0 < own["share of ceiling"] < 1
    assert "| tiny | float32 | 2 | yes | 2 | ours |" in done.stdout
    assert [path.read_bytes() for path in (REPOSITORY / "docs").glob("*.md")] == pages


def test_a_row_is_told_against_the_ceiling_and_everyone() -> None:
    times = {"ceiling": [1.0, 1.5], parts.OURS[0]: [2.0, 2.0], parts.OURS[1]: [2.4, 3.6], "PyTorch eager": [2.5, 4.0]}
    facts: dict[str, Any] = {name: {"operations": 6e12, "first run": 9.0, "peak": 2**21} for name in times}
    facts["ceiling"]["operations"] = 24e12
    outcome = Outcome(times, facts, {"PyTorch compiled": "absent"})
    flow, shortcut, eager, compiled = parts.rows({"size": "S/2"}, outcome, calls=2)
    assert flow["size"] == compiled["size"] == "S/2"
    # Twice 6 operations in 2 seconds, where 24 in one are possible at best.
    assert (flow["GFLOP"], flow["ceiling TFLOP/s"]) == (12e3, 24)
    assert flow["share of ceiling"] == pytest.approx(0.25)
    assert flow["x PyTorch eager"] == pytest.approx(2 / 2.5)
    assert not {"x flow matching", "x PyTorch compiled"} & flow.keys()
    # A ratio is of the best rounds, a time the median.
    assert (shortcut["ms"], shortcut["x flow matching"]) == (3000, pytest.approx(1.2))
    assert (eager["ms"], eager["first run s"], eager["peak MiB"]) == (3250, 9, 2)
    assert compiled == {"size": "S/2", "who": "PyTorch compiled", "note": "absent"}


class InProcess:
    """Contestants without processes: of ours, the real ones; a peer is missing."""

    env: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, kind: str = "", **asked: Any) -> None:
        self.error, self.asked = "" if kind else "absent", []
        self.made = ours.KINDS[kind](**asked) if kind else None

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, **asked: Any) -> float:
        assert self.made is not None
        self.made(**asked)
        return 10.0 * asked.get("steps", 1)

    def facts(self) -> dict[str, Any]:
        return {"first run": 1.0, **self.ask({"facts": True})}

    def ask(self, _: Any) -> dict[str, Any]:
        assert self.made is not None
        return self.made.facts()

    def ours(self, kind: str, **asked: Any) -> "InProcess":
        return InProcess(kind, **asked)

    def peer(self, *_: str, **__: Any) -> "InProcess":
        return InProcess()


def test_sampling_is_told_for_every_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.Ceiling, "__call__", lambda *_, **__: None)
    make: Any = InProcess()
    one, *missing_one, two, _, _ = parts.sample("quick", make)
    assert [row["note"] for row in missing_one] == ["absent", "absent"]
    assert (one["steps"], one["ms"], two["steps"], two["ms"]) == (1, 10_000, 2, 20_000)
    assert (one["guided"], one["batch"]) == (True, 2)
    assert (one["images/s"], two["images/s"]) == (pytest.approx(0.2), pytest.approx(0.1))
    assert two["GFLOP"] == pytest.approx(2 * one["GFLOP"])


def test_a_step_keeps_no_second_copy_of_its_state() -> None:
    make: Any = InProcess()
    (row,) = parts.memory("quick", make)
    assert (row["size"], row["batch"], row["dtype"], row["accumulation"]) == ("tiny", 8, "float32", 1)
    network = ours.DiT(**parts.SIZES["tiny"])
    leaves = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))
    assert row["parameters"] == row["EMA"] == row["gradient"] == 4 * sum(leaf.size for leaf in leaves) / 2**20
    assert row["optimiser"] == pytest.approx(2 * row["parameters"], abs=1e-4)
    # Outputs come with a table of pointers, 8 bytes an array; a copy of the weights is many times that.
    assert row["second copies"] < 1e-3 < row["parameters"] / 20
    # Beside the state and what a step makes, the batch alone.
    kept = sum(row[name] for name in ("parameters", "EMA", "optimiser", "gradient", "activations"))
    assert kept < row["peak MiB"] < kept + 0.01


def test_start_is_told_for_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], str]] = []

    def elapsed(command: list[str], env: dict[str, str]) -> float:
        asked.append((command, env.get("JAX_COMPILATION_CACHE_DIR", "")))
        return float(len(asked))

    monkeypatch.setattr(parts, "elapsed", elapsed)
    make: Any = InProcess()
    found = {row["what"]: row["seconds"] for row in parts.start("cpu", make)}
    assert found["python, importing nothing"] == 2  # The median of three.
    assert found["shortcut --help"] == 11
    assert list(found.values())[-2:] == [13, 14]
    (empty, cache), (filled, same) = asked[-2:]
    assert cache == same != ""  # What the first has compiled, the second finds.
    assert empty[-1] != filled[-1]
    assert empty[:-1] == filled[:-1] == [empty[0], "train", "digits", "--max-steps=1", "--log-interval=1", "--run-dir"]


def test_a_process_that_fails_is_not_timed() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        parts.elapsed([sys.executable, "-c", "raise SystemExit(1)"], {})


def test_a_shortcut_step_costs_a_sixth_more_by_arithmetic() -> None:
    flow, shortcut = (
        ours.step_flops(ours.config(parts.SIZES["64x4"], 64, name)) for name in ("flow matching", "shortcut")
    )
    assert 1.15 < shortcut / flow < 1.18


def test_a_step_is_told_for_both_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.Ceiling, "__call__", lambda *_, **__: None)
    made: list[ours.Step] = []
    monkeypatch.setitem(ours.KINDS, "step", lambda **asked: made.append(ours.Step(**asked)) or made[-1])
    make: Any = InProcess()
    flow, shortcut, *missing = parts.train("quick", make)
    assert [row["note"] for row in missing] == ["absent", "absent"]
    assert (flow["who"], shortcut["who"]) == parts.OURS
    assert (flow["ms"], shortcut["x flow matching"]) == (10_000, 1)
    assert shortcut["GFLOP"] > flow["GFLOP"]
    assert [type(step.config.objective).__name__ for step in made] == ["FlowMatching", "Shortcut"]
    for step in made:
        assert step.config.batch_size == flow["batch"] == 8
        assert step.index > 1
        assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.device_get(step.state.params)))


@pytest.mark.parametrize("guided", [False, True])
def test_the_sampler_draws_what_a_model_draws(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = ours.Sampler(TINY, 3, guided)
    weights = jax.tree.map(lambda a: 10 * a, ours.weights(sampler.network))
    sampler.params = sampler.network.prepare(weights)
    drawn: list[np.ndarray] = []
    program = sampler.program

    def keep(*given: Any) -> Any:
        drawn.append(np.asarray(program(*given)))
        return drawn[-1]

    monkeypatch.setattr(sampler, "program", keep)
    sampler(steps=4)
    objective = ours.OBJECTIVES["shortcut"]
    model = Model(sampler.network, weights, objective, ours.Digits(), step=0, weights="ema")
    images = model.sample([0] * 3, 4, 1.5 if guided else 1.0)
    np.testing.assert_allclose(drawn[0], images, rtol=1e-4, atol=1e-5)
    assert ours.Sampler(TINY, 3, True).facts()["operations"] == (1 if guided else 2) * sampler.facts()["operations"]


def test_the_demo_s_network_is_the_presets() -> None:
    assert ours.DiT(**parts.SIZES["digits"]) == get_preset("digits").model
    assert get_preset("digits").batch_size == parts.SAMPLE["cpu"][0].batch * 64 == parts.TRAIN["gpu"][0].batch


def test_the_paper_s_networks_have_its_sizes() -> None:
    # DiT-B/2 and DiT-XL/2 of arXiv 2212.09748, table 1, on latents of 32x32x4 with 1,000 classes.
    for size, wanted in (("B/2", (768, 12, 12)), ("XL/2", (1152, 28, 16))):
        network = ours.DiT(**parts.SIZES[size])
        assert (network.hidden_size, network.depth, network.num_heads) == wanted
        assert (network.shape, network.patch_size, network.num_classes) == ((32, 32, 4), 2, 1000)


def test_every_case_makes_a_network() -> None:
    for chosen in ("quick", "cpu", "gpu"):
        for case in parts.TRAIN[chosen] + parts.SAMPLE[chosen]:
            ours.DiT(**parts.SIZES[case.size], **case.settings)
        for size, _, remat, _ in parts.MEMORY[chosen]:
            assert dataclasses.replace(ours.DiT(**parts.SIZES[size]), remat=remat).remat == remat


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Contestants, "ours", lambda *_: InProcess())
    with pytest.raises(SystemExit, match="nothing runs with --device gpu: absent"):
        __main__.machine(Contestants("gpu", tmp_path), "gpu")


def test_a_python_for_the_peer_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "--peer-python", "/nowhere/python"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "--peer-python /nowhere/python is no program: give the path of a Python." in capsys.readouterr().err


def test_expected_times_follow_the_ring() -> None:
    row = expected(Machine("two", 2, flops=100.0, link=10.0), {"all-reduce": 40, "all-gather": 20}, flops=500.0)
    # Half of 2 x 100 a second; half of the ring: 40 twice and 20 once.
    assert row["computing ms"] == pytest.approx(5000)
    assert row["sending ms"] == pytest.approx(5000)
    assert row["efficiency without overlap"] == pytest.approx(0.5)
    assert row["with overlap"] == 1
