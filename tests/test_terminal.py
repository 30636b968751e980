"""Stopping by signals, and what the terminal is told when something goes wrong."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from shortcut_models import InputError, terminal
from shortcut_models.terminal import Progress, StopSignal

# --- Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_stops_at_once(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
        assert stop.signal == number
        assert "stopping after this step and saving; once more to stop at once." in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # As nohup does to the hang-up.
    try:
        with StopSignal() as stop:
            signal.raise_signal(number)
            assert not stop.asked
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


class Gone:
    """A stream that nobody reads."""

    def __init__(self, code: int) -> None:
        self.code = code

    def write(self, _: str) -> int:
        raise OSError(self.code, os.strerror(self.code))

    def flush(self) -> None:
        raise OSError(self.code, os.strerror(self.code))

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("code", [errno.EIO, errno.EPIPE])
def test_a_hang_up_saves_although_the_terminal_is_gone(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone(code))
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.signal == signal.SIGHUP


def test_a_terminal_that_hung_up_does_not_end_the_work_but_a_closed_pipe_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone(errno.EIO))
    Progress.say("step 3")
    monkeypatch.setattr(sys, "stderr", Gone(errno.EPIPE))
    with pytest.raises(BrokenPipeError):
        Progress.say("step 3")


# --- Exit status and one sentence


def raises(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("command", "status", "sentence"),
    [
        (lambda: 0, 0, ""),
        (lambda: 143, 143, ""),
        (raises(InputError("steps is 0.")), 2, "shortcut: steps is 0.\n"),
        (
            raises(OSError(errno.ENOSPC, "", "/runs/a")),
            2,
            "shortcut: /runs/a: no space left on device: free some space and run the same command again.\n",
        ),
        (raises(KeyboardInterrupt()), 130, "shortcut: stopped.\n"),
    ],
)
def test_a_command_ends_with_a_status_and_a_sentence(
    command: Any, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal.run(command) == status
    assert capsys.readouterr() == ("", sentence)


def test_a_mistake_of_the_programs_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        terminal.run(lambda: 1 // 0)


def program(code: str, before: str = "", **streams: Any) -> subprocess.Popen[str]:
    """A process that runs `code` as the program's command, and a line before that starts."""
    script = f"import signal, sys, time, threading\n{before}\n"
    script += f"from shortcut_models import terminal\ndef command():\n{code}\n"
    script += "sys.exit(terminal.run(command, program=True))"
    return subprocess.Popen([sys.executable, "-c", script], text=True, **streams)


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both"])
def test_a_pipe_that_closes_is_one_sentence_and_no_traceback(closed: str) -> None:
    stream = "sys.stderr" if closed == "stderr" else "sys.stdout"
    code = f"    sys.stdin.read()\n    print('x' * 100, file={stream})\n    return 0"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT if closed == "both" else subprocess.PIPE}
    with program(code, stdin=subprocess.PIPE, **streams) as process:
        for name in ("stdout", "stderr"):
            pipe = getattr(process, name)
            if pipe is not None and closed in (name, "both"):
                pipe.close()
        assert process.stdin is not None
        process.stdin.close()
        said = process.stderr.read() if closed == "stdout" and process.stderr else ""
        assert process.wait() == 2
    sentence = (
        "shortcut: the output: broken pipe: the program that reads the output has ended, "
        "so that the rest of it is lost.\n"
    )
    assert said == (sentence if closed == "stdout" else "")


def test_the_program_stops_at_once_although_something_is_still_being_written() -> None:
    code = "    threading.Thread(target=time.sleep, args=(60,)).start()\n    raise KeyboardInterrupt"
    with program(code, stderr=subprocess.PIPE) as process:
        assert process.communicate(timeout=30)[1] == "shortcut: stopped.\n"
        assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_stops_the_program_has_it_clean_up_first(number: signal.Signals) -> None:
    code = (
        "    try:\n        print('here', flush=True)\n        time.sleep(60)\n    finally:\n        print('cleaned up')"
    )
    with program(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.send_signal(number)
        out, said = process.communicate(timeout=30)
    assert (out, said, process.returncode) == ("cleaned up\n", "shortcut: stopped.\n", 128 + number)


def test_a_hang_up_that_nohup_ignores_stops_nothing() -> None:
    code = "    signal.raise_signal(signal.SIGHUP)\n    return 7"
    with program(code, "signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
        assert process.wait() == 7


def test_what_runs_commands_imports_no_jax() -> None:
    code = "import sys; from shortcut_models import terminal; terminal.run(lambda: 0); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
