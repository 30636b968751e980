"""What measuring costs, and that a kill costs nothing of it: `python -m benchmarks.metrics [PART ...]`.

| part | what is measured |
| --- | --- |
| inception | features of 16 images, beside torch-fidelity's (of the extra `bench`) by the same weights |
| frechet | a distance of 2048-dimensional statistics, beside SciPy's sqrtm |
| memory | peak memory of FID, sFID and the Inception score over 50,000 feature vectors |
| evaluation | 10,000 digits in one step measured by the default metrics, beside drawing them alone |
| kills | an evaluation that is killed 20 times, against one that is not |

Without a part, all. What is compared takes turns in one process; processor seconds and their medians count, since other
work may run on the machine. Parts are kept in benchmarks/results/metrics.json, each with command, versions, device and
commit.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peak import peak
from shortcut_models import catalogue
from shortcut_models.evaluate import evaluate, read_report
from shortcut_models.files import write_json
from shortcut_models.metrics.base import Arrays, Features
from shortcut_models.metrics.gaussian import Frechet, Gaussian, covariance, frechet_distance
from shortcut_models.metrics.inception import AdmInceptionScore
from shortcut_models.metrics.measure import Measurement, chunk_size
from shortcut_models.model import Model
from shortcut_models.presets import get_preset
from shortcut_models.provenance import provenance

OUT = Path(__file__).parent / "results" / "metrics.json"
KILLS, DIGITS = 20, 10_000


def turns(calls: dict[str, Callable[[], Any]], rounds: int, warm: bool = True) -> dict[str, Any]:
    """Processor seconds of each call, the calls taking turns, and the median of the ratios to the last.

    What is `warm` is called once before it counts, since it compiles.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + warm):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if turn >= warm:
                seconds[name].append(time.process_time() - began)
    *_, last = calls
    ratios = {name: [a / b for a, b in zip(seconds[name], seconds[last], strict=True)] for name in calls}
    return {
        "processor_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": {name: statistics.median(values) for name, values in ratios.items() if name != last},
        "ratios": {name: sorted(values) for name, values in ratios.items() if name != last},
        "rounds": rounds,
    }


def inception(rounds: int) -> dict[str, Any]:
    """Seconds from 16 images at 256x256, as bytes, to their features; and of our network alone."""
    import torch  # pyrefly: ignore[missing-import]
    from torch_fidelity.feature_extractor_inceptionv3 import (  # pyrefly: ignore[missing-import]
        FeatureExtractorInceptionV3,
    )

    from shortcut_models.metrics.features.inception import Inception

    class Random(FeatureExtractorInceptionV3):
        """Keeps the weights that it is drawn with: what they are costs nothing, and the published ones a download."""

        def load_state_dict(self, *_: Any, **__: Any) -> None:
            pass

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.NamedTemporaryFile() as file:
        torch.save({}, file.name)
        peer = Random("random", ["2048", "logits_unbiased"], feature_extractor_weights_path=file.name)
    network = Inception({name: tensor.numpy() for name, tensor in peer.state_dict().items()}, "random")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 256, 256, 3), dtype=np.uint8)
    floats = rng.uniform(-1, 1, (16, 299, 299, 3)).astype(np.float32)
    given = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def theirs() -> Any:
        with torch.inference_mode():
            return peer(given)

    calls = {
        "ours": lambda: network.features(images, "adm"),
        "ours, the network alone": lambda: jax.block_until_ready(network._run(network._weights, floats)),
        "torch-fidelity": theirs,
    }
    found = turns(calls, rounds)
    pool = theirs()[0].numpy()
    apart = float(np.abs(network.features(images, "adm")["pool"] - pool).max() / np.abs(pool).max())
    return found | {"images": 16, "largest difference of features": apart, "torch": torch.__version__}


def frechet(rounds: int) -> dict[str, Any]:
    """Seconds for one distance between statistics of 4,096 and of 10,000 vectors."""
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    scale = np.arange(1, 2049) ** -0.5
    one, two = (
        Gaussian(x.mean(axis=0), np.cov(x, rowvar=False))
        for x in (rng.standard_normal((count, 2048)) * scale for count in (4096, 10_000))
    )
    values = {}

    def theirs() -> None:
        a, b = covariance(one), covariance(two)
        trace = np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real
        values["scipy"] = float(np.sum((one.mean - two.mean) ** 2) + trace)

    def ours() -> None:
        values["ours"] = frechet_distance(one, two)

    return turns({"ours": ours, "scipy sqrtm": theirs}, rounds, warm=False) | {"values": values}


