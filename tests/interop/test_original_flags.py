from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shortcut_models.cli import main
from shortcut_models.config import Config
from shortcut_models.errors import InputError
from shortcut_models.interop.original_flags import ELSEWHERE, FLAGS, translate
from shortcut_models.objectives import FlowMatching, Shortcut

# Every flag of FLAGS: a value, and what it becomes.
TRANSLATED = {
    "save_dir": ("runs/a", ["--run_dir", "runs/a"]),
    "model.lr": ("3e-4", ["--optimizer.learning_rate", "3e-4"]),
    "model.beta1": ("0.8", ["--optimizer.beta1", "0.8"]),
    "model.beta2": ("0.95", ["--optimizer.beta2", "0.95"]),
    "model.weight_decay": ("0.2", ["--optimizer.weight_decay", "0.2"]),
    "model.warmup": ("50", ["--optimizer.warmup_steps", "50"]),
    "model.class_dropout_prob": ("0.2", ["--objective.label_dropout", "0.2"]),
    "model.denoise_timesteps": ("32", ["--objective.levels", "32", "--objective.times.grid", "32"]),
    "model.target_update_rate": ("0.99", ["--ema_decay", "0.99", "--objective.target_decay", "0.99"]),
    "model.bootstrap_every": ("4", ["--objective.share", "0.25"]),
    "model.bootstrap_dt_bias": ("0", []),
    "model.dropout": ("0.0", []),
    "model.use_stable_vae": ("0", []),
    "model.t_sampling": ("discrete-dt", []),
    "model.dt_sampling": ("uniform", []),
    "model.sharding": ("fsdp", ["--sharding", "fsdp"]),
    "model.use_cosine": ("1", ["--optimizer.schedule", "cosine"]),
    "model.train_type": ("naive", ["--objective", "flow-matching"]),
    "model.bootstrap_ema": ("0", ["--objective.target_decay", "None"]),
}


def test_the_table_of_this_test_is_complete() -> None:
    # A new flag needs a line above; an old one that goes is missed by those who use it.
    assert set(TRANSLATED) == set(FLAGS)


