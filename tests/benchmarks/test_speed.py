import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.speed import (
    __main__,
    aims,
    breakdown,
    choices,
    growth,
    loop,
    page,
    peers,
    sampler,
    sampler_choices,
    scaling,
    train_step,
)
from benchmarks.speed.measure import Training, compiler_flops, config, formula_flops, race, ratio
from benchmarks.speed.memory import parts
from benchmarks.speed.sampler import Sampler
from shortcut_models import train
from shortcut_models.networks import DiT, dit

TINY = {"hidden_size": 16, "num_heads": 2, "depth": 2}


def test_contestants_take_turns_and_may_time_themselves() -> None:
    order: list[str] = []

    def slow() -> float:
        order.append("slow")
        return 10.0 + len(order)

    def quick() -> float:
        order.append("quick")
        return 0.05

    times = race({"slow": slow, "quick": quick}, 8)
    # After calls that do not count, a slow one is called once a turn; a quick one until the turn is filled.
    assert order[:3] == ["slow", "quick", "quick"]
    found = "".join("S" if name == "slow" else "q" for name in order[3:])
    rounds = [found[i : i + 7] for i in range(0, len(found), 7)]
    assert len(rounds) == 8
    assert set(rounds) == {"SSqqqqq", "qqqqqSS"}
    assert times["quick"] == pytest.approx([0.05] * 8)
    assert times["slow"] == [10.0 + 4 + 7 * i + turn.rindex("S") for i, turn in enumerate(rounds)]


def test_spells_that_slow_most_rounds_leave_a_ratio_as_it_is() -> None:
    assert ratio([4.7, 4.7, 3.0, 4.8], [2.0, 3.1, 2.0, 2.1]) == 1.5


def test_a_contestant_that_runs_alone_is_warm() -> None:
    calls: list[int] = []
    race({"one": lambda: calls.append(0) or 0.05}, 4)
    assert len(calls) == 2 + 4 * 3


def test_both_counts_of_operations_agree_on_what_is_mostly_matrix_products() -> None:
    plain = config("64x4", batch=8, hidden_size=128, depth=2)
    assert formula_flops(plain) < compiler_flops(plain) < 1.3 * formula_flops(plain)


def test_a_shortcut_step_costs_a_sixth_more_by_arithmetic() -> None:
    flow, shortcut = (formula_flops(config("S/2", name)) for name in ("flow matching", "shortcut"))
    assert 1.15 < shortcut / flow < 1.18


@pytest.mark.parametrize("scan", [False, True])
def test_undone_choices_compute_the_same_gradient(scan: bool) -> None:
    plain = config("64x4", batch=8, scan=scan, **TINY)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape, np.float32)),
        jax.eval_shape(plain.model.init, jax.random.key(0)),
    )
    x, t = jnp.asarray(rng.standard_normal((8, 8, 8, 1), np.float32)), jnp.linspace(0.1, 0.9, 8)

    def loss(params: Any, network: Any) -> jax.Array:
        return jnp.mean(network.apply(params, x, t, t, jnp.arange(8)) ** 2)

    expected = jax.grad(loss)(params, plain.model)
    undone = choices.undone(plain)
    assert ("all of a block kept for the backward pass" if scan else "blocks indexed, not split") in undone
    for name, (undo, changed) in undone.items():
        before = dit.dense, dit.gelu, dit._unstack, dit.DiT.apply, jax.jit, jax.checkpoint
        with undo():
            found = jax.grad(loss)(params, changed.model)
            assert name in ("scanned", "unrolled", "blocks recomputed") or changed == plain
        assert (dit.dense, dit.gelu, dit._unstack, dit.DiT.apply, jax.jit, jax.checkpoint) == before
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4), found, expected)


@pytest.mark.parametrize("name", [choices.TWO_CALLS, choices.WHOLE_HOPS])
def test_a_shortcut_step_without_its_savings_learns_the_same(name: str) -> None:
    plain = config("digits", "shortcut", batch=8, **TINY)
    one, other = Training(plain), choices.without(name, plain)
    assert type(other.config.objective) in (choices.TwoCalls, choices.WholeHops)
    one()
    other()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.state.params, other.state.params
    )


