"""`shortcut sample RUN`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.model import Model


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run, images or points, in any number of steps.

    A model folder, or a model's owner/name on the hub, may stand for the run.
    """

    run: Path
    """Run folder that `shortcut train` wrote."""
    steps: int = 4
    """Network calls per sample, any whole number from 1 up; more is better and slower."""
    count: int = 16
    """Number of samples."""
    labels: str = ""
    """balanced goes through the classes in turn, random draws them, data mixes them in the proportions of the data
    trained on, none asks for no class; or the classes to go through, by number, such as 0,1,2, or by name. By default
    balanced, or none for a run that was trained without labels."""
    guidance: float = 1.0
    """Push towards the label: 1 is none, 1.5 to 4 is usual; doubles the cost."""
    seed: int = 0
    """Sample i depends on the seed and i alone, so other settings can be compared on it."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    out: Path | None = None
    """FILE.png for one picture with all; FILE.npz for arrays, of images (uint8) or points (float32), and labels;
    or for images a folder to fill with PNGs. Must not exist. By default a PNG in the run folder."""
    arrays: Literal["", "adm"] = ""
    """Arrays of an .npz as the evaluators of ADM and its kind take them (adm): arr_0, the images, and arr_1, their
    labels, written as they are drawn, however many; killed, the same command goes on."""

    def default_name(self) -> str:
        """Of the picture in the run folder, with whatever was asked for and is not the default."""
        words = {name: getattr(self, name) for name in ("count", "labels", "guidance", "weights")}
        other = {name: str(word) for name, word in words.items() if word != getattr(Sample, name)}
        # Names of classes may be long, or hold a slash.
        rest = "".join(f"-{name}-{word[:40].replace('/', '-')}" for name, word in other.items())
        return f"sample-{self.steps}-step{'s' * (self.steps > 1)}-seed-{self.seed}{rest}.png"


def run(words: list[str], model: "Model | None" = None) -> int:
    """Draw, and write where it was asked for; `model` is the one that the words name, if it is loaded already."""
    if parsing.wants_help(words):
        print(parsing.usage(Sample, "sample"))
        return 0
    given = parsing.parse(Sample, "sample", words)
    parsing.check_counts(given.steps, given.count)
    if given.arrays and (given.out is None or given.out.suffix != ".npz"):
        raise InputError(f"--arrays {given.arrays} writes an .npz: say which, --out FILE.npz.")

    from shortcut_models import outputs, startup
    from shortcut_models.data.proportions import class_counts
    from shortcut_models.sample_arrays import write_arrays
    from shortcut_models.views import get_view
    from shortcut_models.weights import folder_of, load, read_shown

    if given.arrays:
        startup.start_processes()
    data = model.data if model else read_shown(given.run)
    view = get_view(data.view)
    out = given.out or folder_of(given.run) / given.default_name()
    view.check_out(out)
    model = model or load(given.run, given.weights)
    outputs.say_if_untrained(model.objective, given.guidance, [given.steps])
    wish = given.labels or outputs.default_labels(model.unconditional)
    counts = class_counts(data) if wish == "data" else None
    names = lambda: model.class_names  # noqa: E731
    labels = outputs.choose_labels(wish, given.count, model.num_classes, given.seed, counts, names)
    if given.arrays:
        write_arrays(out, model, labels, given.steps, given.guidance, given.seed)
        print(f"{given.count} images in {given.steps} step{'s' * (given.steps > 1)}: {out}")
        return 0
    drawn = model.sample(labels, given.steps, given.guidance, given.seed, progress=given.count > 256)
    view.write(out, view.to_samples(model.decode(drawn)), labels)
    noun = view.NOUN if given.count > 1 else view.NOUN.removesuffix("s")
    print(f"{given.count} {noun} in {given.steps} step{'s' * (given.steps > 1)}: {out}")
    return 0
