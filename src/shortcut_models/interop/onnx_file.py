"""ONNX files: a sampler that runs wherever onnxruntime does, checked against ours when it is written."""

from pathlib import Path

import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.interop.exporting import Sampler, Samples, check, need, placed
from shortcut_models.model import Model


def export_onnx(
    model: Model, out: str | Path, *, steps: int = 4, guidance: float = 1.0, decode: bool = False, limit: int = 0
) -> float:
    """Write the sampler of so many steps to an ONNX file, whole or not at all.

    Its inputs are `noise`, float32 (n, *model.network.shape), standard normal, and `label`, int64 (n,), for any n.
    Methods that are noised back between jumps take `seed` too, int64 (), which is 0 if it is not given. Its output,
    `image`, or `points` of data that are no images, is what `model.sample(label, steps, guidance, seed, noise=noise)`
    returns, or with `decode` what `model.decode` makes of it. A model without labels takes some and ignores them.

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
    need("onnx", "onnx", "onnxruntime")
    asked, out = Sampler.of(model, steps, guidance, decode), Path(out)
    from shortcut_models.interop import onnx_graph
    from shortcut_models.interop.onnx_sampler import build

    with placed(out.with_name(f"{out.name}.data"), out) as (beside, path):
        graph, proto = build(asked)
        split = onnx_graph.size(graph) > (limit or onnx_graph.LARGEST)
        onnx_graph.write(path, proto, graph, asked.about(), beside if split else None)
        del graph, proto  # They hold copies of all weights.
        feed, expected = asked.example()
        return check(_run(path, feed | {"label": feed["label"].astype(np.int64)}), expected)


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
