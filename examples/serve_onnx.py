"""Draw samples with a file that `shortcut export RUN FILE.onnx` wrote: NumPy and onnxruntime are all it takes.

Run it with `python examples/serve_onnx.py FILE.onnx OUT.npz [COUNT]`.
"""

import sys
import time

import numpy as np
import onnxruntime


def main(file: str, out: str, count: int) -> None:
    """Draw the classes in turn, say how fast, and keep images as bytes, points or latents as floats."""
    try:
        session = onnxruntime.InferenceSession(file, providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime's own share no base.
        sys.exit(f"{file} cannot be read: {error}")
    told = session.get_modelmeta().custom_metadata_map
    if "num_classes" not in told:
        sys.exit(f"{file} is no sampler that `shortcut export` wrote: it does not say its num_classes.")
    classes, draw = int(told["num_classes"]), np.random.default_rng(0)
    # Noise at the start, and for some models between the steps.
    noises = {port.name: port.shape for port in session.get_inputs() if port.name != "label"}
    shapes = {name: [count if length == "n" else length for length in shape] for name, shape in noises.items()}
    feed = {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    labels = np.arange(count) % max(classes, 1)
    session.run(None, {**feed, "label": labels})  # The first run sets things up.
    began = time.perf_counter()
    samples = np.asarray(session.run(None, {**feed, "label": labels})[0])
    print(f"{count} samples in {time.perf_counter() - began:.3f} s")
    if samples.shape[-1] in (1, 3):
        np.savez(out, images=np.clip(np.round(127.5 * (samples + 1)), 0, 255).astype(np.uint8), labels=labels)
    else:
        np.savez(out, samples=samples, labels=labels)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or not all(word.isdecimal() and int(word) for word in sys.argv[3:]):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 16)