def test_hops_of_the_whole_batch_cost_what_arithmetic_says() -> None:
    plain = config("S/2", "shortcut")
    found = formula_flops(choices.undone(plain)[choices.WHOLE_HOPS][1]) / formula_flops(plain)
    # Forward, backward twice as much, and two hops: of all the batch instead of a quarter.
    assert found == pytest.approx(5 / 3.5, rel=0.01)


def test_the_loop_takes_the_same_steps_whatever_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(config("digits", **TINY))
    begin, events, read, wait = jax.device_get(training.state), [], train.Report.read, jax.block_until_ready

    def told(report: train.Report) -> None:
        if report._waiting:
            events.append("read")
        read(report)

    def step(state: Any, batch: Any, index: Any) -> Any:
        events.append(int(index))
        return compiled(state, batch, index)

    monkeypatch.setattr(loop, "Training", lambda _: training)
    monkeypatch.setattr(train.Report, "read", told)
    monkeypatch.setattr(jax, "block_until_ready", lambda tree: events.append("wait") or wait(tree))
    compiled, training.compiled = training.compiled, step
    order, weights = {}, {}
    for undo in ("", *loop.UNDONE):
        training.state = jax.device_put(begin)
        looped = loop.Loop(undo, **TINY)
        assert looped() > 0
        events.clear()
        assert looped() > 0
        looped.folder.cleanup()
        order[undo], weights[undo] = list(events), jax.device_get(training.state.params)
        assert looped.config.data_threads == (0 if undo == loop.READ_BETWEEN else 1)
        jax.tree.map(np.testing.assert_array_equal, weights[undo], weights[""])
    start, stop = loop.WARM + loop.STEPS, 2 * (loop.WARM + loop.STEPS)
    steps = list(range(start, stop))
    assert [event for event in order[""] if isinstance(event, int)] == steps
    # After step 29 the metrics of 30 steps are told: late, once step 30 is sent off, or before it is.
    assert order[""][order[""].index(29) :][:3] == [29, 30, "read"]
    at_once = order[loop.READ_AT_ONCE]
    assert at_once[at_once.index(29) :][:3] == [29, "read", 30]
    assert order[loop.READ_BETWEEN] == order[""]
    waits = {undo: found.count("wait") for undo, found in order.items()}
    assert waits[loop.WAITED] == waits[""] + len(steps)


def test_the_sampler_without_a_choice_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = config("digits", **TINY).model, []
    apply = DiT.apply
    monkeypatch.setattr(DiT, "apply", lambda self, p, x, *rest: seen.append(len(x)) or apply(self, p, x, *rest))
    plain = Sampler(network, 3, True)
    expected = {steps: plain(steps) for steps in (1, 4)}
    assert seen == [6]  # Traced once, for both.
    for name in (sampler_choices.STACKED, sampler_choices.TWICE, sampler_choices.FIXED):
        seen.clear()
        other = sampler_choices.without(name, network, 3, True)
        for steps, images in expected.items():
            np.testing.assert_allclose(other(steps), images, rtol=1e-4, atol=1e-5)
        assert seen == {sampler_choices.TWICE: [3, 3], sampler_choices.FIXED: [6, 6]}.get(name, [6])
        assert isinstance(other.params["blocks"], dict) == (name == sampler_choices.STACKED)
    assert np.abs(expected[4] - expected[1]).max() > 1e-4


def test_budgets_are_compiled_anew_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(jax, "clear_caches", lambda: asked.append("clear"))
    monkeypatch.setattr(jax.config, "update", lambda *setting: asked.append(setting))
    monkeypatch.setattr(Sampler, "__call__", lambda _, steps: asked.append(steps))
    anew = sampler_choices.Budgets("", **TINY)
    before = anew.sampler.program
    anew()
    assert asked == [("jax_enable_compilation_cache", False), "clear", 1, 4, 128]
    assert anew.sampler.program is not before


def test_a_step_keeps_no_second_copy_of_the_state() -> None:
    found = parts(config("64x4", batch=8, **TINY))
    # Outputs come with a table of pointers, 8 bytes an array; a copy of the weights would be many times that.
    assert found["second copies"] < 1e-3 < found["parameters"] / 20
    assert found["optimiser"] == pytest.approx(2 * found["parameters"], rel=1e-3)
    kept = found["parameters"] + found["EMA"] + found["optimiser"]
    assert found["peak MiB"] == pytest.approx(kept + found["gradient"] + found["activations"], rel=0.01)


