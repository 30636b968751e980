import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.speed import aims, breakdown, choices, growth, page, peers, sampler, scaling, train_step
from benchmarks.speed.measure import Training, compiler_flops, config, formula_flops, paired, race
from benchmarks.speed.memory import parts
from benchmarks.speed.sampler import Sampler
from shortcut_models import startup
from shortcut_models.models import dit

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
    # After a call that does not count, a slow one is called once a turn; a quick one until the turn is filled.
    assert order[:4] == ["slow", "slow", "quick", "quick"]
    found = "".join("S" if name == "slow" else "q" for name in order[4:])
    rounds = [found[i : i + 6] for i in range(0, len(found), 6)]
    assert len(rounds) == 8
    assert set(rounds) == {"SSqqqq", "qqqqSS"}
    assert times["quick"] == pytest.approx([0.05] * 8)
    assert times["slow"] == [10.0 + 5 + 6 * i + turn.rindex("S") for i, turn in enumerate(rounds)]
    assert paired([2.0, 6.0, 3.0], [1.0, 2.0, 1.0]) == 3.0


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


def test_a_shortcut_step_in_two_calls_learns_the_same() -> None:
    plain = config("digits", "shortcut", batch=8, **TINY)
    one, two = Training(plain), choices.without(choices.TWO_CALLS, plain)
    assert isinstance(two.config.objective, choices.TwoCalls)
    one()
    two()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.state.params, two.state.params
    )


def test_steps_that_follow_each_other_are_all_taken() -> None:
    plain = config("digits", batch=8, **TINY)
    following, single = choices.Following(plain), Training(plain)
    assert following() > 0
    for _ in range(following.STEPS):
        single()
    assert following.index == single.index == following.STEPS
    jax.tree.map(np.testing.assert_array_equal, following.state.params, single.state.params)


def test_a_step_keeps_no_second_copy_of_the_state() -> None:
    found = parts(config("64x4", batch=8, **TINY))
    # Outputs come with a table of pointers, 8 bytes an array; a copy of the weights would be many times that.
    assert found["second copies"] < 1e-3 < found["parameters"] / 20
    assert found["optimiser"] == pytest.approx(2 * found["parameters"], rel=1e-3)
    kept = found["parameters"] + found["EMA"] + found["optimiser"]
    assert found["peak MiB"] == pytest.approx(kept + found["gradient"] + found["activations"], rel=0.01)


def test_the_sampler_of_the_benchmark_draws_and_counts_every_call() -> None:
    network = config("digits", **TINY).model
    Sampler(network, 2, 1, False)()
    Sampler(network, 2, 4, True)()
    (few, counted), (many, counted_many) = sampler.flops(network, 2, 1, False), sampler.flops(network, 2, 4, True)
    assert many == 8 * few
    # XLA counts the sinusoids, norms and sums too, which are much of so small a network.
    assert few < counted < 2 * few
    assert counted_many == pytest.approx(8 * counted, rel=0.05)


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


def test_the_groups_of_a_real_step_cover_it() -> None:
    step = Training(config("digits", batch=8, **TINY))
    found = {group.split(",")[0] for group in breakdown.grouped(step.compiled.as_text()).values()}
    assert found == {"products with weights", "attention", "all else", "optimiser"}


def test_the_exponent_of_a_power_is_its_exponent() -> None:
    assert growth._exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)


def test_expected_times_follow_the_ring() -> None:
    machine = scaling.Machine("two", 2, flops=100.0, link=10.0)
    row = scaling.expected(machine, {"all-reduce": 40, "all-gather": 20}, flops=500.0)
    # Half of 2 x 100 a second; half of the ring: 40 twice and 20 once.
    assert row["computing ms"] == pytest.approx(5000)
    assert row["sending ms"] == pytest.approx(5000)
    assert row["efficiency without overlap"] == pytest.approx(0.5)
    assert row["with overlap"] == 1


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
    times, notes = peers.compete(makers | {"absent": lambda: "no such thing"}, 3, together)
    assert times == {"0": [0.2] * 3, "1": [0.2] * 3}
    assert notes == {"absent": "no such thing"}
    assert [child.process.poll() for child in children] == [0, 0]


def test_our_step_in_a_process_of_its_own_has_the_allocator_that_is_asked_for() -> None:
    code = "import os, sys\nfor _ in sys.stdin: print('answer \"' + os.environ.get(sys.argv[1], '') + '\"', flush=True)"
    for tuned, expected in ((True, startup.KEEP_MEMORY), (False, "")):
        child = peers.Child(sys.executable, "-c", code, startup.ALLOCATOR, tuned=tuned)
        assert child.ask({}) == expected
        child.close()


@pytest.mark.parametrize(
    ("kind", "more"),
    [("step", {"undo": "buffers not donated"}), ("sample", {"batch": 2, "steps": 1, "guided": True})],
)
def test_we_run_in_a_process_of_our_own(kind: str, more: dict[str, Any]) -> None:
    child = peers.ours(kind, size="digits", **TINY, **more)
    assert isinstance(child, peers.Child)
    assert child() > 0
    child.close()


def test_every_choice_is_measured_against_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ours(_: str, tuned: bool = True, **more: Any) -> Any:
        asked.append(more)
        if more.get("undo") == "scanned":
            return "no memory"
        plain, seconds = more.get("objective") != "shortcut", 0.2 if more.get("undo") or not tuned else 0.1
        return lambda: seconds if plain else 5 * seconds

    monkeypatch.setattr(choices, "ours", ours)
    rows = list(choices._case("S/2", {"depth": 4}, 2, together=True))
    found = {row["change"]: row.get("x", row.get("note")) for row in rows}
    assert found.pop("as it is") == pytest.approx(1)
    assert found.pop("scanned") == "no memory"
    assert found.pop(choices.TWO_CALLS) == found.pop("memory handed back to the system") == pytest.approx(2)
    assert set(found) == choices.undone(config("S/2")).keys() - {"scanned"}
    assert list(found.values()) == pytest.approx([2] * len(found))
    assert all(more["size"] == "S/2" and more["depth"] == 4 for more in asked)


def test_the_peers_program_finds_pythons_own_modules() -> None:
    # Its folder comes first on its path, so that a profile.py in there would stand for Python's.
    beside = {path.stem for path in Path(peers.__file__).parent.glob("*.py")}
    assert not beside & sys.stdlib_module_names


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
