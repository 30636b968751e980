"""Comparing objectives: an equal budget to the image, resumed where it stopped, told in one table."""

import json
import os
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError, catalogue, cli, runs, sharding
from shortcut_models import compare as comparing
from shortcut_models.cli.compare import _seeds
from shortcut_models.compare import METHODS, PAIR_STEPS, Comparison, compare, run, spread, table, training_cost
from shortcut_models.config import Config
from shortcut_models.costs import count_flops, step_flops
from shortcut_models.data.pairs import Pairs, read_about
from shortcut_models.figures import Line
from shortcut_models.files import hold
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.reflow import Reflow
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

BUDGET = 16 * 15


@pytest.fixture(scope="module")
def words(tiny_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A comparison of seconds: an end-to-end method and two with two stages."""
    at = tiny_flags.index("--max-steps")
    flags = [*tiny_flags[:at], *tiny_flags[at + 2 :]]
    cut = flags.index("--optimizer.schedule")
    flags = [*flags[:cut], *flags[cut + 4 :], "--optimizer.warmup-steps", "2"]
    out = tmp_path_factory.mktemp("compare") / "out"
    chosen = ["--objectives", "shortcut,progressive,reflow", "--seeds", "1,", "--budget", str(BUDGET)]
    return ["compare", "digits", *flags, *chosen, "--steps", "1,4", "--count", "32", "--pairs", "32", "--out", str(out)]


@pytest.fixture(scope="module")
def compared(words: list[str]) -> Path:
    """Interrupted in its second run, and then run to the end."""
    place, fed = sharding.place_batch, []

    def stop(mesh: Any, batch: Any) -> Any:
        fed.append(batch)
        if len(fed) == 18:
            os.kill(os.getpid(), signal.SIGINT)
        return place(mesh, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "place_batch", stop)
        assert cli.main(words) == 130
    folder = Path(words[-1])
    assert [path.name for path in folder.glob("*.json")] == ["shortcut-seed-1.json"]
    assert not (folder / "table.md").exists()
    assert cli.main(words) == 0
    return folder


def read(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_every_method_sees_exactly_the_budget_and_pays_for_all_its_stages(compared: Path) -> None:
    found = read(compared)
    assert set(found) == {f"{name}-seed-1" for name in ("shortcut", "progressive", "reflow")}
    for report in found.values():
        assert report["images"] == BUDGET == sum(part["images"] for part in report["cost"])
        assert report["seconds"] == pytest.approx(sum(part["seconds"] for part in report["cost"]))
        assert report["flops"] == sum(part["flops"] for part in report["cost"])
        assert {"command", "commit", "versions", "device", "real"} <= set(report)
        assert set(report["steps"]) == {"1", "4"}
    flow = runs.read_config(compared / "flow-seed-1")
    own = runs.read_config(compared / "progressive-seed-1")
    assert (flow.max_steps, own.max_steps) == (7, 8)  # Of 15 steps; the flow is shared, and charged to each.
    assert flow.seed == own.seed == 1
    assert isinstance(own.objective, Progressive)
    assert own.objective.total_images == 8 * 16
    assert own.start_from == str(compared / "flow-seed-1")
    assert read_about(compared / "flow-seed-1" / "pairs")["guidance"] == 1
    parts = found["progressive-seed-1"]["cost"]
    assert [part["images"] for part in parts] == [7 * 16, 8 * 16]
    assert [part["flops"] for part in parts] == [7 * step_flops(flow), 8 * step_flops(own)]
    pairs = found["reflow-seed-1"]["cost"][1]
    assert (pairs["what"], pairs["images"]) == ("32 pairs of 128 steps", 0)
    # One call of the network for one image takes a third of what a training step of flow matching does for it,
    # or a little more, since no gradient is taken of its input and of the fixed embeddings.
    assert 1 < pairs["flops"] / (32 * 128 * step_flops(flow) / 16 / 3) < 1.15
    assert isinstance(runs.read_config(compared / "reflow-seed-1").objective, Reflow)


def test_the_table_is_made_of_the_files_with_off_label_entries_in_parentheses(compared: Path) -> None:
    found = read(compared)
    lines = (compared / "table.md").read_text().splitlines()
    assert lines[0] == "| frechet-pixels-32 | 1 step | 4 steps | arithmetic | time |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| shortcut", "| progressive", "| reflow"]
    value = found["progressive-seed-1"]["steps"]["4"]["frechet-pixels-32"]
    cells = lines[3].split(" | ")
    assert not cells[1].startswith("(")
    assert cells[2].startswith(f"(**{spread([value])}**, ")
    assert cells[2].endswith(" %)")
    assert lines[4].split(" | ")[2].startswith("**")
    for name in ("samples.png", "quality.png"):
        with Image.open(compared / name) as image:
            assert min(image.size) > 100


def test_a_distance_stands_beside_its_ratio_to_that_of_held_out_images() -> None:
    def report(one: float, four: float) -> dict[str, Any]:
        steps = {"1": {"frechet-100": one, "agreement-100": 0.9}, "4": {"frechet-100": four, "agreement-100": 0.95}}
        ratio = {number: {"frechet-100": values["frechet-100"] / 0.5} for number, values in steps.items()}
        real = {"frechet-100": 0.5, "agreement-100": 0.99}
        meant = {"1": True, "4": False}
        cost = {"flops": 6, "images": 3, "seconds": 60}
        return {"steps": steps, "ratio": ratio, "real": real, "meant_for": meant, **cost}

    lines = table({"shortcut": [report(1, 2), report(2, 3)]}, (1, 4)).splitlines()
    assert lines[2:] == [
        "| shortcut | **1.50 ± 0.71**, 3x, 90.0 % | (**2.50 ± 0.71**, 5x, 95.0 %) | 1.00 | 1.0 min |",
        "| real images | **0.500**, 1x, 99.0 % |  | | |",
    ]


def test_a_finished_comparison_is_not_done_again(
    compared: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortcut_models.compare.run", lambda *_: pytest.fail("did it again"))
    before = {path: path.read_bytes() for path in compared.glob("*.json")}
    assert cli.main(words) == 0
    assert (compared / "table.md").read_text() in capsys.readouterr().out
    assert {path: path.read_bytes() for path in compared.glob("*.json")} == before


def test_three_digits_of_the_mean() -> None:
    assert spread([0.25]) == "0.250"
    assert spread([0.2, 0.3]) == "0.250 ± 0.071"
    assert spread([22.0, 24.0]) == "23.0 ± 1.4"
    assert spread([250.0]) == "250"
    assert spread([0.0, 0.0]) == "0.000 ± 0.000"
    assert spread([0.0035, 0.0031]) == "0.00330 ± 0.00028"
    assert spread([0.00021]) == "0.000210"
    assert spread([float("nan")]) == "nan"


def test_arithmetic_is_relative_to_the_least() -> None:
    def report(flops: float) -> dict[str, Any]:
        steps = {"1": {"distance": 1.0, "agreement-x": 0.5}}
        return {"steps": steps, "meant_for": {"1": True}, "flops": flops, "images": 10, "seconds": 1.5 * flops}

    found = table({"a": [report(30)], "b": [report(40), report(50)]}, [1]).splitlines()
    assert found[2] == "| a | **1.00**, 50.0 % | 1.00 | 45 s |"
    assert found[3] == "| b | **1.00 ± 0.00**, 50.0 % | 1.50 | 1.1 min |"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the first argument of shortcut compare must be a preset"),
        (["faces"], "preset 'faces' is unknown"),
        (
            ["digits", "--objectives", "shortcut,magic"],
            "objective 'magic' is unknown: the names are flow-matching",
        ),
        (["digits", "--objectives", "shortcut,shortcut"], "must name one or more, each once"),
        (["digits", "--budget", "1000"], "1000 / 64 = 15.625; use 960 or 1024"),
        (["digits", "--budget", "0"], "a budget of 0 images is no whole number of batches of 64"),
        (
            ["digits", "--budget", "64", "--objectives", "reflow"],
            "two stages, a flow and what is made of it",
        ),
        (["digits", "--steps", "1,0"], "--steps 1,0 must be whole numbers from 1 up"),
        (["digits", "--steps", "few"], "--steps few must be whole numbers from 1 up"),
        (["digits", "--seeds", "0"], "--seeds 0 must be whole numbers from 1 up"),
        (["digits", "--max-steps", "5"], "--max-steps is set by the comparison itself: use --budget"),
        (["digits", "--keep", "5"], "--keep is set by the comparison itself: it keeps the last checkpoint"),
        (["digits", "--optimizer.cycles", "5"], "--optimizer.cycles is set by the comparison itself: each stage"),
        (["digits", "--optimizer.decay-steps", "5"], "--optimizer.decay-steps is set by the comparison itself: it is"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_budget_too_small_for_the_stages_is_refused_with_the_arithmetic(tiny: Config) -> None:
    base = replace(tiny, batch_size=2, objective=Shortcut(share=0.5))
    with pytest.raises(InputError, match="7 stages of at least 1 image, but max_steps x batch_size = 6"):
        Comparison(base=base, budget=12, objectives=("progressive",))
    assert set(METHODS) <= {name for name in METHODS if Comparison(base=tiny, budget=160, objectives=(name,))}


# --- What each method trains, without training it


@pytest.fixture(scope="module")
def plan(tiny: Config) -> Comparison:
    optimizer = Optimizer(learning_rate=1e-2, warmup_steps=50, schedule="cosine", decay_steps=1000)
    base = replace(tiny, max_steps=1000, optimizer=optimizer, ema_decay=0.99)
    return Comparison(base=base, budget=16 * 200, count=64)


def test_every_default_method_can_be_planned_and_none_is_the_originals_but_the_papers(plan: Comparison) -> None:
    assert plan.objectives == METHODS == tuple(n for n, entry in catalogue.OBJECTIVES.items() if entry.compared)
    for name in METHODS:
        stages = list(plan.stages(name, 3, Path("out")).values())
        assert sum(config.images for config in stages) == plan.budget
        for config in stages:
            # The average is that of the settings, however short the training: it grows instead.
            assert config.ema_decay == 0.99
            assert (config.seed, config.keep, config.model) == (3, 1, plan.base.model)
            assert config.optimizer.decay_steps == config.max_steps
            assert config.finished() == config


def test_the_warm_up_is_at_most_a_tenth_and_every_stage_that_restarts_has_a_cosine(plan: Comparison) -> None:
    (whole,) = plan.stages("shortcut", 0, Path("out")).values()
    assert (whole.max_steps, whole.optimizer.warmup_steps, whole.optimizer.cycles) == (200, 20, 1)
    flow, own = plan.stages("progressive", 0, Path("out")).values()
    assert isinstance(own.objective, Progressive)
    assert (flow.max_steps, flow.optimizer.warmup_steps, flow.optimizer.cycles) == (100, 10, 1)
    assert (own.optimizer.warmup_steps, own.optimizer.cycles) == (100 // 7 // 10, 7)
    (stages,) = plan.stages("consistency", 0, Path("out")).values()
    assert (stages.optimizer.cycles, stages.objective.num_stages) == (1, 7)
    # A warm-up that is shorter anyway stays.
    short = replace(plan, base=replace(plan.base, optimizer=replace(plan.base.optimizer, warmup_steps=5)))
    assert next(iter(short.stages("shortcut", 0, Path("out")).values())).optimizer.warmup_steps == 5


def test_a_method_takes_the_settings_of_the_base_only_if_they_are_its_own(plan: Comparison) -> None:
    base = replace(plan.base, objective=Shortcut(share=0.5, averaging="constant"))
    found = {n: list(replace(plan, base=base).stages(n, 0, Path("out")).values())[-1].objective for n in METHODS}
    assert found["shortcut"] == base.objective
    assert found["flow-matching"] == FlowMatching()


def test_reflow_learns_the_pairs_of_the_flow_that_it_starts_from(plan: Comparison, tmp_path: Path) -> None:
    flow, own = plan.stages("reflow", 2, tmp_path).items()
    assert flow[0] == tmp_path / "flow-seed-2"
    assert flow[1].objective == FlowMatching()
    assert own[1].data == Pairs(path=str(flow[0] / "pairs"))
    assert own[1].start_from == str(flow[0])


def test_a_report_is_measured_again_once_a_setting_has_changed(plan: Comparison) -> None:
    settings = plan.settings()
    assert json.loads(json.dumps(settings)) == settings
    changes: list[dict[str, Any]] = [
        {"budget": 1600},
        {"count": 65},
        {"guidance": 2.0},
        {"pairs": 7},
        {"steps": (1,)},
        {"base": replace(plan.base, ema_decay=0.9)},
    ]
    for change in changes:
        assert replace(plan, **change).settings() != settings
    # What the others in the table are changes nothing of a method's own numbers.
    assert replace(plan, seeds=(5,), objectives=("shortcut",)).settings() == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 5}, "--count is 5, but measuring takes at least 10 samples"),
        ({"pairs": 0}, "--pairs is 0, but at least 1 pair"),
        ({"pairs": 2**32}, "pairs is 4294967296, but must be at most"),
        ({"count": 2**32}, "count is 4294967296, but must be at most"),
        ({"guidance": float("nan")}, "guidance is nan, but must be a finite number"),
        ({"guidance": 1e39}, r"guidance is 1e\+39, but must be 0 or between"),
        ({"steps": (1, 2_000_000)}, "--steps is 2000000, but must be a whole number between 1 and 1000000"),
        ({"seeds": (0, 2**32)}, "--seeds is 4294967296, but must be a whole number between 0 and 4294967295"),
        ({"guidance": 2.0, "objectives": ("consistency-original",)}, r"consistency-original drops none"),
        ({"seeds": ()}, "--seeds  must name one or more"),
        ({"steps": (1, 1)}, "--steps 1,1 must name one or more, each once"),
        ({"objectives": ("magic",)}, "objective 'magic' is unknown"),
        ({"budget": 100}, r"100 / 16 = 6.25; use 96 or 112"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    plan: Comparison, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(plan, **changes)


def test_a_budget_that_a_method_cannot_take_is_refused_before_anything_is_trained(
    plan: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shortcut, "jumps", lambda _, steps: refuse(f"no {steps} steps"))
    with pytest.raises(InputError, match="no 4 steps"):
        replace(plan, objectives=("flow-matching", "shortcut"), steps=(4,))


def refuse(sentence: str) -> None:
    raise InputError(sentence)


def test_what_could_not_be_measured_is_not_trained(
    plan: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortcut_models.compare.run", lambda *_: pytest.fail("something was trained"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    many: dict[str, Any] = {"pairs": 10**7, "objectives": ("reflow",), "seeds": (1, 2)}
    for changes, metrics, words in (
        ({}, (), "no metric is chosen, and the data have none by default"),
        ({}, ("energy",), "distances between points measure points, but the samples are 8x8x1"),
        (many, ("frechet-pixels",), r"--pairs 10000000 take 10.3 GB over all seeds, but .* has 1.0 GB left"),
    ):
        monkeypatch.setattr(type(plan.base.data), "metrics", metrics)
        with pytest.raises(InputError, match=words):
            compare(replace(plan, **changes), tmp_path / "new" / "out", "")
    assert not list(tmp_path.iterdir())


def test_a_number_of_seeds_counts_from_zero() -> None:
    assert _seeds("3") == (0, 1, 2)
    assert _seeds("5,") == (5,)
    assert _seeds("2,7") == (2, 7)
    with pytest.raises(InputError, match="--seeds 4294967296 asks for 4294967296 trainings of each method"):
        _seeds("4294967296")


def test_the_time_of_a_training_is_its_images_at_the_rate_last_measured(tiny: Config, tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "images_per_second": rate}) for step, rate in ((2, 5.0), (8, 64.0))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = training_cost(tmp_path, tiny)
    assert (found["images"], found["seconds"], found["flops"]) == (128, 2.0, 8 * step_flops(tiny))


# --- What a method is measured with and charged for, without training it


class Asked(NamedTuple):
    """What `run` asked others to do."""

    trained: dict[str, bool]
    """Folders, and whether another process could have trained there meanwhile."""
    loaded: list[tuple[Any, ...]]
    pairs: list[dict[str, Any]]
    measured: list[tuple[Any, ...]]


@pytest.fixture
def asked(plan: Comparison, monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked({}, [], [], [])
    network = plan.base.model
    params = network.init(jax.random.key(0))
    model = SimpleNamespace(network=network, params=params, objective=FlowMatching(), step=8, unconditional=False)

    def train(_: Config, folder: Path, __: str) -> int:
        with hold(folder.parent / f".{folder.name}.train.lock", wait=False) as free:
            found.trained[folder.name] = free
        return 0

    def load(*words: Any) -> Any:
        found.loaded.append(words)
        return model

    def evaluate(*words: Any, **options: Any) -> Any:
        found.measured.append((*words[1:], options))
        return SimpleNamespace(report={"steps": {}, "real": {}}, samples={1: np.zeros((10, 8, 8, 1), np.uint8)})

    cost = {"what": "training", "images": 5, "flops": 7, "seconds": 11}
    for name, stub in {
        "train": train,
        "load": load,
        "evaluate": evaluate,
        "training_cost": lambda *_: cost,
        "make_pairs": lambda *_, **settings: found.pairs.append(settings),
        "read_about": lambda _: {"seconds": 2.5},
    }.items():
        monkeypatch.setattr(f"shortcut_models.compare.{name}", stub)
    return found


def report_of(comparison: Comparison, folder: Path, name: str) -> dict[str, Any]:
    assert run(comparison, folder, name, 3, "shortcut compare") == 0
    return json.loads((folder / f"{name}-seed-3.json").read_text())


def test_guidance_without_labels_is_refused_before_anything_is_trained(plan: Comparison) -> None:
    base = replace(plan.base, objective=plan.base.objective.without_labels())
    with pytest.raises(InputError, match="--guidance 2 pushes towards labels, but none is learnt from: leave it out"):
        replace(plan, base=base, guidance=2.0)


def test_without_labels_every_method_learns_without(plan: Comparison) -> None:
    bare = replace(plan, base=replace(plan.base, objective=plan.base.objective.without_labels()))
    for name in METHODS:
        assert all(config.objective.unconditional for config in bare.stages(name, 3, Path("out")).values()), name


def test_a_line_of_the_picture_has_the_values_of_all_seeds() -> None:
    reports = [{"steps": {"1": {"a": value}}, "meant_for": {"1": True}} for value in (1.0, 3.0)]
    assert comparing.line(reports, "a", (1,)) == Line([1], [[1.0, 3.0]], [True])


def test_pairs_of_a_flow_without_labels_have_none(plan: Comparison, asked: Asked, tmp_path: Path) -> None:
    model: Any = comparing.load(tmp_path)
    for unconditional, labels in ((False, "balanced"), (True, "none")):
        model.unconditional = unconditional
        report_of(replace(plan, objectives=("reflow",), pairs=32, steps=(1,)), tmp_path, "reflow")
        assert asked.pairs[-1]["labels"] == labels


def test_averaged_weights_are_measured_with_guidance_but_those_that_learnt_guided_pairs(
    plan: Comparison, asked: Asked, tmp_path: Path
) -> None:
    guided = replace(plan, objectives=("shortcut", "reflow"), guidance=2.0, pairs=32, steps=(1, 2))
    for name in guided.objectives:
        report_of(guided, tmp_path, name)
    common = (plan.base.data, (1, 2), 64)
    assert asked.measured == [(*common, 2.0, {}), (*common, 1.0, {})]
    assert [(made["guidance"], made["count"], made["steps"], made["seed"]) for made in asked.pairs] == [
        (2.0, 32, 128, 3)
    ]
    flow = tmp_path / "flow-seed-3"
    assert asked.loaded == [(tmp_path / "shortcut-seed-3",), (flow,), (tmp_path / "reflow-seed-3",)]


def test_guided_pairs_cost_two_calls_of_the_network_a_step(plan: Comparison, asked: Asked, tmp_path: Path) -> None:
    network = plan.base.model
    one = [jnp.zeros((1, *network.shape)), jnp.zeros(1), jnp.zeros(1), jnp.zeros(1, jnp.int32)]
    call = count_flops(jax.make_jaxpr(network.apply)(network.init(jax.random.key(0)), *one).jaxpr)
    for guidance, calls in ((1.0, 1), (2.0, 2)):
        found = report_of(replace(plan, guidance=guidance, pairs=32), tmp_path, "reflow")
        assert found["cost"][1] == {
            "what": f"32 pairs of {PAIR_STEPS} steps",
            "images": 0,
            "flops": 32 * PAIR_STEPS * calls * call,
            "seconds": 2.5,
        }
        # Two trainings and the pairs.
        assert (found["images"], found["flops"], found["seconds"]) == (10, 14 + 32 * 128 * calls * call, 24.5)
    assert len(asked.pairs) == 2


def test_a_flow_that_methods_share_is_trained_by_one_process_at_a_time(
    plan: Comparison, asked: Asked, tmp_path: Path
) -> None:
    report_of(plan, tmp_path, "progressive")
    assert asked.trained == {"flow-seed-3": False, "progressive-seed-3": False}
    with hold(tmp_path / ".flow-seed-3.train.lock", wait=False) as free:
        assert free


@pytest.mark.parametrize("finished", [True, False])
def test_what_another_process_has_in_hand_comes_last_and_only_if_it_died(
    plan: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    both = replace(plan, objectives=("shortcut", "flow-matching"), seeds=(4,))
    done = []

    def write(name: str) -> None:
        (tmp_path / f"{name}-seed-4.json").write_text(json.dumps({"settings": both.settings()}))

    with ExitStack() as other:
        other.enter_context(hold(tmp_path / ".shortcut-seed-4.lock"))

        def run(_: Comparison, folder: Path, name: str, seed: int, __: str) -> int:
            with hold(folder / f".{name}-seed-{seed}.lock", wait=False) as free:
                assert not free
            done.append(name)
            write(name)
            if finished:
                write("shortcut")
            other.close()
            return 0

        monkeypatch.setattr("shortcut_models.compare.run", run)
        monkeypatch.setattr("shortcut_models.compare.write_table", lambda *_: None)
        assert compare(both, tmp_path, "") == 0
    assert done == (["flow-matching"] if finished else ["flow-matching", "shortcut"])
