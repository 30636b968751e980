"""`shortcut pairs RUN`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.cli import parsing


@dataclass(frozen=True)
class Pairs:
    """Draw pairs of noise and sample from a trained run: the data set of reflow.

    Interrupted, the same command continues. Then train on them, starting from the run:
    `shortcut train PRESET --objective reflow --data OUT --start-from RUN`.

    A model folder, or a model's owner/name on the hub, may stand for the run.
    """

    run: Path
    """Run folder that `shortcut train` wrote."""
    out: Path | None = None
    """Folder for the pairs. By default `pairs` in the run folder."""
    count: int = 50_000
    """Number of pairs."""
    steps: int = 128
    """Network calls per pair."""
    labels: Literal["", "balanced", "none"] = ""
    """Classes in turn (balanced), or no class (none). By default balanced, or none for a run that was trained
    without labels."""
    guidance: float = 1.0
    """Push towards the label; 1 is none."""
    seed: int = 0
    """Pair i depends on the seed and i alone."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""


def run(words: list[str]) -> int:
    """Draw the pairs that are missing."""
    if parsing.wants_help(words):
        print(parsing.usage(Pairs, "pairs"))
        return 0
    given = parsing.parse(Pairs, "pairs", words)
    parsing.check_counts(given.steps, given.count)

    from shortcut_models import outputs, runs
    from shortcut_models.files import absolute
    from shortcut_models.interop import hub
    from shortcut_models.pairs import make_pairs
    from shortcut_models.weights import folder_of, load

    model = load(given.run, given.weights)
    data = runs.read_config(given.run).data if (given.run / "run.json").exists() else model.data
    data = data if data.is_here else model.data
    run = str(given.run) if hub.is_id(given.run) else absolute(given.run)  # From wherever it goes on.
    out = given.out or folder_of(given.run) / "pairs"
    make_pairs(
        model,
        out,
        count=given.count,
        steps=given.steps,
        guidance=given.guidance,
        seed=given.seed,
        data=data,
        labels=given.labels or outputs.default_labels(model.unconditional),
        about={"run": run, "run_step": model.step, "weights": given.weights},
    )
    print(f"{given.count} pairs in {given.steps} step{'s' * (given.steps > 1)} each: {out}")
    return 0
