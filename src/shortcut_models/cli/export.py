"""`shortcut export RUN OUT`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError
from shortcut_models.files import names_weights

ENDINGS = (".onnx", ".stablehlo")
"""Of files that hold a sampler."""


@dataclass(frozen=True)
class Export:
    """Make of a run what others can use: a model folder, or a sampler that runs without this package.

    OUT is a folder for the first; FILE.onnx is a sampler for onnxruntime, FILE.stablehlo one for JAX.
    """

    run: Path
    """Run folder that `shortcut train` wrote, or whatever else `shortcut sample` takes."""
    out: Path
    """Model folder to write, new or empty; or a new FILE.onnx or FILE.stablehlo."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of a model folder: bfloat16 takes half the space, at three significant digits."""
    steps: int | None = None
    """Of a sampler: network calls per sample, 4 by default."""
    guidance: float | None = None
    """Of a sampler: push towards the label, by default 1, which is none."""
    decode: bool = False
    """Of a sampler of latents: put the decoder into the file."""


def run(words: list[str]) -> int:
    """Read, and write."""
    if parsing.wants_help(words):
        print(parsing.usage(Export, "export"))
        return 0
    given = parsing.parse(Export, "export", words)
    ending = given.out.suffix.lower()
    if ending in ENDINGS:
        return _write_sampler(given)
    if names_weights(given.out) or given.out.name in ENDINGS:
        raise InputError(
            f"{given.out} is no file that export writes: name a folder, or FILE{' or FILE'.join(ENDINGS)}; weights are "
            "in the folder's model.safetensors."
        )
    flags = {"--steps": given.steps is not None, "--guidance": given.guidance is not None, "--decode": given.decode}
    for flag, is_given in flags.items():
        if is_given:
            raise InputError(f"{flag} is for samplers, but {given.out} ends with neither {' nor '.join(ENDINGS)}.")

    from shortcut_models.evaluate import read_report
    from shortcut_models.interop import hub
    from shortcut_models.model_folder import is_model_folder, read_facts, save_pretrained
    from shortcut_models.weights import folder_of, load

    model = load(given.run, given.weights, dtype="trained")
    facts = read_facts(given.run) if hub.is_id(given.run) or is_model_folder(given.run) else {}
    if report := read_report(folder_of(given.run) / "report.json"):
        facts["report"] = report
    save_pretrained(model, given.out, dtype=given.dtype, **facts)
    print(f"model folder: {given.out}")
    return 0


def _write_sampler(given: Export) -> int:
    if given.dtype != "float32":
        raise InputError(f"--dtype {given.dtype} is for model folders: a sampler computes in float32.")
    steps = 4 if given.steps is None else given.steps
    parsing.check_counts(steps, 1)

    from shortcut_models.interop.onnx_file import export_onnx
    from shortcut_models.interop.stablehlo_file import export_stablehlo
    from shortcut_models.outputs import say_if_untrained
    from shortcut_models.weights import load

    write = export_onnx if given.out.suffix.lower() == ".onnx" else export_stablehlo
    guidance = 1.0 if given.guidance is None else given.guidance
    model = load(given.run, given.weights)
    model.check_guidance(guidance)
    say_if_untrained(model.objective, guidance, [steps])
    difference = write(model, given.out, steps=steps, guidance=guidance, decode=given.decode)
    print(f"sampler of {steps} step{'s' * (steps > 1)}, within {difference:.1e} of this program's: {given.out}")
    return 0