def test_the_sampler_of_the_benchmark_counts_both_branches() -> None:
    network = config("digits", **TINY).model
    (few, counted), (many, counted_many) = sampler.flops(network, 2, False), sampler.flops(network, 2, True)
    assert many == 2 * few
    # XLA counts the sinusoids, norms and sums too, which are much of so small a network.
    assert few < counted < 2 * few
    assert counted_many == pytest.approx(2 * counted, rel=0.05)


PROGRAM = """
%inner (a: f32[2,2]) -> f32[2,2] {
  %a = f32[2,2]{1,0} parameter(0)
  ROOT %dot.1 = f32[2,2]{1,0} dot(%a, %a)
}

ENTRY %main (x: f32[2,2]) -> f32[2,2] {
  %x = f32[2,2]{1,0} parameter(0)
  %ynn = f32[2,2]{1,0} fusion(%x), kind=kCustom, calls=%inner, metadata={op_name="jit(step)/jvp()/dot_general"}
  %back = f32[2,2]{1,0} dot(%ynn, %x), metadata={op_name="jit(step)/transpose(jvp())/dot_general"}
  %gemm = (f32[2,2]{1,0}, s8[4]{0}) custom-call(%ynn, %x), custom_call_target="__cublas$gemm", metadata={op_name="jit(step)/jvp()/dot_general"}
  %soft = f32[2,2]{1,0} fusion(%x), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/transpose(jvp(attention))/mul"}
  %adam = f32[2,2]{1,0} add(%x, %x), metadata={op_name="jit(step)/update/add"}
  %loop = f32[2,2]{1,0} while(%x), condition=%c, body=%inner
  ROOT %sum = f32[2,2]{1,0} add(%back, %soft), metadata={op_name="jit(step)/jvp()/checkpoint/rematted_computation/add"}
}
"""  # noqa: E501


def test_a_trace_is_grouped_by_what_the_operations_compute() -> None:
    groups = breakdown.grouped(PROGRAM)
    assert groups["ynn"] == groups["gemm"] == groups["dot.1"] == "products with weights, forward"
    assert groups["back"] == "products with weights, backward"
    assert groups["soft"] == "attention, backward"
    assert groups["adam"].startswith("optimiser")
    assert groups["sum"] == "all else, backward"
    assert "loop" not in groups  # Its body's operations have events of their own.
    events = [
        {"ph": "X", "name": "back", "dur": 1000},
        {"ph": "X", "name": "kernel_7", "dur": 500, "args": {"hlo_op": "back"}},
        {"ph": "X", "name": "loop", "dur": 9000},
        {"ph": "M", "name": "back"},
    ]
    assert breakdown.spent(events, groups) == {"products with weights, backward": 1.5}


def test_a_rested_step_is_told_apart_from_a_hot_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[float] = []
    calls = iter([0.02] * (breakdown.HOT - 1) + [0.05, 0.08])
    monkeypatch.setattr(breakdown.time, "sleep", rested.append)
    median, slowest, kernel, after = breakdown.rested(lambda: next(calls))
    assert (median["ms"], slowest["ms"], after["ms"]) == pytest.approx((20, 50, 80))
    assert kernel["ms"] >= 0
    assert rested == [breakdown.REST]


def test_the_groups_of_a_real_step_cover_it() -> None:
    step = Training(config("digits", batch=8, **TINY))
    found = {group.split(",")[0] for group in breakdown.grouped(step.compiled.as_text()).values()}
    assert found == {"products with weights", "attention", "all else", "optimiser"}


def test_the_exponent_of_a_power_is_its_exponent() -> None:
    rows = [{"value": n, "ms": ms} for n, ms in ((1, 3.0), (2, 12.0), (4, 48.0))]
    assert growth.exponent([*rows, {"value": 8}], "ms") == pytest.approx(2)
    assert growth.exponent(rows[:1], "ms") is None


