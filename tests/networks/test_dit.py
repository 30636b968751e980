import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.networks import Params
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.layers import gelu, step_level

SMALL = DiT(image_size=8, channels=3, num_classes=4, patch_size=4, hidden_size=16, depth=2, num_heads=2)
X, LABEL = jnp.asarray(np.random.default_rng(1).standard_normal((4, 8, 8, 3), np.float32)), jnp.array([0, 3, 4, 1])
APPLY = jax.jit(SMALL.apply)
T, D = jnp.array([0.0, 0.3, 0.5, 0.0]), jnp.array([0.0, 0.3, 0.25, 1.0])


def draw(network: DiT, scale: float = 0.3) -> Params:
    """Parameters without the zeros that the first ones have, behind which mistakes would hide."""
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(scale * rng.standard_normal(a.shape, np.float32)), shapes)


@pytest.fixture(scope="module")
def params() -> Params:
    return draw(SMALL)


@pytest.fixture(scope="module")
def velocity(params: Params) -> np.ndarray:
    return np.asarray(APPLY(params, X, T, D, LABEL))


def slow_velocity(net: DiT, params: Params, x: Any, t: float, d: float, label: int) -> np.ndarray:
    """The default network for one image, in float64 and loops, from the papers instead of from the code."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    side, patch, width = net.image_size // net.patch_size, net.patch_size, net.hidden_size

    def dense(p: Params, h: np.ndarray) -> np.ndarray:
        return h @ p["kernel"] + p["bias"]

    def silu(h: np.ndarray) -> np.ndarray:
        return h / (1 + np.exp(-h))

    def embed(p: Params, value: float) -> np.ndarray:
        angles = [value * 10000 ** (-i / 128) for i in range(128)]
        wave = np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
        return dense(p["out"], silu(dense(p["in"], wave)))

    def normalise(h: np.ndarray) -> np.ndarray:
        return (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)

    def attend(p: Params, h: np.ndarray) -> np.ndarray:
        qkv, wide = dense(p["qkv"], h), width // net.num_heads
        out = np.zeros_like(h)
        for head in range(net.num_heads):
            q, k, v = (qkv[:, part * width + head * wide : part * width + (head + 1) * wide] for part in range(3))
            q, k = (a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6) for a in (q, k))
            weight = np.exp(q @ k.T / math.sqrt(wide))
            out[:, head * wide : (head + 1) * wide] = weight / weight.sum(-1, keepdims=True) @ v
        return dense(p["out"], out)

    def gelu(h: np.ndarray) -> np.ndarray:
        return 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))

    condition = embed(p["time"], 10 * t) + embed(p["step"], 10 * d) + p["label"]["table"][label]
    condition = silu(condition)
    tokens = np.stack(
        [
            dense(p["patch"], np.asarray(x)[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].ravel())
            for r in range(side)
            for c in range(side)
        ]
    )
    tokens = tokens + slow_positions(side, width)
    for i in range(net.depth):
        block = jax.tree.map(lambda a, i=i: a[i], p["blocks"])
        shift, scale, gate, shift_m, scale_m, gate_m = np.split(dense(block["modulation"], condition), 6)
        tokens = tokens + gate * attend(block, normalise(tokens) * (1 + scale) + shift)
        hidden = gelu(dense(block["mlp_in"], normalise(tokens) * (1 + scale_m) + shift_m))
        tokens = tokens + gate_m * dense(block["mlp_out"], hidden)
    shift, scale = np.split(dense(p["final"]["modulation"], condition), 2)
    tokens = dense(p["final"]["linear"], normalise(tokens) * (1 + scale) + shift)
    out = np.zeros(net.shape)
    for i, token in enumerate(tokens):
        r, c = patch * (i // side), patch * (i % side)
        out[r : r + patch, c : c + patch] = token.reshape(patch, patch, net.channels)
    return out


def slow_positions(side: int, width: int) -> np.ndarray:
    """Sines, then cosines, of the column; then the same of the row; frequencies 10000^(-4i/width)."""
    table = np.zeros((side * side, width))
    for row in range(side):
        for column in range(side):
            for i in range(width // 4):
                frequency = 10000 ** (-4 * i / width)
                for part, value in enumerate((column, row)):
                    start = part * width // 2 + i
                    table[row * side + column, start] = math.sin(value * frequency)
                    table[row * side + column, start + width // 4] = math.cos(value * frequency)
    return table


def test_the_default_network_is_that_of_a_slow_second_implementation(params: Params, velocity: np.ndarray) -> None:
    examples = zip(X, T.tolist(), D.tolist(), LABEL.tolist(), strict=True)
    slow = np.stack([slow_velocity(SMALL, params, *example) for example in examples])
    assert slow.std() > 0.5
    np.testing.assert_allclose(velocity, slow, rtol=0, atol=2e-4 * slow.std())


def test_the_position_table_is_that_of_a_slow_loop() -> None:
    np.testing.assert_allclose(DiT(image_size=6, hidden_size=24, num_heads=2)._positions(), slow_positions(3, 24))


def test_patches_are_row_major_and_unpatchify_undoes_patchify() -> None:
    tokens = SMALL._patchify(X)
    # Patch 2 of 2 x 2 is the lower left one; inside it the order is row, column, channel.
    np.testing.assert_array_equal(tokens[1, 2], X[1, 4:8, 0:4].ravel())
    np.testing.assert_array_equal(SMALL._unpatchify(tokens), X)


def test_scanned_and_unrolled_blocks_agree_on_the_same_parameters(params: Params, velocity: np.ndarray) -> None:
    unrolled = jax.jit(dataclasses.replace(SMALL, scan=False).apply)(params, X, T, D, LABEL)
    np.testing.assert_allclose(unrolled, velocity, rtol=0, atol=1e-5)


def test_blocks_apart_are_those_of_the_stack(params: Params, velocity: np.ndarray) -> None:
    unrolled = dataclasses.replace(SMALL, scan=False)
    apart = unrolled.prepare(params)
    assert len(apart["blocks"]) == SMALL.depth
    assert unrolled.prepare(apart) is apart
    assert SMALL.prepare(params) is params
    np.testing.assert_allclose(jax.jit(unrolled.apply)(apart, X, T, D, LABEL), velocity, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_unrolled_gradient_is_that_of_the_scan(params: Params) -> None:
    def loss(network: DiT, params: Params) -> jax.Array:
        return jnp.mean(network.apply(params, X, T, D, LABEL) ** 2)

    scanned, unrolled = (
        jax.jit(jax.grad(partial(loss, dataclasses.replace(SMALL, scan=scan))))(params) for scan in (True, False)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), unrolled, scanned)


def test_gelu_and_its_derivatives_are_those_of_jax() -> None:
    x = jnp.linspace(-6, 6, 101)

    @jax.jit
    def derivatives(x: jax.Array) -> list[list[jax.Array]]:
        found = []
        for function in (gelu, partial(jax.nn.gelu, approximate=True)):
            slope = lambda x, function=function: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]  # noqa: E731
            backwards = jax.grad(lambda x, function=function: function(x).sum())
            curvature = jax.grad(lambda x, slope=slope: slope(x).sum())
            found.append([function(x), slope(x), backwards(x), curvature(x)])
        return found

    # 1 - tanh^2 is rounded to 1e-7; the curvature multiplies that by up to x^3.
    for ours, theirs in zip(*derivatives(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=6e-5)


@pytest.mark.slow
def test_recomputing_blocks_changes_neither_output_nor_gradient(params: Params) -> None:
    def loss(network: DiT, params: Params) -> jax.Array:
        return jnp.mean(network.apply(params, X, T, D, LABEL) ** 2)

    plain, again = (
        jax.jit(jax.value_and_grad(partial(loss, dataclasses.replace(SMALL, remat=remat)))) for remat in (False, True)
    )
    (value, gradient), (value_again, gradient_again) = plain(params), again(params)
    np.testing.assert_allclose(value_again, value, rtol=1e-5)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), gradient_again, gradient)
    assert "remat" in str(jax.make_jaxpr(again)(params))


@pytest.mark.parametrize(("width", "depth", "heads", "paper"), [(768, 12, 12, 130e6), (1152, 28, 16, 675e6)])
def test_parameter_counts_are_those_of_the_paper(width: int, depth: int, heads: int, paper: float) -> None:
    # Everything counts, the step-size embedding and the null label's row of the table included.
    def matrix(fan_in: int, fan_out: int) -> int:
        return fan_in * fan_out + fan_out

    patch = 2 * 2 * 4
    block = matrix(width, 6 * width) + 4 * matrix(width, width) + matrix(width, 4 * width) + matrix(4 * width, width)
    embeddings = 2 * (matrix(256, width) + matrix(width, width)) + 1001 * width + matrix(patch, width)
    expected = depth * block + embeddings + matrix(width, 2 * width) + matrix(width, patch)

    shapes = jax.eval_shape(DiT.original(hidden_size=width, depth=depth, num_heads=heads).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected
    assert abs(expected / paper - 1) < 0.01


def count_equations(jaxpr: Any) -> int:
    inner = [value for eqn in jaxpr.eqns for value in eqn.params.values() if hasattr(value, "eqns")]
    return len(jaxpr.eqns) + sum(count_equations(value) for value in inner)


def test_a_deeper_network_is_not_a_longer_program() -> None:
    sizes, leaves = [], []
    for depth in (2, 28):
        network = dataclasses.replace(SMALL, depth=depth)
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        sizes.append(count_equations(jax.make_jaxpr(network.apply)(shapes, X, T, D, LABEL)))
        leaves.append(len(jax.tree.leaves(shapes)))
    assert sizes[0] == sizes[1] > 50
    assert leaves[0] == leaves[1] == 25


@pytest.mark.parametrize("step_conditioning", ["smooth", "log2"])
def test_forward_mode_derivatives_are_those_of_finite_differences(step_conditioning: Any, params: Params) -> None:
    network = dataclasses.replace(SMALL, step_conditioning=step_conditioning)
    rng = np.random.default_rng(3)
    direction = [jnp.asarray(rng.standard_normal(a.shape, np.float32)) for a in (X, T, D)]
    # Small enough that a point at d=0 stays below 1/128, where log2 conditioning is flat.
    h = 1e-3
    direction[2] = jnp.ones_like(D)

    @jax.jit
    def both() -> tuple[jax.Array, jax.Array]:
        def along(s: Any) -> jax.Array:
            x, t, d = (a + s * v for a, v in zip((X, T, D), direction, strict=True))
            return network.apply(params, x, t, d, LABEL)

        derivative = jax.jvp(along, (0.0,), (1.0,))[1]
        # Fourth order, so that h need not be so small that rounding drowns the difference.
        return derivative, (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)

    derivative, difference = both()
    assert np.isfinite(derivative).all()
    scale = float(jnp.std(derivative))
    assert scale > 0.5
    np.testing.assert_allclose(derivative, difference, rtol=0, atol=0.02 * scale)


def test_log2_conditioning_reads_the_originals_index_of_a_step_size() -> None:
    d = jnp.array([1.0, 0.5, 0.25, 1 / 64, 1 / 128, 1 / 256, 0.0, 0.3])
    np.testing.assert_allclose(step_level(d), [0, 1, 2, 6, 7, 7, 7, -math.log2(0.3)], rtol=1e-6)


def test_log2_conditioning_takes_the_finest_step_for_the_velocity(params: Params) -> None:
    network = dataclasses.replace(SMALL, step_conditioning="log2")
    apply = jax.jit(network.apply)
    zero, finest, next_finest = (apply(params, X, T, jnp.full(4, d), LABEL) for d in (0.0, 1 / 128, 1 / 64))
    np.testing.assert_array_equal(zero, finest)
    assert np.abs(zero - next_finest).max() > 1e-2


def test_every_label_gives_its_own_velocity_and_so_does_none(params: Params) -> None:
    x, t, d = jnp.tile(X[:1], (5, 1, 1, 1)), jnp.full(5, 0.4), jnp.zeros(5)
    assert SMALL.null_label == 4
    found = np.asarray(APPLY(params, x, t, d, jnp.arange(5)))
    for a in range(5):
        for b in range(a):
            assert np.abs(found[a] - found[b]).max() > 1e-2


def test_bfloat16_computes_coarser_and_returns_float32(params: Params, velocity: np.ndarray) -> None:
    with jax.numpy_dtype_promotion("standard"):  # JAX's attention mixes dtypes inside.
        found = jax.jit(dataclasses.replace(SMALL, dtype="bfloat16").apply)(params, X, T, D, LABEL)
    assert found.dtype == jnp.float32
    error = np.abs(np.asarray(found) - velocity).mean() / np.abs(velocity).mean()
    assert 1e-4 < error < 0.1


FUSED = dataclasses.replace(SMALL, dtype="bfloat16", attention="cudnn")


def test_without_a_gpu_a_network_with_cudnn_attention_computes_the_same(params: Params) -> None:
    with jax.numpy_dtype_promotion("standard"):  # JAX's attention mixes dtypes inside.
        found, expected = (
            jax.jit(network.apply)(params, X, T, D, LABEL)
            for network in (FUSED, dataclasses.replace(FUSED, attention="xla"))
        )
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def gpu_program(monkeypatch: pytest.MonkeyPatch, params: Params) -> Callable[[DiT, Any], str]:
    """What would be given to a GPU's compiler, lowered here: for a function (network, params) -> scalar."""
    cudnn = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def lower(network: DiT, function: Any) -> str:
        traced = jax.jit(partial(function, network)).trace(params)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    return lower


