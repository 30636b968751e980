"""What a person at the terminal sees of long work, and how they stop it."""

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import jax
from tqdm import tqdm


class Progress:
    """A bar in images with rate, time left and the error of each range of step sizes; first process only."""

    def __init__(self, done: int, total: int) -> None:
        self._terminal, off = sys.stderr.isatty(), jax.process_index() != 0
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
        self._errors.close()
        self._bar.close()

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """Move to `done` images and show the errors."""
        errors = {name.removeprefix("error/d"): value for name, value in metrics.items() if name.startswith("error/")}
        shown = "error by d: " + "  ".join(f"{name.lstrip('=')} {value:.2g}" for name, value in errors.items())
        if self._terminal:
            self._errors.set_description_str(shown)
        else:
            self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(done - self._bar.n)
        # Not the bar's own rate: a bar that is off, as on all processes but the first, has none.
        self.rate = (done - self._first) / max(time.monotonic() - self._began, 1e-9)

    @staticmethod
    def say(sentence: str) -> None:
        """A line of text, from the first process alone."""
        if jax.process_index() == 0:
            tqdm.write(sentence, file=sys.stderr)


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that asked, once one did."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        # Python lets only the main thread handle signals; elsewhere the caller has to.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
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
            raise KeyboardInterrupt
        self.signal = number
        Progress.say("stopping after this step and saving; once more to stop at once.")
