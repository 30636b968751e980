"""Draw emoji of a run in 1, 4 and 128 steps, by class, each beside the training picture that is nearest to it.

    python examples/emoji_picture.py runs/emoji emoji.png

The samples are guided. Nearest is said of the sample in the most steps: the least mean squared difference of pixels.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from shortcut_models.weights import load

STEPS = (1, 4, 128)
GUIDANCE = 1.5
EACH = 4  # Samples of each class.


def draw(samples: dict[str, np.ndarray], names: tuple[str, ...], path: Path) -> None:
    """A row for each class; `samples` by the heading of their columns, uint8 (classes, EACH, height, width, 3)."""
    columns = [(heading, number) for number in range(EACH) for heading in samples]
    figure = Figure(figsize=(0.45 * len(columns) + 1.6, 0.45 * len(names) + 0.4), dpi=150, layout="constrained")
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for row, name in enumerate(names):
        for cell, (heading, number) in zip(axes[row], columns, strict=True):
            cell.imshow(samples[heading][row, number])
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(heading, fontsize=8)
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.savefig(path)


def nearest(samples: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """For each sample the picture with the least mean squared difference."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    chosen = [np.argmin(((flat - sample.reshape(-1).astype(np.float32)) ** 2).sum(axis=1)) for sample in samples]
    return pictures[chosen]


def main() -> None:
    """As the words of the command line say."""
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/emoji_picture.py RUN PICTURE.png")
    model = load(sys.argv[1])
    source, names = model.data.open(), model.data.class_names
    pictures = np.stack([source[index]["image"] for index in range(len(source))])
    labels = np.repeat(np.arange(len(names)), EACH)
    drawn = {}
    for steps in tqdm(STEPS, unit="budget"):
        decoded = np.asarray(model.decode(model.sample(labels, steps, GUIDANCE)))
        drawn[str(steps)] = np.clip(np.round((decoded + 1) * 127.5), 0, 255).astype(np.uint8)
    drawn["nearest"] = nearest(drawn[str(STEPS[-1])], pictures)
    rows = {heading: images.reshape(len(names), EACH, *images.shape[1:]) for heading, images in drawn.items()}
    draw(rows, names, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
