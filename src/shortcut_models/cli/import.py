"""`shortcut import FILE OUT`."""  # noqa: N999 - a command's module has its name; importlib finds it.

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError
from shortcut_models.files import names_weights


@dataclass(frozen=True)
class Import:
    """Make a model folder of somebody else's checkpoint: of the official code, SiT, DiT, MeanFlow or diffusers.

    Nothing in the file is executed. The model answers in our convention (noise at t=0, data at t=1) what it
    answered there.
    """

    file: Path
    """Checkpoint to read, or the folder of diffusers."""
    out: Path
    """Model folder to write; must not exist, or be empty."""
    num_heads: int | None = None
    """Attention heads, for other sizes than the published ones: tensors do not tell."""
    image_size: int | None = None
    """Side of the network's input (32 for 256 pixels), where the tensors do not tell."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    format: str = "auto"
    """What the file is, where it does not tell: official, sit, dit, diffusers or meanflow."""
    train_type: str = "shortcut"
    """What the official code's --model.train_type was."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 takes half the space, at three significant digits."""


def run(words: list[str]) -> int:
    """Read, convert, and write."""
    if parsing.wants_help(words):
        print(parsing.usage(Import, "import"))
        return 0
    given = parsing.parse(Import, "import", words)
    if names_weights(given.out):
        raise InputError(f"{given.out} is named like a file, but import writes a model folder: name a folder.")

    from shortcut_models.interop.importing import read_weights
    from shortcut_models.model_folder import is_model_folder, save_pretrained
    from shortcut_models.weights import as_model

    if is_model_folder(given.file):
        raise InputError(f"{given.file} is a model folder already: use it as it is, wherever a run is accepted.")
    if (given.file / "run.json").is_file():
        raise InputError(
            f"{given.file} is a run: use it as it is, or make a model folder of it with `shortcut export`."
        )
    imported = read_weights(
        given.file,
        format=given.format,
        num_heads=given.num_heads,
        image_size=given.image_size,
        weights=given.weights,
        train_type=given.train_type,
    )
    save_pretrained(as_model(imported), given.out, dtype=given.dtype, about=imported.about)
    if "assumed" in imported.about:
        print(f"assumed: {imported.about['assumed']}")
    print(f"{imported.about['format']} model, {imported.kind}: {given.out}")
    return 0
