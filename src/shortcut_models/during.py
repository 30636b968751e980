"""What a training does besides learning, at intervals of images: validation, evaluation, figures.

None of it changes what is learnt, so it is no part of `Config`, and may differ each time that a run goes on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.errors import InputError, check_at_least, check_values, check_whole


@dataclass(frozen=True, kw_only=True)
class During:
    """The intervals, and how samples are measured; 0 is never."""

    validate_every: int | None = None
    """Images between losses of held-out batches, loss_valid in metrics.jsonl; 0 is never. By default every 1,000
    steps, of data in files that have a validation split."""
    figures_every: int = 0
    """Images between figures, in figures/ of the run folder; 0 is never."""
    evaluate_every: int = 0
    """Images between evaluations, in evaluations/ of the run folder and in metrics.jsonl; 0 is never."""
    evaluate_steps: tuple[int, ...] = (1, 4, 32, 128)
    """Step budgets to measure."""
    evaluate_count: int = 4096
    """Samples to measure each by."""
    evaluate_guidance: float = 1.0
    """Measure the largest budget with this guidance too; 1 is none."""
    evaluate_weights: Literal["ema", "raw"] = "ema"
    """Weights to measure: averaged over training (ema), or the last ones (raw)."""
    metrics: tuple[str, ...] = ()
    """Names of metrics. By default those of the data set."""
    stats: Path | None = None
    """Reference statistics (.npz) for the FIDs; by default they are computed from the data set."""
    stats_protocol: Literal["", "paper", "adm", "clean"] = ""
    """Under which protocol foreign statistics were made; files of ours say so themselves."""
    inception: Path | None = None
    """Weights of the Inception network of 2015-12-05; by default SHORTCUT_INCEPTION, or the hub's cache."""
    any_inception: bool = False
    """Take an Inception file with another hash than the published one."""

    def __post_init__(self) -> None:
        intervals = ("validate_every", "figures_every", "evaluate_every")
        check_values("", self, wide=(*intervals, "evaluate_count"))
        for steps in self.evaluate_steps:
            check_whole("--evaluate-steps", steps, 1)
        least = {"figures_every": 0, "evaluate_every": 0, "evaluate_count": 2}
        check_at_least("", self, least if self.validate_every is None else least | {"validate_every": 0})
        if not self.evaluate_steps or len(set(self.evaluate_steps)) < len(self.evaluate_steps):
            given = ",".join(map(str, self.evaluate_steps))
            raise InputError(f"--evaluate-steps {given} must name one or more budgets, each once.")


NOTHING = During()