@pytest.mark.parametrize(("scan", "remat", "forwards"), [(True, False, 1), (True, True, 2), (False, False, 2)])
def test_on_a_gpu_attention_is_cudnns_forwards_and_backwards(
    scan: bool, remat: bool, forwards: int, gpu_program: Callable[[DiT, Any], str]
) -> None:
    def gradient(network: DiT, params: Params) -> Params:
        return jax.grad(lambda params: network.apply(params, X, T, D, LABEL).sum())(params)

    with jax.numpy_dtype_promotion("standard"):
        text = gpu_program(dataclasses.replace(FUSED, scan=scan, remat=remat), gradient)
    # Two blocks; a scan's body stands there once, and computes attention again only if blocks are recomputed.
    assert len(re.findall(r"@__cudnn\$fmhaSoftmax\(", text)) == forwards
    assert len(re.findall(r"@__cudnn\$fmhaSoftmaxBackward\(", text)) == (1 if scan else 2)


def test_xla_attention_stays_what_is_asked_for_on_a_gpu(gpu_program: Callable[[DiT, Any], str]) -> None:
    text = gpu_program(SMALL, lambda network, params: network.apply(params, X, T, D, LABEL).sum())
    assert "cudnn" not in text


@pytest.mark.parametrize("odd", [{"dtype": "float32"}, {"num_heads": 8}, {"hidden_size": 288}])
def test_what_cudnn_attention_cannot_do_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cudnn needs bfloat16 and heads of a multiple of 8 up to 128, but"):
        dataclasses.replace(FUSED, **odd)


