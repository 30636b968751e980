"""The program: dispatch, exit status, help at once."""

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shortcut_models import InputError, catalogue, cli
from shortcut_models.cli import original_flags, presets

HELPS = [[], ["--help"], *([name, "--help"] for name in cli.COMMANDS), ["presets"], ["--version"]]
HEAVY = {"jax", "numpy", "matplotlib", "tyro", "PIL", "scipy", "sklearn", "optax", "grain", "orbax"}

# Runs a command, and says what it has loaded and what processor time it took, the interpreter's start included.
MEASURED = """
import json, resource, sys
from shortcut_models import cli
status = cli.main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print("\\n" + json.dumps([status, used.ru_utime + used.ru_stime, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def measured(*words: str) -> tuple[int, float, set[str], str]:
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    shown, _, last = done.stdout.rstrip("\n").rpartition("\n")
    status, seconds, loaded = json.loads(last)
    return status, seconds, set(loaded), shown


def slowness() -> float:
    """Of this machine as it is now: what importing JAX takes of it, in the .6 s of an idle one of two cores."""
    script = "import jax, resource; print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return max(float(done.stdout) / 0.6, 1)


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_is_there_at_once(words: list[str]) -> None:
    status, seconds, loaded, shown = measured(*words)
    assert status == 0
    assert shown.startswith("usage: shortcut") or words in (["presets"], ["--version"])
    assert not HEAVY & loaded
    # A third of it on an idle machine; other tests run beside.
    assert seconds < 0.3 or measured(*words)[1] < 0.3 * slowness()


@pytest.mark.parametrize("words", [["train", "digits", "--help"], ["compare", "digits", "--help"]], ids=" ".join)
def test_settings_are_listed_soon(words: list[str]) -> None:
    status, seconds, _, shown = measured(*words)
    assert status == 0
    assert "--objective.share" in shown
    # Half of it on an idle machine: JAX has to be loaded.
    assert seconds < 1.5 or measured(*words)[1] < 1.5 * slowness()


def test_help_names_every_command_preset_and_objective(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)
    for command in ("train", "compare", "presets"):
        assert cli.main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in catalogue.PRESETS)
        if command != "presets":
            own = [name for name in catalogue.OBJECTIVES if not name.endswith("-original")]
            assert all(f"\n  {name} " in shown for name in own)
            assert "\n  NAME-original " in shown
    for command in cli.COMMANDS:
        cli.main([command, "--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 108


def test_a_recipe_is_shown_with_its_cost_and_the_quality_to_expect(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", "imagenet256-b"]) == 0
    page, shown = capsys.readouterr().out.split("\n\nIts settings:\n\n")
    assert all(words in page for words in ("shortcut train imagenet256-b", "22 hours", "FID of 15.5 in 128 steps"))
    assert "  --max-steps 810000\n" in shown


def test_every_command_has_its_module() -> None:
    for name in cli.COMMANDS:
        assert callable(importlib.import_module(f"shortcut_models.cli.{name}").run)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(list(words)) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("shortcut: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("shortcut: ").rstrip("\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "command 'trian' is unknown: did you mean 'train'?"),
        (["zebra"], f"command 'zebra' is unknown: the commands are {', '.join(cli.COMMANDS)}."),
        (["train", "--seed", "1"], "the first argument of shortcut train must be a preset: one of "),
        (["train", "digitz"], "preset 'digitz' is unknown: did you mean 'digits'?"),
        (["compare"], "the first argument of shortcut compare must be a preset: one of "),
        (["train", "digits", "dry-run"], "argument 'dry-run' is one too many: did you mean --dry-run?"),
        (["train", "digits", "9"], "argument '9' is one too many: settings are flags, such as --max-steps 500."),
        (["train", "digits", "--model.lr", "1"], "--model.lr is a flag of the official code: here it is --optimizer."),
        (["train", "digits", "--model.dropout=0"], "--model.dropout is a flag of the official code that has no"),
        (["train", "digits", "--objective"], "--objective needs a value: --objective VALUE."),
        (["presets", "nope"], "preset 'nope' is unknown"),
        (["presets", "digits", "points"], "argument 'points' is one too many"),
        (["presets", "digits", "--steps", "3"], "--steps is unknown"),
        (["sample"], "RUN is missing (run folder that `shortcut train` wrote): shortcut sample RUN."),
        (["sample", "x", "--weights", "old"], "--weights old must be one of ema, raw."),
        (["sample", "x", "--steps", "many"], "--steps many must be a whole number."),
        (["sample", "x", "--steps", "0"], "--steps is 0, but sampling takes at least 1 step."),
        (["sample", "x", "--count", "-3"], "--count is -3, but at least 1 sample must be drawn."),
        (["pairs", "x", "--count", "0"], "--count is 0, but at least 1 sample must be drawn."),
        (["pairs", "x", "--guidance", "nan"], "--guidance nan must be a finite number."),
        (["evaluate", "x", "--steps", "0,4"], "--steps 0,4 must be whole numbers from 1 up, separated by commas: '0'"),
        (["evaluate", "x", "--steps", "4,1,4"], "--steps 4,1,4 names a budget twice: name each once."),
        (["evaluate", "x", "--labels", "1,2"], "--labels 1,2 must be one of balanced, random, data, none."),
        (["compare", "digits", "--steps", "1,few"], "--steps 1,few must be whole numbers from 1 up, separated by"),
        (["compare", "digits", "--seeds", "0"], "--seeds 0 must be whole numbers from 1 up"),
        (["compare", "digits", "--guidance", "nan"], "--guidance nan must be a finite number."),
        (["compare", "digits", "--objectives", "shortcut,magic"], "objective 'magic' is unknown"),
        (["compare", "digits", "--max-steps", "9"], "--max-steps is set by the comparison itself: use --budget."),
        (["compare", "digits", "--objective", "reflow"], "--objective is set by the comparison itself: use --objec"),
    ],
)
def test_bad_arguments_get_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, *words).startswith(sentence)
    assert not list(tmp_path.iterdir())


def failing(error: BaseException) -> Callable[[list[str]], int]:
    def run(_: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("all is lost."), "all is lost."),
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            "a/b: no space left on device: free some space and run",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: permission denied: check its owner"),
        (OSError(errno.EIO, "Input/output error", "a/b"), "a/b: input/output error: check the disk"),
    ],
)
def test_what_the_user_can_mend_is_a_sentence_and_a_status_of_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    monkeypatch.setattr(presets, "run", failing(error))
    assert refused(capsys, "presets").startswith(sentence)


def test_an_interrupt_and_our_own_faults_are_told_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "run", failing(KeyboardInterrupt()))
    assert cli.main(["presets"]) == 130
    assert capsys.readouterr().err == "shortcut: stopped.\n"
    monkeypatch.setattr(presets, "run", failing(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["presets"])


@pytest.mark.parametrize(
    ("target", "sentence"), [("pipe", "the output: broken pipe: the program that"), ("/dev/full", "no space left")]
)
def test_output_that_nobody_takes_is_a_sentence(target: str, sentence: str) -> None:
    if target == "pipe":
        reader, out = os.pipe()
        os.close(reader)
    elif Path(target).exists():
        out = os.open(target, os.O_WRONLY)
    else:
        pytest.skip("no such device")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "shortcut_models", "presets"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(out)
    assert done.returncode == 2
    assert done.stderr.startswith("shortcut: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_ours_for_a_flag_of_the_official_code_is_none_of_the_official_codes() -> None:
    assert not set(original_flags.OURS) & set(original_flags.ABSENT)
    for name, ours in original_flags.OURS.items():
        assert f"--{name.replace('_', '-')}" not in ours.replace(":", " ").replace(",", " ").split()
