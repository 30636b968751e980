"""Features of the Inception network that FID is defined by, from its published weights.

The weights are not part of the package: `pt_inception-2015-12-05-6726825d.pth`, which the PyTorch ports of FID
download, or the same tensors by the same names as safetensors. They are looked for where they are told to be, in
SHORTCUT_INCEPTION, or in the cache of PyTorch's hub.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models.data.pixels import check_finite_samples
from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Arrays, Features, check_image, to_bytes, to_floats
from shortcut_models.metrics.damaged import refused
from shortcut_models.metrics.features.inception_shapes import SHAPES
from shortcut_models.metrics.features.protocols import Name, Protocol, find_protocol, resize_matrix

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the published pt_inception-2015-12-05 file."""

PUBLISHED = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
"""The names that pytorch-fid and torch-fidelity keep it under."""

BATCH = 16
"""Images that each device sees at once; ten times as many need no less time each on a CPU."""


class Inception:
    """The network with its weights; two are equal if their files are."""

    def __init__(self, weights: dict[str, np.ndarray], sha256: str) -> None:
        import jax

        from shortcut_models import sharding
        from shortcut_models.metrics.features import inception_net

        self.sha256 = sha256
        self._mesh = sharding.make_mesh(jax.local_devices())
        self._weights = jax.device_put(inception_net.fold(weights), sharding.replicated(self._mesh))
        # Apart: sizes and protocols are many, and the network is what takes long to compile.
        self._prepare = jax.jit(partial(_prepare, inception_net.resize), static_argnums=3)
        self._spread = partial(sharding.spread, self._mesh)
        self._run = jax.jit(inception_net.features)

    @classmethod
    def load(cls, file: str | Path, check_hash: bool = True) -> "Inception":
        """Read `.safetensors`, or a file of PyTorch's; without `check_hash`, any file with all the tensors.

        Raises InputError for a file that is not the published one, cannot be read, lacks a tensor, has one of another
        shape, or holds NaN.
        """
        path = Path(file)
        sha256 = _hash(path)
        if check_hash and sha256 != SHA256:
            raise InputError(
                f"{path} is not the published Inception (its SHA-256 begins {sha256[:12]}, not {SHA256[:12]}): its "
                "numbers compare with no others; --any-inception takes it all the same."
            )
        return cls(_checked(path, _read(path)), sha256)

    def features(self, images: Any, protocol: str) -> Arrays:
        """All features of images (n, height, width, 3), uint8 or floats in about [-1, 1], prepared by the protocol.

        {"pool": (n, 2048), "spatial": (n, 2023), "logits": (n, 1008), "logits_unbiased": (n, 1008)}, float32. Floats
        are rounded as on disk where the protocol takes bytes. Raises InputError for images that are not RGB, of another
        type or range, or with NaN.
        """
        chosen = find_protocol(protocol)
        images = _checked_images(images)
        parts = list(self._batches(images, chosen))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inception) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def _batches(self, images: np.ndarray, protocol: Protocol) -> Iterator[Arrays]:
        down, across = (resize_matrix(protocol.resize, size) for size in images.shape[1:3])
        given = to_bytes(images) if protocol.takes == "bytes" else to_floats(images)
        for part, count in self._spread(given, BATCH * self._mesh.size):
            found = self._run(self._weights, self._prepare(part, down, across, protocol))
            yield {name: np.asarray(array)[:count] for name, array in found.items()}


def _checked_images(given: Any) -> np.ndarray:
    try:
        images = np.asarray(given)
    except ValueError:
        raise InputError("images of several sizes are no array: give images of one size, or one at a time.") from None
    if images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise InputError(
            f"images have shape {images.shape}, but Inception takes one or more as (n, height, width, 3): "
            "turn grey or transparent ones into RGB."
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"images have the type {images.dtype}, but must be uint8, or floats in [-1, 1].")
    if images.dtype != np.uint8:
        check_finite_samples(images)
        if images.min() >= 0 and images.max() > 16:  # No decoder is that far off without one pixel below grey.
            raise InputError(
                f"images are floats between {images.min():g} and {images.max():g}, but must lie in about [-1, 1]: "
                "give bytes as uint8."
            )
    return images


def _prepare(resize: Any, images: Any, down: Any, across: Any, protocol: Protocol) -> Any:
    import jax.numpy as jnp

    x = resize(images.astype(jnp.float32), down, across)
    if protocol.clip:
        x = jnp.clip(x, *protocol.clip)
    return (x - 128) / 128 if protocol.scaled else x


@dataclass(frozen=True, kw_only=True)
class InceptionFeatures(Features):
    """Inception's features under a protocol; ready to be computed once there are weights."""

    protocol: Name
    network: Inception | None = None

    @property
    def takes(self) -> str:  # pyrefly: ignore[bad-override]
        return find_protocol(self.protocol).takes

    @property
    def name(self) -> str:
        return f"inception-{self.protocol}"

    @property
    def prepared_by(self) -> str | None:
        return self.protocol

    def check(self, shape: tuple[int, ...]) -> None:
        check_image(self.name, shape)

    def ready(self, weights: Path | None, any_weights: bool) -> "InceptionFeatures":
        return replace(self, network=find_inception(weights, any_weights))

    def __call__(self, samples: np.ndarray) -> Arrays:
        if self.network is None:
            raise InputError(f"{self.name} needs the weights of Inception: give --inception FILE.")
        if samples.shape[-1] == 1:
            samples = np.repeat(samples, 3, axis=-1)  # Grey images, as every program of the field reads them.
        return self.network.features(samples, self.protocol)


_LOADED: dict[tuple[Path, bool], Inception] = {}


def find_inception(file: Path | None = None, any_file: bool = False) -> Inception:
    """The network from `file`, SHORTCUT_INCEPTION or the cache of PyTorch's hub; read once per process.

    Raises InputError if it is nowhere.
    """
    told = file or os.environ.get("SHORTCUT_INCEPTION")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torch"
    hub = Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub" / "checkpoints"
    places = [Path(told)] if told else [hub / name for name in PUBLISHED]
    found = next((place for place in places if told or place.exists()), None)
    if found is None:
        raise InputError(
            f"the weights of Inception are not in {hub}: download {PUBLISHED[0]}, and give its place by --inception "
            "FILE or SHORTCUT_INCEPTION."
        )
    key = found.resolve(), any_file
    if key not in _LOADED:
        _LOADED[key] = Inception.load(found, check_hash=not any_file)
    return _LOADED[key]


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read for Inception's weights: {error.strerror}.") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix != ".safetensors":
        try:
            return import_module("shortcut_models.interop.torch_file").read_state_dict(path)
        except InputError as error:
            raise refused(path, error, f"download {PUBLISHED[0]} again") from None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}): download it again.") from error


def _checked(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that the network has, all there, of its shapes and finite; others are passed over."""
    missing = [name for name in SHAPES if name not in tensors]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path} lacks Inception's tensor {missing[0]}{others}: give the published file.")
    for name, shape in SHAPES.items():
        found = tensors[name].shape
        if found != shape:
            raise InputError(
                f"{path} has {name} of shape {found}, but Inception's is {shape}: give the published file."
            )
        if not np.isfinite(np.asarray(tensors[name], np.float64)).all():
            raise InputError(f"{path} holds NaN or infinite numbers in {name}: it is damaged; download it again.")
        if name.endswith("running_var") and tensors[name].min() < 0:
            raise InputError(f"{path} holds variances below zero in {name}: it is damaged; download it again.")
    return {name: tensors[name] for name in SHAPES}
