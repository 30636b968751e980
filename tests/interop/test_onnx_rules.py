"""Each rule of the translation to ONNX: onnxruntime computes what JAX does, for any batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export, lax

from shortcut_models.interop.onnx_graph import Graph, Tensor, assemble, write
from shortcut_models.interop.onnx_lowering import lower
from shortcut_models.interop.onnx_sampler import _port
from shortcut_models.networks.layers import gelu

W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 5, 4, 6)).astype(np.float32))
KERNEL = jnp.asarray(np.random.default_rng(2).standard_normal((3, 2, 6, 4)).astype(np.float32))

# Of x, float32 (n, 4, 6).
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "powers": lambda x: (x**3, x * x, jnp.square(x), lax.rsqrt(1 + x * x), jnp.log2(1 + jnp.abs(x))),
    "rounding": lambda x: (jnp.round(4 * x), jnp.floor(x), jnp.ceil(x), jnp.sign(x)),
    "bounds": lambda x: jnp.clip(x, -0.5, 0.25),
    "whole numbers": lambda x: (x.astype(jnp.int32) * 7 - 3) // 2,
    "choice": lambda x: jnp.where((x > 0) & ~(x == 1) | (x != x), x, -2 * x),
    "sums": lambda x: (x.sum(1), x.max((1, 2)), x.min(2, keepdims=True)),
    "sum over what is broadcast": lambda x: jnp.broadcast_to(x[:, :1], x.shape).sum(1),
    "batch of ones": lambda x: jnp.concatenate([jnp.full(x.shape[:1], 3.0)[:, None], x[:, :, 0]], axis=1),
    "cuts": lambda x: (x[:, 1:4:2], x[:, ::-1], x[:, -1], jnp.split(x, (2, 3), axis=2)),
    "rows by number": lambda x: (W[0, 0][(jnp.abs(x[:, 0]) * 2).astype(jnp.int32)], x[:, jnp.array([2, 0])], x[..., 1]),
    "rows beyond the last": lambda x: jnp.take(W[0, 0], (100 * x[:, 0]).astype(jnp.int32), axis=1, mode="clip"),
    "window beyond the last": lambda x: lax.dynamic_slice_in_dim(x, jnp.int32(5) + 0 * jnp.int32(len(W)), 2, axis=1),
    "axes": lambda x: (x.transpose(1, 2, 0).transpose(2, 1, 0), jnp.stack([x, 2 * x], axis=2), x[:, None].squeeze(1)),
    "shapes": lambda x: (x.reshape(-1, 3), x.reshape(2, 2, -1, 6).sum(0), jnp.concatenate([x, x]).reshape(2, -1, 8)),
    "rows by columns": lambda x: jnp.einsum("nij,jk->nik", x, W[0, 0].T),
    "columns by rows": lambda x: jnp.einsum("nij,nkj->nki", x, x + 1),
    "summed first": lambda x: jnp.einsum("nji,njk->nik", x, x - 1),
    "summed in the middle and last": lambda x: jnp.einsum("nji,nkj->nik", x, x.transpose(0, 2, 1) + 1),
    "two sums": lambda x: jnp.einsum("nij,abij->nab", x, W),
    "two sums, the other way round": lambda x: jnp.einsum("abij,nij->bna", W, x),
    "no sum": lambda x: jnp.einsum("ni,j->nij", x[:, 0], W[0, 0, 0]),
    "broadcast in a product": lambda x: jnp.einsum("nij,njk->nik", jnp.broadcast_to(x[:, :1], x.shape), x.mT),
    "convolution": lambda x: lax.conv_general_dilated(
        x[:, :, None] + W[0, :1, :, None],
        KERNEL,
        (2, 1),
        ((0, 1), (1, 0)),
        rhs_dilation=(1, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "loop": lambda x: lax.scan(lambda c, w: (c * 0.5 + w.sum(0), c[:, 0] - w[0, 0]), x, W),
    "loop from the end": lambda x: lax.scan(lambda c, w: (c * w[0], c.sum()), x, W, reverse=True),
    "loop over what is computed": lambda x: lax.scan(lambda c, row: (c + row, c), x[:, 0], x.transpose(1, 0, 2)),
    "gelu": gelu,
    "nearly gelu": lambda x: x * (0.5 * (1 + jnp.tanh((0.79788456 * x) * (1 + 0.05 * (x * x))))),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], list[Any]]]:
    """What onnxruntime and JAX make of every function, for a batch of five; one file with all."""
    (batch,) = export.symbolic_shape("n")
    given = Tensor("x", (batch, 4, 6), np.dtype(np.float32))
    graph = Graph(batch)
    graph.rows = graph.add("Shape", [given], start=0, end=1)[0]
    x = np.random.default_rng(0).standard_normal((5, 4, 6)).astype(np.float32)
    expected = jax.jit(lambda x: {name: jax.tree.leaves(f(x)) for name, f in FUNCTIONS.items()})(x)
    ports: dict[str, list[str]] = {}
    outputs = []
    for name, function in FUNCTIONS.items():
        shapes = [
            aval.shape for aval in jax.make_jaxpr(function)(jax.ShapeDtypeStruct(given.shape, jnp.float32)).out_avals
        ]
        found = [graph.whole(y, shape) for y, shape in zip(lower(graph, function, (given,)), shapes, strict=True)]
        ports[name] = [graph.add("Identity", [y])[0] for y in found]
        outputs += [_port(y._replace(name=port)) for y, port in zip(found, ports[name], strict=True)]
    path = tmp_path_factory.mktemp("rules") / "x.onnx"
    write(path, assemble(graph, "rules", [_port(given)], outputs), graph, {})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {name: (list(session.run(ports[name], {"x": x})), list(expected[name])) for name in FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_rule_computes_what_jax_does(name: str, answers: dict[str, tuple[list[Any], list[Any]]]) -> None:
    for found, expected in zip(*answers[name], strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gelu_is_one_operator_and_what_it_was_made_of_is_left_out() -> None:
    kinds = {name: kinds_of(FUNCTIONS[name]) for name in ("gelu", "nearly gelu")}
    assert kinds["gelu"] == ["Gelu"]
    assert "Gelu" not in kinds["nearly gelu"]


def test_transposes_become_one_and_constants_are_computed_now() -> None:
    assert kinds_of(lambda x: x.transpose(1, 0, 2).transpose(1, 0, 2)) == []
    assert kinds_of(lambda x: x.transpose(1, 0, 2).transpose(2, 1, 0)) == ["Transpose"]
    assert kinds_of(lambda x: x + jnp.exp(jnp.arange(6, dtype=jnp.float32)) @ W[0, 0].T[:, :1]) == ["Add"]


def kinds_of(function: Callable[[Any], Any]) -> list[str]:
    """Operators that are left."""
    (batch,) = export.symbolic_shape("n")
    graph, given = Graph(batch), Tensor("x", (batch, 4, 6), np.dtype(np.float32))
    (y,) = lower(graph, function, (given,))
    return [node.op_type for node in assemble(graph, "", [_port(given)], [_port(y)]).node]
