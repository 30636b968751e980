"""Exported samplers: onnxruntime answers as the model does, whatever the network, budget, batch and guidance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from shortcut_models import InputError, cli, load
from shortcut_models.data.digits import Digits
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.interop import onnx_file
from shortcut_models.interop.epsilon_dit import EpsilonDiT
from shortcut_models.interop.onnx_file import export_onnx
from shortcut_models.interop.samplers import Ddim, FewStep
from shortcut_models.model import Model
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.shortcut import Shortcut
from tests.codecs import vaes

SIZES: dict[str, Any] = {
    "image_size": 8,
    "channels": 1,
    "num_classes": 10,
    "patch_size": 4,
    "hidden_size": 16,
    "depth": 2,
    "num_heads": 2,
}
DATA = Unavailable(x_shape=(8, 8, 1), classes=10)


def model_of(network: Any = DiT(**SIZES), objective: Any = Shortcut(), data: Any = DATA) -> Model:  # noqa: B008
    """A network whose every weight counts: drawn ones are zero in places."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: (rng.standard_normal(leaf.shape) * 0.2).astype(np.float32), shapes)
    return Model(network, params, objective, data, step=0, weights="ema", devices=jax.local_devices()[:1])


def draw(path: Path, **feed: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def noise_of(model: Model, count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, *model.network.shape)).astype(np.float32)


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()), rtol=0)