@pytest.mark.parametrize("flag", TRANSLATED)
def test_every_flag_is_translated_in_every_spelling(flag: str) -> None:
    value, expected = TRANSLATED[flag]
    for name in (flag, flag.replace("_", "-")):
        assert translate([f"--{name}", value]) == expected
        assert translate([f"--{name}={value}"]) == expected
        assert translate(["--seed", "1", f"--{name}", value, "--batch-size=8"]) == [
            *("--seed", "1"),
            *expected,
            "--batch-size=8",
        ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--model.use_cosine 0", ["--optimizer.schedule", "constant"]),
        ("--model.train_type shortcut", ["--objective", "shortcut"]),
        ("--model.bootstrap_ema 1", []),
        ("--model.train_type livereflow", ["--objective", "live-reflow-original"]),
        ("--model.train_type consistency-distillation", ["--objective", "consistency-distillation-original"]),
        # What the original ignores for lack of effect, in whatever order.
        (
            "--model.bootstrap_every 4 --model.train_type naive --model.denoise_timesteps 32 --model.bootstrap_cfg 1",
            ["--objective", "flow-matching", "--objective.times.grid", "32"],
        ),
        (
            "--model.bootstrap_ema 0 --model.target_update_rate 0.99",
            ["--objective.target_decay", "None", "--ema_decay", "0.99"],
        ),
        (
            "--model.target_update_rate 0.99 --model.bootstrap_ema 0",
            ["--ema_decay", "0.99", "--objective.target_decay", "None"],
        ),
        (
            "--model.train_type naive --objective.share 0.5",
            ["--objective", "flow-matching", "--objective.share", "0.5"],
        ),
        ("--model.bootstrap_every 8", ["--objective.share", "0.125"]),
        # The scale acts in training where the targets are guided, and nowhere else; its default is 4.
        ("--model.cfg_scale 1.5", []),
        ("--model.cfg_scale 1.5 --model.bootstrap_cfg 1", ["--objective.guidance", "1.5"]),
        ("--model.bootstrap_cfg 1 --model.cfg-scale=1.5", ["--objective.guidance", "1.5"]),
        ("--model.bootstrap_cfg 1", ["--objective.guidance", "4.0"]),
        ("--model.bootstrap_cfg 0 --model.cfg_scale 1.5", ["--objective.guidance", "1.0"]),
        # What the original and we spell alike passes through, and so do our own words.
        ("--model.hidden_size 768 --max_steps 410_000", ["--model.hidden_size", "768", "--max_steps", "410_000"]),
        ("--optimizer.learning-rate 1e-3 --dry-run", ["--optimizer.learning-rate", "1e-3", "--dry-run"]),
        ("", []),
    ],
)
def test_values_and_combinations_mean_what_they_meant(words: str, expected: list[str]) -> None:
    assert translate(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.lr", r"--model\.lr needs a value"),
        ("--model.cfg_scale", r"--model\.cfg_scale needs a value"),
        ("--model.bootstrap_every 1", "every how many images one learns jumps; more than 1"),
        ("--model.bootstrap_every many", r"--model\.bootstrap_every many is not a number"),
        ("--model.bootstrap_dt_bias 1", r"--model\.bootstrap_dt_bias 1 is not supported by this version: it takes 0"),
        ("--model.dropout 0.1", r"--model\.dropout 0\.1 is not supported by this version: it takes 0"),
        ("--model.use_stable_vae 1", r"--model\.use_stable_vae 1 is not supported by this version: it takes 0"),
        ("--model.t_sampling continuous", r"--model\.t_sampling continuous is not supported .* takes discrete-dt"),
        ("--model.dt_sampling other", r"--model\.dt_sampling other is not supported .* it takes uniform"),
        ("--model.use_cosine 2", r"--model\.use_cosine 2 is not supported by this version: it takes 0, 1"),
        ("--model.train_type magic", r"--model\.train_type magic is not supported .* naive, shortcut, progressive"),
        ("--model.bootstrap_ema 2", r"--model\.bootstrap_ema 2 is not supported by this version: it takes 0, 1"),
        ("--model.bootstrap_cfg 2", r"--model\.bootstrap_cfg 2 is not supported by this version: it takes 0, 1"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        translate(words.split())


@pytest.mark.parametrize("flag", ELSEWHERE)
def test_flags_without_a_counterpart_say_what_to_do_instead(flag: str) -> None:
    for name in (flag, flag.replace("_", "-")):
        with pytest.raises(InputError) as refusal:
            translate([f"--{name}", "1"])
        assert str(refusal.value) == f"--{flag} has no counterpart here: {ELSEWHERE[flag]}."


def started(monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> tuple[Config, Path]:
    """The run that a command line would start."""
    seen: list[Any] = []
    monkeypatch.setattr("shortcut_models.train.start_processes", lambda: None)
    monkeypatch.setattr("shortcut_models.train.train", lambda *given: seen.append(given) or 0)
    assert main(["train", *map(str, words)]) == 0
    return seen[0][0], seen[0][1]


def test_a_command_of_the_paper_starts_the_run_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    command = """
        dit-b/2 --model.hidden_size 1152 --model.patch_size 2 --model.depth 28 --model.num_heads 16
        --model.mlp_ratio 4 --model.cfg_scale 2.5 --model.class_dropout_prob 0.3 --model.bootstrap_cfg 1
        --batch_size 512 --max_steps 810_000 --model.train_type shortcut --save_dir here
        --model.lr 2e-4 --model.beta1 0.8 --model.beta2 0.95 --model.weight_decay 0.2 --model.warmup 50
        --model.denoise_timesteps 32 --model.target_update_rate 0.99 --model.bootstrap_every 4
        --model.use_cosine 0 --model.sharding fsdp --model.num_classes 10
    """
    config, folder = started(monkeypatch, command.split())
    assert folder == Path("here")
    model, objective, optimizer = config.model, config.objective, config.optimizer
    assert isinstance(objective, Shortcut)
    assert (model.hidden_size, model.depth, model.num_heads, model.num_classes) == (1152, 28, 16, 10)
    assert (model.step_conditioning, model.mlp_ratio, model.patch_size) == ("log2", 4, 2)
    assert (config.batch_size, config.max_steps, config.ema_decay, config.sharding) == (512, 810_000, 0.99, "fsdp")
    assert (optimizer.learning_rate, optimizer.beta1, optimizer.beta2) == (2e-4, 0.8, 0.95)
    assert (optimizer.weight_decay, optimizer.warmup_steps, optimizer.schedule) == (0.2, 50, "constant")
    assert (objective.guidance, objective.share, objective.levels, objective.target_decay) == (2.5, 0.25, 32, 0.99)
    assert (objective.times.kind, objective.times.grid, objective.label_dropout) == ("grid", 32, 0.3)
    # What no flag named is the original's.
    assert (objective.clip, objective.bootstrap_dropout, objective.adaptive_power) == (4.0, False, 0.0)


def test_naive_training_and_online_targets_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    naive, _ = started(monkeypatch, ["dit-b/2", "--model.train-type=naive", "--model.class-dropout-prob", "0.2"])
    assert isinstance(naive.objective, FlowMatching)
    assert naive.objective.label_dropout == 0.2
    online, _ = started(monkeypatch, ["dit-b/2", "--model.bootstrap_ema", "0"])
    assert isinstance(online.objective, Shortcut)
    assert online.objective.target_decay is None


def test_a_refusal_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--model.dropout", "0.1"]) == 2
    assert capsys.readouterr().err == ("shortcut: --model.dropout 0.1 is not supported by this version: it takes 0.\n")
