"""Draw samples with a file that `shortcut export RUN FILE.onnx` wrote: NumPy and onnxruntime are all it takes.

Run it with `python examples/serve_onnx.py FILE.onnx OUT.npz [COUNT [RUN]]`. With the RUN, and shortcut-models, it
draws the same with that, and says which is faster.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime


def timed(draw: Callable[[], Any], name: str) -> tuple[np.ndarray, float]:
    """Samples, and the seconds that they took; the first time sets things up."""
    draw()
    began = time.perf_counter()
    samples = np.asarray(draw())
    seconds = time.perf_counter() - began
    print(f"{name}: {len(samples)} samples in {seconds:.3f} s")
    return samples, seconds


def drawn_by(run: str, told: dict[str, str], labels: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, float]:
    """The same samples by shortcut-models, as the file tells that it draws them, and the seconds that they took."""
    try:
        import shortcut_models
    except ImportError:
        sys.exit("shortcut-models is not installed, with which the RUN is sampled: leave the RUN out.")
    try:
        model = shortcut_models.load(run, "raw" if told["weights"] == "raw" else "ema")
    except shortcut_models.InputError as error:
        sys.exit(str(error))
    if model.network.shape != noise.shape[1:]:
        sys.exit(f"{run} is not what the file was made of: it draws {model.network.shape}, the file {noise.shape[1:]}.")
    own = labels if int(told["num_classes"]) else np.full(len(noise), model.null_label)
    steps, guidance = int(told["steps"]), float(told["guidance"])
    samples, seconds = timed(lambda: model.sample(own, steps, guidance, noise=noise), "shortcut-models")
    return model.decode(samples) if told["decoded"] == "true" else samples, seconds


def main(file: str, out: str, count: int, run: str = "") -> None:
    """Draw the classes in turn, say how fast, and keep images as bytes, points or latents as floats."""
    try:
        session = onnxruntime.InferenceSession(file, providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime's own share no base.
        sys.exit(f"{file} cannot be read: {error}")
    told = session.get_modelmeta().custom_metadata_map
    if "num_classes" not in told:
        sys.exit(f"{file} is no sampler that `shortcut export` wrote: it does not say its num_classes.")
    labels = np.arange(count) % max(int(told["num_classes"]), 1)
    noise = np.random.default_rng(0).standard_normal((count, *session.get_inputs()[0].shape[1:]), np.float32)
    samples, seconds = timed(lambda: session.run(None, {"noise": noise, "label": labels})[0], "onnxruntime")
    if run:
        ours, other = drawn_by(run, told, labels, noise)
        apart = np.abs(samples - ours).max()
        print(f"onnxruntime takes {seconds / other:.2f} of its time; largest difference {apart:.1e}")
    if samples.shape[-1] in (1, 3):
        np.savez(out, images=np.clip(np.round(127.5 * (samples + 1)), 0, 255).astype(np.uint8), labels=labels)
    else:
        np.savez(out, samples=samples, labels=labels)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5) or not all(word.isdecimal() and int(word) for word in sys.argv[3:4]):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 16, *sys.argv[4:])
