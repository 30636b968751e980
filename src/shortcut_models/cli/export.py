"""`shortcut export RUN OUT`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError


@dataclass(frozen=True)
class Export:
    """Make of a run what others can use: a model folder, or with OUT.onnx a sampler that runs without this package."""

    run: Path
    """Run folder that `shortcut train` wrote, or whatever else `shortcut sample` takes."""
    out: Path
    """Model folder to write, which must not exist, or be empty; or FILE.onnx, which must not exist."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of a model folder: bfloat16 takes half the space, at three significant digits."""
    steps: int | None = None
    """Of an ONNX file: network calls per sample, 4 by default."""
    guidance: float | None = None
    """Of an ONNX file: push towards the label, by default 1, which is none."""
    decode: bool = False
    """Of an ONNX file: put the decoder of latents into it."""


def run(words: list[str]) -> int:
    """Read, and write."""
    if parsing.wants_help(words):
        print(parsing.usage(Export, "export"))
        return 0
    given = parsing.parse(Export, "export", words)
    if given.out.suffix == ".onnx":
        return _write_onnx(given)
    if given.out.suffix == ".stablehlo":
        raise InputError(f"{given.out} cannot be written: name a folder, or a file that ends with .onnx.")
    flags = {"--steps": given.steps is not None, "--guidance": given.guidance is not None, "--decode": given.decode}
    for flag, is_given in flags.items():
        if is_given:
            raise InputError(f"{flag} is for ONNX files, but {given.out} does not end with .onnx.")

    from shortcut_models.model_folder import save_pretrained
    from shortcut_models.weights import load

    save_pretrained(load(given.run, given.weights, dtype="trained"), given.out, dtype=given.dtype)
    print(f"model folder: {given.out}")
    return 0


def _write_onnx(given: Export) -> int:
    if given.dtype != "float32":
        raise InputError(f"--dtype {given.dtype} is for model folders: an ONNX file computes in float32.")
    steps = 4 if given.steps is None else given.steps
    parsing.check_counts(steps, 1)

    from shortcut_models.interop.onnx_file import export_onnx
    from shortcut_models.weights import load

    guidance = 1.0 if given.guidance is None else given.guidance
    model = load(given.run, given.weights)
    difference = export_onnx(model, given.out, steps=steps, guidance=guidance, decode=given.decode)
    print(f"ONNX file of {steps} step{'s' * (steps > 1)}, within {difference:.1e} of ours in onnxruntime: {given.out}")
    return 0
