"""Examples noised to each level, and one jump back."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from shortcut_models.figures.base import Figure, Given
from shortcut_models.objectives.path import interpolate
from shortcut_models.views.canvas import Row


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Figure):
    """A row per level: examples noised to t, and what one jump to t=1 makes of each; the examples come last."""

    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Numbers of steps whose last jump is taken."""

    def draw(self, given: Given, path: Path) -> None:
        x1, labels = given.examples(given.split, given.indices(given.split, given.shown))
        x0 = given.noise(len(x1))
        data = given.picture(x1)
        rows = []
        for n in self.budgets:
            t, length, d, _ = (float(part[-1]) for part in given.model.objective.jumps(n))
            x_t, end = self.jump(given, x0, x1, labels, t, length, d)
            rows.append(Row(f"t = {_name(t)}", (given.picture(x_t), given.picture(end))))
        titles = ("noised to t", "one jump to t = 1")
        foot = f"{given.split} split, each with its own label; {given.settings}"
        given.view.draw_rows(path, [*rows, Row("data", (data, data))], titles, foot)

    @staticmethod
    def jump(
        given: Given, x0: np.ndarray, x1: np.ndarray, labels: np.ndarray, t: float, length: float, d: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The examples at t, and where one jump from there ends."""
        times = jnp.full(len(x1), t, jnp.float32)
        x_t, _ = interpolate(jnp.asarray(x0), jnp.asarray(x1), times, given.model.objective.noise_floor)
        return np.asarray(x_t), np.asarray(x_t + length * given.model.velocity(x_t, t, d, labels))


def _name(t: float) -> str:
    return str(Fraction(t).limit_denominator(1024))


FIGURE = Reconstruction(
    needs_data=True,
    how="The same examples, noised to time t, and one jump from there to the end. Near the data a jump only cleans up; "
    "at t = 0 the example is gone, and the jump is a sample in one step.",
)