def test_a_fresh_network_is_float32_and_has_zero_velocity() -> None:
    drawn = dataclasses.replace(SMALL, zero_gates=False)
    params = jax.jit(drawn.init)(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    kernel = params["blocks"]["qkv"]["kernel"]
    # Drawn as three square matrices, each block on its own: uniform up to the root of 6 / (16 + 16).
    assert 0.95 * math.sqrt(6 / 32) < np.abs(kernel).max() <= math.sqrt(6 / 32)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1
    np.testing.assert_array_equal(APPLY(params, X, T, D, LABEL), jnp.zeros_like(X))


def test_blocks_start_as_the_identity_only_with_zero_gates() -> None:
    for network in (SMALL, dataclasses.replace(SMALL, zero_gates=False)):
        modulation = jax.jit(lambda key, network=network: network.init(key)["blocks"]["modulation"]["kernel"])
        assert (np.abs(modulation(jax.random.key(0))).max() == 0) == network.zero_gates
        # The last layer's modulation starts at zero in the original, too.
        final = jax.jit(lambda key, network=network: network.init(key)["final"])(jax.random.key(0))
        assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(final))


def test_the_original_network_differs_in_the_documented_constants_only() -> None:
    ours, original = DiT(hidden_size=384, num_heads=6), DiT.original(hidden_size=384, num_heads=6)
    assert original == dataclasses.replace(
        ours, step_conditioning="log2", time_scale=1.0, qk_norm=False, attention_scale="width", zero_gates=False
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"patch_size": 3}, "patch_size 3 does not divide the image size 32: choose a divisor"),
        ({"hidden_size": 90, "num_heads": 3}, "hidden_size 90 must be a multiple of 4 and of"),
        ({"hidden_size": 64, "num_heads": 6}, r"multiple of 4 and of model.num_heads \(6\)"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
        *(
            ({name: 0}, f"{name} is 0, but must be at least 1")
            for name in ("image_size", "channels", "num_classes", "patch_size", "hidden_size", "depth", "num_heads")
        ),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiT(**sizes)
