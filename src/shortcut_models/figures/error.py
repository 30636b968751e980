"""Errors of the network against time: of the velocity, and of jumps of every length.

The velocity (d=0) is compared with x1 - x0, as in training; what is left of that error when all is learnt is the
spread of the data that pass through a point. A jump is compared with the flow itself, followed from the same point
in many steps along the network's own velocity, so that nothing is left of its error when it is learnt. Both are mean
squared errors of a velocity: that of a jump is the one of its end, divided by the square of its length.

Every t is one at which the method takes such a jump when it samples, and no jump goes beyond t=1 (the official code's
figure has both, in most of its cells).
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from shortcut_models.figures.base import Figure, Given, Labels
from shortcut_models.networks import Network, Params
from shortcut_models.objectives.path import broadcast, interpolate, squared_error
from shortcut_models.sampling import Jumps
from shortcut_models.views.canvas import COLOURS, MARKERS, new_figure, ramp, save, write_foot

CHUNK = 256
"""Examples that go through the network at once, whatever is asked for: one program is compiled."""

Times = Float[np.ndarray, " times"]
Rows = Int[np.ndarray, " rows"]


@dataclass(frozen=True, kw_only=True)
class Error(Figure):
    """Mean squared errors against t, on held-out examples and for the velocity on training examples too."""

    examples: int = 256
    """Examples that the velocity's error is a mean over, at each t."""
    jumped: int = 32
    """The same for jumps, which are dearer: each is compared with a flow."""
    times: int = 32
    """The most values of t in a line."""
    flow_steps: int = 128
    """Steps in which the flow goes from t=0 to 1."""
    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Numbers of steps whose jumps are shown."""

    def draw(self, given: Given, path: Path) -> None:
        has_flow = given.model.objective.learns_velocity
        figure = new_figure(10 if has_flow else 5.4, 4.2)
        panels = figure.subplots(1, 1 + has_flow, squeeze=False)[0]
        splits = dict.fromkeys((given.split, given.model.data.splits[0]))
        for split, colour, marker in zip(splits, COLOURS, MARKERS, strict=False):
            t, error, doubt = self.data_error(given, split)
            held_out = given.model.data.held_out
            about = "none is held out" if held_out is None else "never trained on" if split == held_out else ""
            name = f"{split} split" + f" ({about})" * bool(about)
            panels[0].fill_between(t, error - 2 * doubt, error + 2 * doubt, color=colour, alpha=0.2, linewidth=0)
            panels[0].plot(t, error, color=colour, marker=marker, markersize=4, label=name)
        what = "velocity, d = 0" if has_flow else "one jump to t = 1"
        panels[0].set(title=f"{what}, against the data", ylabel="mean squared error of the velocity")
        panels[0].legend(fontsize=8)
        if has_flow:
            self._draw_jumps(given, panels[1])
        for panel in panels:
            panel.set(xlabel="t (0: noise, 1: data)", xlim=(-0.03, 1.03))
            panel.grid(alpha=0.25)
        write_foot(figure, f"band: two standard errors of the mean; {given.settings}")
        save(figure, path)

    def _draw_jumps(self, given: Given, panel: Any) -> None:
        positive = False
        for n, colour, marker in zip(self.budgets, ramp(len(self.budgets)), MARKERS, strict=False):
            t, error = self.jump_error(given, n)
            positive = positive or bool((error > 0).any())
            panel.plot(t, error, color=colour, marker=marker, markersize=4, label=f"d = {Fraction(1, n)}")
        panel.set(title=f"jumps of length d, against the flow ({given.split} split)")
        if positive:  # An untrained network's jumps, all of them nothing, are its flow.
            panel.set_yscale("log")
        panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

    def data_error(self, given: Given, split: str) -> tuple[Times, Times, Times]:
        """Times, the error there against x1 - x0, and its standard error.

        It is the error of the velocity, or that of jumps to t=1 if the method learns none.
        """
        jumps = self._answers(given)
        x0, x1, label = _pairs(given, split, self.examples)

        def error(time: Rows, example: Rows) -> Array:
            t = jumps.t[time]
            x_t, v = _on_path(given, x0[example], x1[example], t)
            return squared_error(given.model.velocity(x_t, t, jumps.d[time], label[example]), v)

        errors = _by_time(error, len(jumps.t), len(x1))
        return jumps.t, errors.mean(axis=1), errors.std(axis=1) / np.sqrt(len(x1))

    def jump_error(self, given: Given, budget: int) -> tuple[Times, Times]:
        """Times, and the error there of the jumps that sampling in `budget` steps takes, against the flow."""
        jumps = _thin(given.model.objective.jumps(budget), self.times)
        x0, x1, label = _pairs(given, given.split, self.jumped)
        steps = np.int32(max(1, round(float(jumps.length.max()) * self.flow_steps)))
        network, params = given.model.network, given.model.params

        def error(time: Rows, example: Rows) -> Array:
            t, length = jumps.t[time], jnp.asarray(jumps.length[time])
            x_t, _ = _on_path(given, x0[example], x1[example], t)
            end = _follow(network, params, x_t, t, length, label[example], steps)
            answer = given.model.velocity(x_t, t, jumps.d[time], label[example])
            return squared_error(answer, (end - x_t) / broadcast(length, x_t))

        return jumps.t, _by_time(error, len(jumps.t), len(x1)).mean(axis=1)

    def _answers(self, given: Given) -> Jumps:
        """Where to ask the network about the data, and with which d."""
        objective = given.model.objective
        if objective.learns_velocity:
            t = (np.arange(self.times) / self.times).astype(np.float32)
            return Jumps(t, 1 - t, 0 * t, np.ones_like(t))
        found = {}
        for n in (*self.budgets, 2 * self.budgets[-1]):
            for jump in zip(*_thin(objective.jumps(n), self.times), strict=True):
                if abs(jump[0] + jump[1] - 1) < 1e-6:
                    found[float(jump[0])] = jump
        return Jumps(*(np.array(part, np.float32) for part in zip(*sorted(found.values()), strict=True)))


def _thin(jumps: Jumps, most: int) -> Jumps:
    """At most so many jumps, evenly chosen, the last among them."""
    count = len(jumps.t)
    every = -(-count // most)
    chosen = np.arange((count - 1) % every, count, every)
    return Jumps(*(part[chosen] for part in jumps))


def _pairs(given: Given, split: str, count: int) -> tuple[np.ndarray, np.ndarray, Labels]:
    """Noise, examples of a split, and their labels."""
    x1, label = given.examples(split, given.indices(split, count))
    return given.noise(len(x1)), x1, label


def _on_path(given: Given, x0: np.ndarray, x1: np.ndarray, t: Times) -> tuple[Array, Array]:
    """x_t and its velocity."""
    return interpolate(jnp.asarray(x0), jnp.asarray(x1), jnp.asarray(t), given.model.objective.noise_floor)


def _by_time(
    error: Callable[[Rows, Rows], Array], times: int, examples: int
) -> Float[np.ndarray, "{times} {examples}"]:
    """The error of every example at every time, CHUNK of them at once; the last chunk is filled up."""
    total, parts = times * examples, []
    for start in range(0, total, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), total - 1)
        parts.append(np.asarray(error(*np.divmod(rows, examples)), np.float64)[: total - start])
    return np.concatenate(parts).reshape(times, examples)


@partial(jax.jit, static_argnums=0)
def _follow(
    network: Network,
    params: Params,
    x: Float[Array, "batch ..."],
    t: Float[Array, " batch"],
    length: Float[Array, " batch"],
    label: Int[Array, " batch"],
    steps: Int[Array, ""],
) -> Float[Array, "batch ..."]:
    """The flow from x at t over `length`, by Euler's method along the velocity."""
    dt = length / steps.astype(jnp.float32)

    def step(index: Array, x: Array) -> Array:
        return x + broadcast(dt, x) * network.apply(params, x, t + index.astype(jnp.float32) * dt, 0 * t, label)

    return lax.fori_loop(0, steps, step, x)


FIGURE = Error(
    needs_data=True,
    needs_decoding=False,
    how="Left: the error of the velocity at each time, which no network brings to zero (the band is two standard "
    "errors of the mean); a training split well below the held-out one means that its examples are learnt by heart. "
    "Right: the squared distance between where one jump of length d ends and where the network's own flow goes, over d "
    "squared. Learnt jumps have low curves; a long jump that is not learnt (d = 1 is a single point, at t = 0) shows "
    "as blur in few steps.",
)
