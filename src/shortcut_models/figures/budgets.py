"""The same noise in few and in many steps."""

from dataclasses import dataclass
from pathlib import Path

from shortcut_models.errors import InputError
from shortcut_models.figures.base import Figure, Given


@dataclass(frozen=True, kw_only=True)
class Budgets(Figure):
    """A row per number of steps: finished samples of the same noise, a class each."""

    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Numbers of steps."""

    def draw(self, given: Given, path: Path) -> None:
        model = given.model
        labels = model.balanced_labels(given.shown)
        samples = {steps: given.samples(labels, steps) for steps in self.budgets}
        names = None if model.unconditional else given.class_names(labels)
        try:
            examples = given.view.examples(model.data)
        except InputError:  # They would stand beside the samples, which are worth showing without.
            examples = None
        given.view.draw_budgets(path, samples, names, examples, given.settings)


FIGURE = Budgets(
    how="The same noise, finished in different numbers of steps. With an exact flow map all would be alike; blur in "
    "few steps means that long jumps are not learnt yet.",
)
