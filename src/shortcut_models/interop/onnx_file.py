"""ONNX files: a sampler that runs wherever onnxruntime does, checked against ours when it is written."""

import os
import secrets
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from shortcut_models import sampling
from shortcut_models.errors import InputError
from shortcut_models.files import explained
from shortcut_models.model import Model

TOLERANCE = 1e-4
"""How far onnxruntime's samples may be from ours, as a share of the largest value, or absolute if that is below 1."""
CHECKED = 3
"""Samples that are compared: no number that a model has for other reasons."""
Samples = Float[np.ndarray, "count ..."]


def export_onnx(
    model: Model, out: str | Path, *, steps: int = 4, guidance: float = 1.0, decode: bool = False, limit: int = 0
) -> float:
    """Write the sampler of so many steps to an ONNX file, whole or not at all.

    Its inputs are `noise`, float32 (n, *model.network.shape), standard normal, and `label`, int64 (n,), for any n;
    methods that are noised back between jumps also need `fresh`, float32 (steps - 1, n, *model.network.shape),
    standard normal. Its output, `image`, or `points` of data that are no images, is what
    `model.sample(label, steps, guidance, noise=noise)` returns, or with `decode` what `model.decode` makes of it.
    A model without labels takes some and ignores them.

    Args:
        model: The model, as `load` returns it.
        out: The file to write, which must not exist. Weights of more than 2 GB go into OUT.data beside it.
        steps: Network calls per sample.
        guidance: Push towards the label; 1 is none.
        decode: Put the decoder of latents into the file.
        limit: Bytes of weights that the file itself holds; 0 for as many as ONNX allows.

    Returns:
        The largest difference between onnxruntime's samples and ours.

    Raises:
        InputError: The packages onnx and onnxruntime are missing, something is there already or cannot be written,
            the model does not take these settings, computes something that ONNX lacks, or answers otherwise there.
    """
    _need_packages()
    out = Path(out)
    beside = out.with_name(f"{out.name}.data")
    for path in (out, beside):
        if path.exists():
            raise InputError(f"{path} is there already: choose another name, or remove it.")
    from shortcut_models.interop import onnx_graph
    from shortcut_models.interop.onnx_sampler import Sampler, build, describe

    asked = Sampler(*_settings(model, steps, guidance, decode))
    graph, proto = build(asked)
    with explained():
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".aside-{secrets.token_hex(6)}")
        try:
            aside.mkdir()
            split = onnx_graph.size(graph) > (limit or onnx_graph.LARGEST)
            about = describe(asked, model.data.class_names)
            onnx_graph.write(aside / out.name, proto, graph, about, aside / beside.name if split else None)
            del graph, proto
            difference = check(aside / out.name, model, steps, guidance, decode)
            for path in (beside, out) if split else (out,):
                _settle(aside / path.name, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return difference


def _need_packages() -> None:
    for package in ("onnx", "onnxruntime"):
        try:
            import_module(package)
        except ImportError:
            raise InputError(
                f"the package {package} is needed to write ONNX files: pip install 'shortcut-models[onnx]'."
            ) from None


def _settings(model: Model, steps: int, guidance: float, decode: bool) -> tuple[Any, ...]:
    """Model, jumps, guidance and codec, as far as the model takes them; raises InputError."""
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps is {steps}, but must be a whole number from 1 up.")
    model.check_guidance(guidance)
    return model, model.objective.jumps(steps), float(guidance), model.data.codec.ready() if decode else None


def check(path: Path, model: Model, steps: int, guidance: float, decode: bool) -> float:
    """The largest difference between a file's samples and ours; raises InputError if that is too large."""
    noise, labels = model.noise(0, 0, CHECKED), model.balanced_labels(CHECKED)
    expected = model.sample(labels, steps, guidance, noise=noise)
    feed = {"noise": noise, "label": labels.astype(np.int64)}
    if np.any(model.objective.jumps(steps).renoise < 1):
        feed["fresh"] = _fresh(steps, noise)
    found = _run(path, feed)
    if decode:
        expected = model.decode(expected)
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):  # Also true of NaN.
        raise InputError(
            f"onnxruntime answers otherwise than this model, by {difference:.2g} where {TOLERANCE:g} of the largest "
            "value may be, so that nothing was written: export a model folder instead."
        )
    return difference


def _fresh(steps: int, noise: Samples) -> Float[np.ndarray, "jumps count ..."]:
    """The noise between jumps that `Model.sample` draws for seed 0, (steps - 1, count, ...)."""
    keys = sampling.image_keys(0, jnp.arange(len(noise), dtype=jnp.uint32))
    draw = jax.vmap(lambda key, jump: jax.random.normal(jax.random.fold_in(key, jump), noise.shape[1:]), (0, None))
    return np.stack([draw(keys, jump) for jump in range(1, steps)])


def _run(path: Path, feed: dict[str, np.ndarray]) -> Samples:
    """What onnxruntime makes of it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, feed)[0])
    except Exception as error:  # It has no class of its own for what a user can mend.
        first = next(iter(str(error).strip().splitlines()), "").rstrip(".:")
        raise InputError(
            f"onnxruntime {onnxruntime.__version__} does not run the file that was made "
            f"({type(error).__name__}: {first}): install version 1.17 or later, or export a model folder instead."
        ) from None


def _settle(path: Path, to: Path) -> None:
    """Move a finished file to its place, all of it on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(to)
