"""A model's sampler as an ONNX graph: from noise and label to samples, with one copy of the weights."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import export
from jaxtyping import Array, Float, Int

from shortcut_models import sampling
from shortcut_models.codecs.base import Codec
from shortcut_models.interop.onnx_graph import Graph, Port, Tensor, assemble, constant
from shortcut_models.interop.onnx_lowering import lower
from shortcut_models.interop.onnx_rules import cast
from shortcut_models.model import Model
from shortcut_models.networks import Params
from shortcut_models.sampling import Jumps

BATCH = "n"
"""What the batch is called in the shapes of inputs and outputs."""
FLOAT, WHOLE, TRUTH = np.dtype(np.float32), np.dtype(np.int64), np.dtype(bool)


class Sampler(NamedTuple):
    """What is asked for: a model, its jumps, guidance, and the decoder if it belongs in the file."""

    model: Model
    jumps: Jumps
    guidance: float
    codec: Codec | None = None

    @property
    def steps(self) -> int:
        """Network calls for a sample."""
        return len(self.jumps.t)

    @property
    def renoises(self) -> bool:
        """Whether it needs fresh noise on the way."""
        return bool(np.any(self.jumps.renoise < 1))

    def jump(
        self,
        params: Params,
        label: Int[Array, " batch"],
        index: Int[Array, ""],
        x: Float[Array, "batch ..."],
        fresh: Float[Array, "jumps batch ..."] | None,
    ) -> Float[Array, "batch ..."]:
        """Jump number `index`, as `sampling.make_jump` has it, but for the fresh noise, which is given."""
        model, back = self.model, self.jumps.renoise
        if model.unconditional:
            label = jnp.full_like(label, model.null_label)
        velocity = sampling.guided(partial(model.network.apply, params), self.guidance, model.null_label)
        x = sampling.make_jump(velocity, label, self.jumps._replace(renoise=np.ones_like(back)), None)(index, x)
        if fresh is None:
            return x
        kept = jnp.asarray(back)[index]
        drawn = jax.lax.dynamic_index_in_dim(fresh, jnp.minimum(index, len(back) - 2), keepdims=False)
        return jnp.where(kept < 1, kept * x + (1 - kept) * drawn, x)


def build(asked: Sampler) -> tuple[Graph, onnx.GraphProto]:
    """The graph, and all of it but its constants.

    Inputs are `noise` (n, *shape) and `label` (n,), and for samplers that need it `fresh` (steps - 1, n, *shape),
    the output is `image` (n, ...), or `points` (n, d). Raises InputError for an operation that ONNX lacks.
    """
    (batch,) = export.symbolic_shape(BATCH)
    graph = Graph(batch)
    noise = Tensor("noise", (batch, *asked.model.network.shape), FLOAT)
    label = Tensor("label", (batch,), WHOLE)
    fresh = Tensor("fresh", (asked.steps - 1, *noise.shape), FLOAT) if asked.renoises else None
    graph.rows = graph.add("Shape", [noise], start=0, end=1)[0]
    x = _sample(graph, asked, noise, cast(graph, label, np.int32), fresh)
    if asked.codec is not None:
        # One by one, and then all at once: a codec may look at how many there are, which nobody knows yet.
        decode = jax.vmap(lambda codec, x: codec.decode(x[None])[0], in_axes=(None, 0))
        (x,) = lower(graph, decode, (_named(asked.codec, "decoder."), x))
    name = "image" if len(noise.shape) == 4 else "points"
    graph.add("Identity", [x], names=(name,))
    inputs = [_port(x) for x in (noise, label, fresh) if x is not None]
    return graph, assemble(graph, "sampler", inputs, [_port(x._replace(name=name))])


def _sample(graph: Graph, asked: Sampler, noise: Tensor, label: Tensor, fresh: Tensor | None) -> Tensor:
    """The samples: one jump as it is, several as a loop over one."""
    params = _named(asked.model.params)
    if asked.steps == 1:
        (x,) = lower(graph, asked.jump, (params, label, constant(np.int32(0)), noise, fresh))
        return graph.whole(x, noise.shape)
    index, go_on, x = Tensor("index", (), WHOLE), Tensor("go_on", (), TRUTH), noise._replace(name="x")
    body = graph.within()
    (after,) = lower(body, asked.jump, (params, label, cast(body, index, np.int32), x, fresh))
    after = body.whole(after, noise.shape)
    still = body.make("Identity", [go_on], (), TRUTH)
    proto = assemble(body, "jump", [_port(given) for given in (index, go_on, x)], [_port(still), _port(after)])
    start = [constant(np.array(asked.steps, WHOLE)), constant(np.array(True)), noise]
    return graph.make("Loop", start, noise.shape, FLOAT, body=proto)


def _named(tree: Any, before: str = "") -> Any:
    """The leaves of a pytree as constants, named by their paths, such as blocks.qkv.kernel."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [before + jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return jax.tree.unflatten(structure, [constant(leaf, name) for name, (_, leaf) in zip(names, leaves, strict=True)])


def _port(x: Tensor) -> Port:
    return Port(x.name, tuple(int(dim) if isinstance(dim, int | np.integer) else str(dim) for dim in x.shape), x.dtype)


def describe(asked: Sampler, class_names: Sequence[str]) -> dict[str, str]:
    """What the file says of itself, as text by name: its metadata."""
    model = asked.model
    return {
        "steps": str(asked.steps),
        "guidance": f"{asked.guidance:g}",
        "decoded": str(asked.codec is not None).lower(),
        "weights": model.weights,
        "step": str(model.step),
        "num_classes": str(model.num_classes),
        "labels": "none" if model.unconditional else f"0 to {model.num_classes - 1}; {model.num_classes} is no label",
        "class_names": json.dumps(list(class_names)),
    }
