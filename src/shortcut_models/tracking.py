"""Where the numbers of a training run go: always a JSON Lines file, and a service if asked for."""

import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from shortcut_models.errors import InputError
from shortcut_models.files import naming, write_text

Service = Literal["none", "wandb", "tensorboard"]
Metrics = dict[str, float]
Rename = Callable[[Metrics], Metrics]
"""From a row of our metrics to what a service is to call them."""


class Tracker(Protocol):
    """The seam: anything with these methods can record a run."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Record the metrics of the steps up to `step`."""
        ...

    def show(self, step: int, pictures: dict[str, Path]) -> None:
        """Show PNG files of the state after `step`, by name."""
        ...

    def close(self) -> None:
        """Flush what is pending."""
        ...


class JsonLines:
    """One JSON object a line, flushed at once, so that a killed run keeps what it logged."""

    def __init__(self, path: Path, start: int) -> None:
        """Append to `path`, after dropping what a killed run logged beyond the step it resumes from."""
        if path.exists():
            rows = [line for line in path.read_text().splitlines() if _step(line, start) <= start]
            write_text(path, "".join(f"{row}\n" for row in rows))
        # Not buffered: what could not be written, for want of space, must not come up again when it is closed.
        self._path, self._file = path, path.open("ab", buffering=0)

    def log(self, step: int, metrics: Metrics) -> None:
        with naming(self._path):
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            row = (json.dumps({"step": step, **metrics}) + "\n").encode()
            while row:
                row = row[self._file.write(row) :]

    def show(self, step: int, pictures: dict[str, Path]) -> None:
        """Nothing: the pictures are files of the run folder themselves."""

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """TensorBoard event files under `folder` (extra: tensorboard)."""

    def __init__(self, folder: Path, start: int, rename: Rename = dict) -> None:
        try:
            import tensorboardX  # noqa: F401 - a submodule may be there although the package is not.
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.summary import image, scalar
        except ImportError as error:
            raise InputError(
                "tracker 'tensorboard' is not installed: pip install 'shortcut-models[tensorboard]'."
            ) from error
        # Its SummaryWriter writes in a thread, which dies when the disk is full, and then the queue to it blocks.
        folder.mkdir(exist_ok=True)
        self._proto: Any = import_module("tensorboardX.proto.event_pb2")  # Its classes are made when it is loaded.
        self._scalar, self._image, self._folder, self._rename = scalar, image, folder, rename
        with naming(folder):
            self._writer = EventsWriter(str(folder / "events"))
        # Steps that a killed run logged beyond `start` are hidden in favour of the new ones.
        self._write(start + 1, session_log=self._proto.SessionLog(status=self._proto.SessionLog.START))

    def log(self, step: int, metrics: Metrics) -> None:
        for name, value in self._rename(metrics).items():
            self._write(step, summary=self._scalar(name, value))
        with naming(self._folder):
            self._writer.flush()

    def show(self, step: int, pictures: dict[str, Path]) -> None:
        for name, path in pictures.items():
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._write(step, summary=self._image(name, pixels, dataformats="HWC"))
        with naming(self._folder):
            self._writer.flush()

    def close(self) -> None:
        with naming(self._folder):
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        with naming(self._folder):
            self._writer.write_event(self._proto.Event(wall_time=time.time(), step=step, **content))


class WandB:
    """Weights & Biases (extra: wandb). The run's id is kept in its folder, so resuming continues it.

    W&B's variables are honoured: WANDB_PROJECT (else "shortcut"), WANDB_NAME (else that of the folder), WANDB_RUN_ID
    (else the one that is kept, or a new one) and WANDB_RESUME; its client reads WANDB_ENTITY, WANDB_MODE and others.
    """

    def __init__(self, folder: Path, config: dict[str, Any], rename: Rename = dict) -> None:
        try:
            import wandb  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise InputError("tracker 'wandb' is not installed: pip install 'shortcut-models[wandb]'.") from error
        self._rename, self._wandb = rename, wandb
        remembered = folder / "wandb-id.txt"
        given = os.environ.get("WANDB_RUN_ID")
        kept = remembered.read_text().strip() if remembered.exists() else ""
        if not (given or kept):
            kept = secrets.token_hex(4)
            write_text(remembered, kept)
        with _answering("wandb"):
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "shortcut",
                name=os.environ.get("WANDB_NAME") or folder.name,
                id=given or kept,
                resume=os.environ.get("WANDB_RESUME") or "allow",
                config=config,
                dir=folder,
            )
            # W&B drops rows whose own step goes back; ours goes back when a killed run resumes.
            self._run.define_metric("*", step_metric="step")
        if given and given != kept:
            write_text(remembered, given)  # Only now: W&B has it.

    def log(self, step: int, metrics: Metrics) -> None:
        with _answering("wandb"):
            self._run.log({"step": step, **self._rename(metrics)})

    def show(self, step: int, pictures: dict[str, Path]) -> None:
        with _answering("wandb"):
            self._run.log({"step": step, **{name: self._wandb.Image(str(path)) for name, path in pictures.items()}})

    def close(self) -> None:
        with _answering("wandb"):
            self._run.finish()


@contextmanager
def open_trackers(
    folder: Path, service: Service, start: int, config: dict[str, Any], rename: Rename | None = None
) -> Iterator[list[Tracker]]:
    """The JSON Lines file, and the service if there is one, with its own names of metrics; closed at the end.

    Raises InputError for a service that is not installed, or does not let us in.
    """
    with ExitStack() as closing:
        trackers: list[Tracker] = []

        def add(tracker: Tracker) -> None:
            trackers.append(tracker)
            closing.callback(tracker.close)

        add(JsonLines(folder / "metrics.jsonl", start))
        if service == "tensorboard":
            add(TensorBoard(folder / "tensorboard", start, rename or dict))
        elif service == "wandb":
            add(WandB(folder, config, rename or dict))
        yield trackers


@contextmanager
def _answering(service: str) -> Iterator[None]:
    """Raise what a service complains of, in whatever words and classes of its own, as an InputError."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise InputError(
            f"tracker {service!r} does not work ({reason}): check that you are logged in to it and connected, or go on "
            "without it: --tracker none, or in train.py no --wandb. flag."
        ) from error


def _step(line: str, start: int) -> int:
    """The step of a row; a row cut short by a kill counts as beyond `start`."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return start + 1