def test_growth_tells_points_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ours(kind: str, faked: int, **more: Any) -> Any:
        assert kind == "step"
        asked.append((more["devices"], faked))
        if more["image_size"] == 32:
            return "no memory"
        code = 'for _ in open(0): print(\'answer {"seconds": %f, "temporary": 1048576}\', flush=True)'
        child = peers.Child(sys.executable, "-c", code % (1e-2 * more["depth"] * more["batch"]))
        child()
        return child

    class Peer:
        def make(self, kind: str, model: DiT, batch: int, *, compiled: bool) -> Any:
            assert (kind, compiled) == ("step", False)
            return "absent" if model.depth == 16 else lambda: 1e-2 * model.depth**2 * batch

    monkeypatch.setattr(growth, "ours", ours)
    monkeypatch.setattr(growth, "operations", lambda _: (3e9, 4e9))
    peer: Any = Peer()
    found = {(row["axis"], row["value"]): row for row in growth.run("cpu", peer)}
    assert found["depth", "exponent"]["ms"] == pytest.approx(1)
    assert found["depth", "exponent"]["temporary MiB"] == pytest.approx(0, abs=1e-9)
    assert found["width", "exponent"]["ms"] == pytest.approx(0, abs=1e-9)
    assert found["batch", "exponent"]["PyTorch eager's ms"] == pytest.approx(1)
    assert found["depth", 4]["x PyTorch eager"] == pytest.approx(1 / 4)
    assert "x PyTorch eager" not in found["depth", 8]
    assert found["depth", 16]["note"] == "absent"
    assert "PyTorch eager's ms" not in found["depth", "exponent"]
    assert found["tokens", 256]["note"] == "no memory"
    assert found["batch", 32]["GFLOP"] == pytest.approx(3)
    # A CPU that stands for eight devices is slower as one of them, so that only that axis has it.
    assert set(asked) == {(1, 1), (1, 8), (2, 8), (8, 8)}


def test_expected_times_follow_the_ring() -> None:
    machine = scaling.Machine("two", 2, flops=100.0, link=10.0)
    row = scaling.expected(machine, {"all-reduce": 40, "all-gather": 20}, flops=500.0)
    # Half of 2 x 100 a second; half of the ring: 40 twice and 20 once.
    assert row["computing ms"] == pytest.approx(5000)
    assert row["sending ms"] == pytest.approx(5000)
    assert row["efficiency without overlap"] == pytest.approx(0.5)
    assert row["with overlap"] == 1


def test_a_step_is_told_against_the_ceiling_and_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "operations", lambda _: (2 * 2048**3, 5e9))
    times = {"ceiling": [1.0, 1.5], "flow matching": [2.0, 2.0], "shortcut": [2.4, 2.4], "PyTorch eager": [2.5, 4.0]}
    told = {name: peers.Facts(9.0, 2**21, None) for name in times if name != "ceiling"}
    flow, shortcut, eager, compiled = train_step._rows(
        train_step.Case("64x4", "float32", 2), times, told, {"PyTorch compiled": "absent"}
    )
    assert (eager["first run s"], eager["peak MiB"]) == (9, 2)
    assert flow["share of ceiling"] == pytest.approx(0.5)
    assert flow["x PyTorch eager"] == pytest.approx(2 / 2.5)
    assert shortcut["x flow matching"] == pytest.approx(1.2)
    assert eager["ms"] == pytest.approx(3250)
    assert compiled["note"] == "absent"


def test_the_larger_set_has_what_the_quarter_of_an_hour_has_no_time_for() -> None:
    found = {(case.size, case.dtype) for case in train_step.MORE + train_step.CPU}
    assert {(size, dtype) for size in ("64x4", "S/2", "B/2") for dtype in ("float32", "bfloat16")} <= found
    assert ("XL/2", "float32") in found


def test_the_larger_set_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "more", "--device", "gpu"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "more is for --device cpu" in capsys.readouterr().err


