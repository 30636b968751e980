"""`shortcut export RUN OUT`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError


@dataclass(frozen=True)
class Export:
    """Make a model folder of a run: its weights with all that is needed to use them, to keep or share."""

    run: Path
    """Run folder that `shortcut train` wrote, or whatever else `shortcut sample` takes."""
    out: Path
    """Model folder to write; must not exist, or be empty."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 takes half the space, at three significant digits."""


def run(words: list[str]) -> int:
    """Read, and write."""
    if parsing.wants_help(words):
        print(parsing.usage(Export, "export"))
        return 0
    given = parsing.parse(Export, "export", words)
    if given.out.suffix in (".onnx", ".stablehlo"):
        raise InputError(f"{given.out} cannot be written: this version exports model folders alone, so name a folder.")

    from shortcut_models.evaluate import read_report
    from shortcut_models.model_folder import save_pretrained
    from shortcut_models.weights import folder_of, load

    report = read_report(folder_of(given.run) / "report.json")
    save_pretrained(load(given.run, given.weights, dtype="trained"), given.out, dtype=given.dtype, report=report)
    print(f"model folder: {given.out}")
    return 0
