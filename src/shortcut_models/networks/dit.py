"""Diffusion transformer (DiT) with a step-size input, in plain JAX.

Peebles & Xie, "Scalable Diffusion Models with Transformers" (arXiv 2212.09748): patches as tokens,
adaptive layer norm (adaLN) from the conditioning vector. Frans et al., "One Step Diffusion via
Shortcut Models" (arXiv 2410.12557) add an embedding of the step size d to that vector.

Every block has the same shapes, so the blocks' parameters are stacked along a leading depth axis
and run under `lax.scan`: one trace whatever the depth, and few leaves to shard, average and save.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from shortcut_models.errors import InputError, check_above_zero, check_at_least, check_values
from shortcut_models.networks.base import Network, Params
from shortcut_models.networks.layers import (
    FINEST_LEVEL,
    dense,
    gelu,
    init_dense,
    init_time_embedding,
    rows_of,
    sinusoid,
    spread,
    step_level,
    time_embedding,
    whole,
    without_input,
    xavier_uniform,
)

Tokens = Float[Array, "batch tokens width"]


def _kept(operation: Any, *operands: Any, **settings: Any) -> Any:
    """Whether the backward pass of a scanned block finds the result of an operation, or computes it again.

    Kept are products with weights, and cuDNN's attention, which is no larger than its operands. Norms,
    GELU and XLA's attention are cheap to compute again, and were two thirds of what a scan would keep.
    """
    product = jax.checkpoint_policies.dots_with_no_batch_dims_saveable(operation, *operands, **settings)
    return product or operation.name == "dot_product_attention_fwd_wrapper"


@dataclass(frozen=True)
class DiT(Network):
    """The constants of a DiT, and the pure pair `init` and `apply` that they define.

    The defaults are this package's; `DiT.original(...)` gives the network of the official code.
    """

    computing: ClassVar[frozenset[str]] = frozenset({"attention", "dtype", "scan", "remat"})
    stacked: ClassVar[tuple[str, ...]] = ("blocks",)

    image_size: int = 32
    """Height and width of the (square) input, in pixels or latent pixels."""
    channels: int = 4
    """Channels of the input, and of the velocity that comes back."""
    num_classes: int = 1000
    """Number of labels; label `num_classes` is the null label of guidance."""
    patch_size: int = 2
    """Side of the square patches that become tokens; must divide image_size."""
    hidden_size: int = 768
    """Width of a token; a multiple of 4 (position table) and of num_heads."""
    depth: int = 12
    """Number of transformer blocks."""
    num_heads: int = 12
    """Attention heads in each block."""
    mlp_ratio: float = 4.0
    """Width of a block's hidden layer, in hidden_sizes."""
    step_conditioning: Literal["log2", "smooth"] = "smooth"
    """What of the step size d is embedded: the level log2(1/d), 7 for d <= 1/128; or d itself."""
    time_scale: float = 10.0
    """Factor on t (and on d when smooth) before the sinusoids; 1 in the original."""
    qk_norm: bool = True
    """Scale every query and key to unit root mean square, which keeps attention stable."""
    attention_scale: Literal["root", "width"] = "root"
    """Divide logits by the root of the head width, or, as the original does, by the width."""
    position_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the position table is rounded to: imported weights that were saved in half precision have theirs so."""
    attention: Literal["xla", "cudnn"] = "xla"
    """What computes attention. cuDNN's, on an NVIDIA GPU, never stores the logits, but needs bfloat16 and
    has no forward-mode derivative; other devices have no cuDNN, and compute the same by XLA."""
    zero_gates: bool = True
    """Start every block as the identity (adaLN-zero); the original draws these weights, but for the last layer's."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; parameters, normalisation and softmax are float32 in any case."""
    scan: bool = True
    """Run the blocks as one scanned body; off unrolls them over the same parameters."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory for about a third more time."""

    def __post_init__(self) -> None:
        check_values("model.", self)
        check_above_zero("model.", self, "time_scale")
        sizes = ("image_size", "channels", "num_classes", "patch_size", "hidden_size", "depth", "num_heads")
        check_at_least("model.", self, dict.fromkeys(sizes, 1))
        if self.image_size % self.patch_size:
            raise InputError(
                f"model.patch_size {self.patch_size} does not divide the image size {self.image_size}: "
                f"choose a divisor of {self.image_size}."
            )
        if self.hidden_size % 4 or self.hidden_size % self.num_heads:
            raise InputError(
                f"model.hidden_size {self.hidden_size} must be a multiple of 4 and of "
                f"model.num_heads ({self.num_heads})."
            )
        head_width = self.hidden_size // self.num_heads
        if self.attention == "cudnn" and (self.dtype != "bfloat16" or head_width % 8 or head_width > 128):
            raise InputError(
                f"model.attention cudnn needs bfloat16 and heads of a multiple of 8 up to 128, but model.dtype is "
                f"{self.dtype} and a head has {head_width}: change those, or set --model.attention xla."
            )
        if self.mlp_ratio * self.hidden_size < 1:
            raise InputError(f"model.mlp_ratio is {self.mlp_ratio}, which leaves no hidden unit: use a larger one.")

    @classmethod
    def original(cls, **sizes: int | float) -> "DiT":
        """The network of the official code (kvfrans/shortcut-models, `model.py`), to the last constant."""
        return cls(
            **sizes,  # pyrefly: ignore[bad-argument-type]
            step_conditioning="log2",
            time_scale=1.0,
            qk_norm=False,
            attention_scale="width",
            zero_gates=False,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input: (height, width, channels)."""
        return (self.image_size, self.image_size, self.channels)

    @property
    def levels(self) -> int | None:
        """128 if levels are embedded, for d <= 1/128 is the last; any number if d itself is."""
        return 2**FINEST_LEVEL if self.step_conditioning == "log2" else None

    @property
    def has_jvp(self) -> bool:
        """All but cuDNN's attention has one."""
        return self.attention != "cudnn"

    def exact(self) -> Self:
        """The same network in float32, which cuDNN's attention does not take."""
        return replace(self, dtype="float32", attention="xla")

    def sized(self, shape: tuple[int, ...], num_classes: int) -> Self:
        """For square images or latents of this shape; raises InputError for others."""
        if len(shape) != 3 or shape[0] != shape[1]:
            raise InputError(
                f"these data have items of shape {shape}, but model dit takes square images (side, side, channels): "
                "choose another --model, or prepare the data with `shortcut prepare`."
            )
        return replace(self, image_size=shape[0], channels=shape[2], num_classes=num_classes)

    def init(self, key: Array) -> Params:
        """Draw float32 parameters: Xavier-uniform matrices, zero biases, a zero last layer.

        Returns a nested dict; everything under "blocks" has a leading axis of length `depth`.
        """
        width, patch = self.hidden_size, self.patch_size**2 * self.channels
        keys = jax.random.split(key, 7)
        blocks = jax.vmap(self._init_block)(jax.random.split(keys[0], self.depth))
        table = 0.02 * jax.random.normal(keys[4], (self.num_classes + 1, width))
        return {
            "patch": init_dense(keys[1], patch, width),
            "time": init_time_embedding(keys[2], width),
            "step": init_time_embedding(keys[3], width),
            "label": {"table": table},
            "blocks": blocks,
            "final": {
                "modulation": self._zeros(keys[5], width, 2 * width),
                "linear": self._zeros(keys[6], width, patch),
            },
        }

    def apply(
        self,
        params: Params,
        x: Float[Array, "batch height width channels"],
        t: Float[Array, " batch"],
        d: Float[Array, " batch"],
        label: Int[Array, " batch"],
    ) -> Float[Array, "batch height width channels"]:
        """Velocity whose jump `x + d * velocity` lands where the flow would be after time d.

        t and d lie in [0, 1], t=0 is noise, d=0 asks for the instantaneous velocity. `label` lies
        in [0, num_classes]; `num_classes` is the null label. The result is float32.
        """
        dtype = jnp.dtype(self.dtype)
        params = {name: part if name == "blocks" else whole(part) for name, part in params.items()}
        condition = self._condition(params, t, d, label)
        tokens = dense(params["patch"], self._patchify(x).astype(dtype))
        tokens = tokens + jnp.asarray(self._positions(), dtype)

        blocks = params["blocks"]
        if spread():
            # Cast where they lie, before the scan: cast within it, they are gathered in float32.
            blocks = jax.tree.map(lambda leaf: leaf.astype(dtype), blocks)

        def block(tokens: Tokens, weights: Params) -> tuple[Tokens, None]:
            return self._block(whole(weights), tokens, condition), None

        if self.remat or self.scan or spread():
            # Only a scan keeps what it recomputes apart by itself; elsewhere XLA would merge it with the first time.
            block = jax.checkpoint(block, policy=None if self.remat else _kept, prevent_cse=not self.scan)
        if self.scan:
            tokens, _ = lax.scan(block, tokens, blocks)
        else:
            for weights in blocks if isinstance(blocks, tuple) else _unstack(blocks, self.depth):
                tokens, _ = block(tokens, weights)

        shift, scale = jnp.split(dense(params["final"]["modulation"], condition), 2, axis=-1)
        tokens = _modulate(_normalise(tokens), shift, scale)
        return self._unpatchify(dense(params["final"]["linear"], tokens).astype(jnp.float32))

    def prepare(self, params: Params) -> Params:
        """The parameters as `apply` reads them fastest, many times over: unrolled blocks as a tuple, not stacked.

        Else every call copies each block's weights out of the stack, a third of drawing one image on a CPU.
        """
        if self.scan or isinstance(params["blocks"], tuple):
            return params
        return {**params, "blocks": tuple(jax.jit(lambda blocks: _unstack(blocks, self.depth))(params["blocks"]))}

    def without_step(self, params: Params, d: float = 0.0) -> Params:
        """See `Network`: the embedding of `d` becomes a bias."""
        step = sinusoid(self._step_input(jnp.full(1, d, jnp.float32)))
        return {**params, "step": without_input(params["step"], step)}

    def with_classes(self, params: Params, labels: Sequence[int]) -> Params:
        """See `Network`: rows of the label table, (num_classes + 1, width)."""
        return {**params, "label": {"table": rows_of(params["label"]["table"], labels)}}

    @staticmethod
    def _zeros(key: Array, fan_in: int, fan_out: int) -> Params:
        del key  # Same signature as init_dense, but nothing is drawn.
        return {"kernel": jnp.zeros((fan_in, fan_out)), "bias": jnp.zeros(fan_out)}

    def _init_block(self, key: Array) -> Params:
        width, hidden = self.hidden_size, int(self.hidden_size * self.mlp_ratio)
        keys = jax.random.split(key, 7)
        # Queries, keys and values share a matrix for speed but are drawn as the three that they are.
        qkv = jnp.concatenate([xavier_uniform(k, width, width) for k in keys[:3]], axis=1)
        return {
            "modulation": (self._zeros if self.zero_gates else init_dense)(keys[3], width, 6 * width),
            "qkv": {"kernel": qkv, "bias": jnp.zeros(3 * width)},
            "out": init_dense(keys[4], width, width),
            "mlp_in": init_dense(keys[5], width, hidden),
            "mlp_out": init_dense(keys[6], hidden, width),
        }

    def _condition(
        self, params: Params, t: Float[Array, " batch"], d: Float[Array, " batch"], label: Int[Array, " batch"]
    ) -> Float[Array, "batch width"]:
        condition = (
            time_embedding(params["time"], sinusoid(self.time_scale * t))
            + time_embedding(params["step"], sinusoid(self._step_input(d)))
            + jnp.asarray(params["label"]["table"])[label]
        )
        return jax.nn.silu(condition).astype(self.dtype)

    def _step_input(self, d: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """What of the step size is embedded."""
        return step_level(d) if self.step_conditioning == "log2" else self.time_scale * d

    def _block(self, p: Params, tokens: Tokens, condition: Float[Array, "batch width"]) -> Tokens:
        modulation = jnp.split(dense(p["modulation"], condition), 6, axis=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        tokens = tokens + gate_a[:, None] * self._attention(p, _modulate(_normalise(tokens), shift_a, scale_a))
        hidden = dense(p["mlp_in"], _modulate(_normalise(tokens), shift_m, scale_m))
        return tokens + gate_m[:, None] * dense(p["mlp_out"], gelu(hidden))

    def _attention(self, p: Params, tokens: Tokens) -> Tokens:
        batch, count, width = tokens.shape
        head_width = width // self.num_heads
        qkv = dense(p["qkv"], tokens).reshape(batch, count, 3, self.num_heads, head_width)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.qk_norm:
            query, key = _unit_rms(query), _unit_rms(key)
        # The scale is explicit: JAX's default, 1/sqrt(width), is not what the official weights need.
        scale = 1 / head_width if self.attention_scale == "width" else head_width**-0.5
        # The weights of a network trained on a GPU are good everywhere, so what is asked for is what the device has.
        which = "cudnn" if self.attention == "cudnn" and jax.default_backend() == "gpu" else "xla"
        with jax.named_scope("attention"):  # For whoever reads a profile.
            mixed = jax.nn.dot_product_attention(query, key, value, scale=scale, implementation=which)
        return dense(p["out"], mixed.reshape(batch, count, width))

    def _patchify(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch tokens patch"]:
        batch, side, patch = x.shape[0], self.image_size // self.patch_size, self.patch_size
        x = x.reshape(batch, side, patch, side, patch, self.channels).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, side * side, patch * patch * self.channels)

    def _unpatchify(self, x: Float[Array, "batch tokens patch"]) -> Float[Array, "batch height width channels"]:
        batch, side, patch = x.shape[0], self.image_size // self.patch_size, self.patch_size
        x = x.reshape(batch, side, side, patch, patch, self.channels).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, self.image_size, self.image_size, self.channels)

    def _positions(self) -> np.ndarray:
        """Fixed 2-D sin-cos table, (tokens, width): first half for the column, second for the row."""
        side, quarter = self.image_size // self.patch_size, self.hidden_size // 4
        angles = np.arange(side)[:, None] / 10000 ** (np.arange(quarter) / quarter)
        line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        column, row = np.tile(line, (side, 1)), np.repeat(line, side, axis=0)
        table = np.concatenate([column, row], axis=1)
        if self.position_dtype == "float32":
            return table
        return table.astype(np.float32).astype(jnp.dtype(self.position_dtype)).astype(np.float64)


def _unstack(blocks: Params, depth: int) -> list[Params]:
    """The parameters of each block."""
    # Split, not indexed: the gradient is then one concatenation of the blocks' own, not a sum of
    # `depth` whole stacks that are zero but for one block.
    leaves, tree = jax.tree.flatten(blocks)
    parts = [[part[0] for part in lax.split(leaf, (1,) * depth)] for leaf in leaves]
    return [jax.tree.unflatten(tree, block) for block in zip(*parts, strict=True)]


def _normalise(x: Tokens) -> Tokens:
    """Layer norm without learned scale or bias, epsilon 1e-6, in float32."""
    full = x.astype(jnp.float32)
    centred = full - full.mean(axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return (centred * lax.rsqrt(variance + 1e-6)).astype(x.dtype)


def _unit_rms(x: Float[Array, "batch tokens heads head"]) -> Float[Array, "batch tokens heads head"]:
    full = x.astype(jnp.float32)
    return (full * lax.rsqrt(jnp.mean(full * full, axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)


def _modulate(x: Tokens, shift: Float[Array, "batch width"], scale: Float[Array, "batch width"]) -> Tokens:
    return x * (1 + scale[:, None]) + shift[:, None]