class Drawn(Features):
    """Random vectors in Inception's place, as many as there are samples."""

    name = "drawn"

    def __call__(self, samples: np.ndarray) -> Arrays:
        rng = np.random.default_rng(int(samples[0, 0]))
        widths = {"pool": 2048, "spatial": 2023, "logits_unbiased": 1008}
        return {name: rng.standard_normal((len(samples), width), np.float32) for name, width in widths.items()}


def memory(_: int) -> dict[str, Any]:
    """MiB that measuring 50,000 vectors takes above what there was before, in a process of its own."""
    run = subprocess.run([sys.executable, "-m", "benchmarks.metrics", "--stream"], capture_output=True, check=True)
    return json.loads(run.stdout)


def stream() -> None:
    """What `memory` starts."""
    drawn = Drawn()
    arrays = {"fid": "pool", "sfid": "spatial"}
    metrics = [Frechet(name=name, features=drawn, array=array) for name, array in arrays.items()]
    measurement = Measurement([*metrics, AdmInceptionScore(name="is", features=drawn)])
    np.linalg.eigh(np.eye(64))  # The libraries' own buffers are no part of it.
    before = peak()
    size = chunk_size((256, 256, 3))
    for start in range(0, 50_000, size):
        measurement.add(
            np.full((min(size, 50_000 - start), 1), start % 251, np.uint8), np.zeros(min(size, 50_000 - start))
        )
    print(json.dumps({"vectors": measurement.count, "chunk": size, "MiB": (peak() - before) / 1024}))


def demo_model() -> Model:
    """The demo's network, untrained: what it draws costs the same."""
    config = get_preset("digits")
    params = config.model.init(jax.random.key(0))
    return Model(config.model.exact(), params, config.objective, config.data, step=0, weights="ema")


def evaluation(rounds: int) -> dict[str, Any]:
    """Seconds for 10,000 digits in one step, drawn and measured, and drawn alone."""
    model = demo_model()
    labels, size = np.arange(DIGITS) % 10, chunk_size(model.data.shape)

    def draw() -> None:
        for first in range(0, DIGITS, size):
            model.decode(model.sample(labels[first : first + size], 1, 1.0, 0, first=first))

    measure = lambda: evaluate(model, model.data, [1], DIGITS)  # noqa: E731
    found = turns({"measured": measure, "drawn": draw}, rounds)
    return found | {"digits": DIGITS, "metrics": list(model.data.metrics)}


def kills(_: int) -> dict[str, Any]:
    """Whether an evaluation that is killed 20 times at random ends with the same numbers, to the last bit."""
    count = "30000"
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "run")
        train = ["train", "points", "--run-dir", str(run), "--max-steps", "20"]
        subprocess.run([sys.executable, "-m", "shortcut_models", *train], check=True, capture_output=True)
        # Saved twice a second, or what a kill leaves would rarely be more than nothing.
        program = "import sys; from shortcut_models.metrics import saved; saved.SECONDS = .5\n"
        program += "from shortcut_models import cli; sys.exit(cli.main(sys.argv[1:]))"
        words = ["evaluate", str(run), "--steps", "1,4,128", "--count", count, "--metrics", "sliced-wasserstein"]
        command = [sys.executable, "-c", program, *words, "--out"]
        began = time.monotonic()
        subprocess.run([*command, str(Path(place, "calm.json"))], check=True, capture_output=True)
        whole, done, rng = time.monotonic() - began, 0, random.Random(0)
        while done < KILLS:
            process = subprocess.Popen([*command, str(Path(place, "killed.json"))], stderr=subprocess.DEVNULL)
            try:
                process.wait(rng.uniform(0, whole))
                Path(place, "killed.json").unlink()  # It was quicker: once more from the start.
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
        subprocess.run([*command, str(Path(place, "killed.json"))], check=True, capture_output=True)
        calm, killed = (read_report(Path(place, f"{name}.json")) or {} for name in ("calm", "killed"))
    return {"kills": done, "same": calm["steps"] == killed["steps"], "steps": killed["steps"]}


PARTS = {"inception": inception, "frechet": frechet, "memory": memory, "evaluation": evaluation, "kills": kills}


def main() -> None:
    """Measure the parts that are asked for, and keep them with the others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stream:
        return stream()
    for name in given.parts or PARTS:
        catalogue.check("part", {part: catalogue.Entry("", "") for part in PARTS}, name)
        found = PARTS[name](given.rounds)
        command = f"python -m benchmarks.metrics {name} --rounds {given.rounds}"
        known = read_report(OUT) or {}
        write_json(OUT, known | {name: found | provenance(command)})
        print(name, json.dumps({key: value for key, value in found.items() if key != "ratios"}, indent=2), flush=True)
    return None


if __name__ == "__main__":
    main()
