"""What a person at the terminal sees of long work, and how they stop it."""

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from tqdm import tqdm

from shortcut_models.errors import InputError
from shortcut_models.files import explained


class Progress:
    """A bar in images with rate, time left and the error of each range of step sizes; first process only."""

    def __init__(self, done: int, total: int) -> None:
        self._terminal, off = sys.stderr.isatty(), not _is_first_process()
        # Without a terminal a line every now and then: logs should stay readable.
        rare = {"mininterval": 10.0, "maxinterval": 60.0, "ascii": True}
        often = {"mininterval": 0.5, "dynamic_ncols": True}
        options: dict[str, Any] = often if self._terminal else rare
        self._bar = tqdm(total=total, initial=done, unit="img", smoothing=0.05, disable=off, **options)
        self._errors = tqdm(bar_format="{desc}", position=1, disable=off or not self._terminal, dynamic_ncols=True)
        self._first, self._began = done, time.monotonic()
        self.rate = 0.0
        """Images per second since the start."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.closing(self._bar):
            self._errors.close()

    def move(self, done: int) -> None:
        """Move to `done` images."""
        self._bar.update(done - self._bar.n)

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """Move to `done` images and show the errors."""
        errors = {name.removeprefix("error/d"): value for name, value in metrics.items() if name.startswith("error/")}
        shown = "error by d: " + "  ".join(f"{name.lstrip('=')} {value:.2g}" for name, value in errors.items())
        if self._terminal:
            self._errors.set_description_str(shown)
        else:
            self._bar.set_postfix_str(shown, refresh=False)
        self.move(done)
        # Not the bar's own rate: a bar that is off, as on all processes but the first, has none.
        self.rate = (done - self._first) / max(time.monotonic() - self._began, 1e-9)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While something else is done, whose time is none of the images'."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._began += time.monotonic() - began

    @staticmethod
    def say(sentence: str) -> None:
        """A line of text, from the first process alone; raises BrokenPipeError if nobody reads any more."""
        if not _is_first_process():
            return
        try:
            tqdm.write(sentence, file=sys.stderr)
        except OSError as error:
            if error.errno != errno.EIO:  # A terminal that has hung up: the run may go on without.
                raise


@contextlib.contextmanager
def telling(remarks: Callable[[], list[str]]) -> Iterator[None]:
    """Says what there is to remark now, and at the end what has turned out meanwhile."""
    told = remarks()
    for remark in told:
        Progress.say(remark)
    yield
    for remark in remarks():
        if remark not in told:
            Progress.say(remark)


class StopSignal:
    """Turns the first Ctrl-C, termination or hang-up into a request to stop after the step.

    A second one stops at once, by KeyboardInterrupt of its number. A signal that was ignored when this begins, as
    `nohup` ignores the hang-up, stays ignored.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that asked, once one did."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        # Python lets only the main thread handle signals; elsewhere the caller has to.
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._request) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether there was a request to stop."""
        return self.signal != 0

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.asked:
            raise KeyboardInterrupt(number)
        self.signal = number
        with contextlib.suppress(OSError):  # Whoever is told may be gone, which is no reason not to save.
            Progress.say("stopping after this step and saving; once more to stop at once.")


def run(command: Callable[[], int], program: bool = False) -> int:
    """Run a command and return its exit status, with one sentence on the terminal where it failed.

    2 for bad input and for what goes wrong with files and pipes, 128 + n when signal n stopped it at once. As the
    program itself it does not come back from that: it ends without waiting for what is still being written.
    """
    if program:
        _end_cleanly()
    try:
        with explained():
            status = command()
            sys.stdout.flush()  # Here, where a closed pipe can still be told.
            return status
    except InputError as error:
        _tell(f"shortcut: {error}")
        return 2
    except KeyboardInterrupt as stopped:
        _tell("shortcut: stopped.")
        status = 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
        if program:
            os._exit(status)
        return status
    finally:
        _forget_closed_pipes()


def _end_cleanly() -> None:
    """Have a termination or a hang-up end what has no use for it as Ctrl-C does: what is half written goes."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise KeyboardInterrupt(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # One that is ignored, as by nohup, stays so.
            signal.signal(number, stop)


def _is_first_process() -> bool:
    import jax  # Here, for the program that only prints its help.

    return jax.process_index() == 0


def _tell(sentence: str) -> None:
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _forget_closed_pipes() -> None:
    """Have the interpreter, which flushes once more at its end, find nothing to complain about."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # A stream that is no file has nothing to mend.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
