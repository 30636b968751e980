"""Where the numbers of a training run go: always a JSON Lines file, and a service if asked for."""

import json
import secrets
from pathlib import Path
from typing import Any, Literal, Protocol

from shortcut_models.errors import InputError

Service = Literal["none", "wandb", "tensorboard"]
Metrics = dict[str, float]


class Tracker(Protocol):
    """The seam: anything with these two methods can record a run."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Record the metrics of the steps up to `step`."""
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
            aside = path.with_suffix(".tmp")
            aside.write_text("".join(f"{row}\n" for row in rows))
            aside.replace(path)
        self._file = path.open("a")

    def log(self, step: int, metrics: Metrics) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """TensorBoard event files under `folder` (extra: tensorboard)."""

    def __init__(self, folder: Path, start: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise InputError(
                "tracker 'tensorboard' is not installed: pip install 'shortcut-models[tensorboard]'."
            ) from error
        # Steps that a killed run logged beyond `start` are hidden in favour of the new ones.
        self._writer = SummaryWriter(str(folder), purge_step=start + 1)

    def log(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases (extra: wandb). The run's id is kept in its folder, so resuming continues it."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        try:
            import wandb  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise InputError("tracker 'wandb' is not installed: pip install 'shortcut-models[wandb]'.") from error
        remembered = folder / "wandb-id.txt"
        if not remembered.exists():
            remembered.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project="shortcut", name=folder.name, id=remembered.read_text(), resume="allow", config=config, dir=folder
        )
        # W&B drops rows whose own step goes back; ours goes back when a killed run resumes.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Metrics) -> None:
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        self._run.finish()


def open_trackers(folder: Path, service: Service, start: int, config: dict[str, Any]) -> list[Tracker]:
    """The JSON Lines file, and the service if there is one."""
    trackers: list[Tracker] = [JsonLines(folder / "metrics.jsonl", start)]
    if service == "tensorboard":
        trackers.append(TensorBoard(folder / "tensorboard", start))
    elif service == "wandb":
        trackers.append(WandB(folder, config))
    return trackers


def _step(line: str, start: int) -> int:
    """The step of a row; a row cut short by a kill counts as beyond `start`."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return start + 1