def test_pytorchs_compiler_finds_nothing_of_an_earlier_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess:
        seen.append(env["TORCHINDUCTOR_CACHE_DIR"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "earlier")
    monkeypatch.setattr(subprocess, "run", run)
    given = argparse.Namespace(device="cpu", peer_python=None, out=tmp_path)
    assert __main__.succeeds("train", given, 0.0, str(tmp_path))
    assert seen == [str(tmp_path / "torch")]


def test_every_choice_is_measured_against_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ours(kind: str, tuned: bool = True, **more: Any) -> Any:
        asked.append((kind, more))
        if more.get("undo") == "scanned":
            return "no memory"
        plain, seconds = more.get("objective") != "shortcut", 0.2 if more.get("undo") or not tuned else 0.1
        return lambda: seconds if plain else 5 * seconds

    monkeypatch.setattr(choices, "ours", ours)
    model = {"depth": 2, "dtype": "float32"}
    rows = list(choices._rows(model, choices.steps("S/2", model, cpu=True), 2, together=True))
    found = {row["change"]: row.get("x", row.get("note")) for row in rows}
    assert found.pop("as it is") == found.pop("shortcut: as it is") == pytest.approx(1)
    assert found.pop("scanned") == "no memory"
    assert found.pop("memory handed back to the system") == pytest.approx(2)
    undone = {**choices.undone(config("S/2")), **choices.undone(config("S/2", "shortcut"))}
    assert set(found) == undone.keys() - {"scanned"} - choices.ONCE
    assert list(found.values()) == pytest.approx([2] * len(found))
    assert all(kind == "step" and more["size"] == "S/2" and more["depth"] == 2 for kind, more in asked)
    shares = {row["change"]: row["share of ceiling"] for row in rows if "share of ceiling" in row}
    assert shares["as it is"] == pytest.approx(2 * shares["products over batch and tokens, not flat"])


def test_the_other_choices_are_groups_led_by_what_we_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "operations", lambda _: (1.0, 1.0))
    found = [
        [call.keywords.get("undo", "") for call in group.makers.values()]
        for _, groups, _ in choices.others("cpu")
        for group in groups
    ]
    assert all(first == "" and all(rest) for first, *rest in found)
    told = {undo for group in found for undo in group}
    assert told >= {*loop.UNDONE, sampler_choices.STACKED, sampler_choices.TWICE, sampler_choices.FIXED}


def test_a_page_takes_its_tables_from_the_files(tmp_path: Path) -> None:
    rows = [{"who": "ours", "ms": 12.345}, {"who": "a|b", "ok": True, "ms": 12345.0}]
    report = {
        "rows": rows,
        "about": {"torch": "2"},
        "busy": True,
        "command": "x",
        "device": "cpu",
        "time": "2026-01-02T",
    }
    (tmp_path / "cpu-train.json").write_text(json.dumps(report))
    (tmp_path / "page.md").write_text(
        "a\n<!-- cpu-train -->\nold\n<!-- /cpu-train -->\n<!-- b -->\n?\n<!-- /b -->\nz\n"
    )
    page.write(tmp_path / "page.md", tmp_path)
    text = (tmp_path / "page.md").read_text()
    assert "| who | ms | ok |\n|---|---|---|\n| ours | 12.3 |  |\n| a/b | 12345 | yes |" in text
    assert "PROVISIONAL" in text
    assert "old" not in text
    assert "Not measured yet." in text
    page.write(tmp_path / "page.md", tmp_path)
    assert (tmp_path / "page.md").read_text() == text


def test_aims_are_judged_by_the_worst_number_of_their_row(tmp_path: Path) -> None:
    flow = {"size": "S/2", "dtype": "float32", "who": "ours, flow matching", "share of ceiling": 0.75}
    rows = [flow | {"dtype": "bfloat16"}, flow | {"x PyTorch eager": 0.8, "x PyTorch compiled": 0.95}]
    (tmp_path / "cpu-train.json").write_text(json.dumps({"rows": rows}))
    text = aims.markdown("cpu", tmp_path)
    assert "| step, S/2: time over PyTorch's better one | at most 0.9 | 0.95 | **missed** |" in text
    assert "| step, S/2: share of the ceiling | at least 0.7 | 0.75 | met |" in text
    assert "| `shortcut --help`, seconds | at most 0.5 | open |  |" in text


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_aim_is_about_a_row_that_is_measured(device: str) -> None:
    sizes = {"train": train_step.GPU if device == "gpu" else train_step.CPU}
    sizes["sampler"] = sampler.GPU if device == "gpu" else sampler.CPU
    for aim in aims.AIMS[device]:
        if aim.part in sizes:
            assert any(case[:2] == (aim.where["size"], aim.where["dtype"]) for case in sizes[aim.part])


def test_a_training_step_of_the_benchmark_runs() -> None:
    step = Training(config("digits", batch=8, **TINY))
    times = race({"step": step}, 1)["step"]
    assert step.index >= 3
    assert statistics.median(times) > 0
