"""What holds for every network of the catalogue."""

import re
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models import catalogue
from shortcut_models.errors import InputError
from shortcut_models.interop.epsilon_dit import EpsilonDiT
from shortcut_models.networks import Network
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.mlp import MLP

SMALL: dict[str, Network] = {
    "dit": DiT(image_size=4, channels=1, num_classes=3, patch_size=2, hidden_size=8, depth=1, num_heads=2),
    "epsilon-dit": EpsilonDiT(
        image_size=4, channels=1, num_classes=3, patch_size=2, hidden_size=8, depth=1, num_heads=2
    ),
    "mlp": MLP(dimensions=2, num_classes=3, hidden_size=8, depth=1, frequencies=4),
}


@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_a_network_fills_the_seam(name: str) -> None:
    network = SMALL.get(name) or catalogue.find("network", catalogue.NETWORKS, name)()
    assert catalogue.kind_of(catalogue.NETWORKS, network) == name
    params = jax.eval_shape(network.init, jax.random.key(0))
    x, t, label = jnp.zeros((5, *network.shape)), jnp.zeros(5), jnp.full(5, network.null_label, jnp.int32)
    found = jax.eval_shape(network.apply, params, x, t, t, label)
    assert (found.shape, found.dtype) == (x.shape, jnp.float32)
    assert {field.name for field in fields(network)} >= network.computing
    assert set(network.stacked) <= set(params)
    assert network.sized(network.shape, network.num_classes) == network
    try:
        other = network.sized((2, 3, 4, 5), 7)
    except InputError as error:
        assert re.search(r"choose another --model|use data of that kind", str(error))
    else:
        assert (other.shape, other.num_classes) == ((2, 3, 4, 5), 7)


def test_a_network_takes_the_number_of_classes_of_its_data() -> None:
    for name in ("dit", "mlp"):
        network = SMALL[name]
        assert network.sized(network.shape, 7) == replace(network, num_classes=7)
        with pytest.raises(InputError, match=r"choose another --model"):
            network.sized((2, 3, 4, 5), 7)


def test_how_a_network_computes_does_not_make_it_another() -> None:
    dit = SMALL["dit"]
    assert isinstance(dit, DiT)
    other = replace(dit, scan=False, remat=True, dtype="bfloat16")
    assert dit.differs_from(other) == []
    assert replace(dit, hidden_size=16).differs_from(replace(dit, hidden_size=16, attention="xla")) == []
    assert dit.differs_from(replace(other, qk_norm=False, depth=2)) == ["depth", "qk_norm"]
    assert dit.differs_from(SMALL["mlp"]) == ["kind"]
    assert dit.as_computed_by(other) == other
    fast = replace(dit, hidden_size=16, attention="cudnn", dtype="bfloat16", num_heads=2)
    assert fast.exact() == replace(fast, attention="xla", dtype="float32")
    assert (dit.has_jvp, fast.has_jvp) == (True, False)
    assert (dit.levels, replace(dit, step_conditioning="log2").levels) == (None, 128)


def test_an_exact_network_computes_in_float32() -> None:
    dit = SMALL["dit"]
    assert isinstance(dit, DiT)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(dit.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape, np.float32)), shapes)
    x, t = jnp.asarray(rng.standard_normal((2, 4, 4, 1), np.float32)), jnp.array([0.2, 0.7])
    rough = replace(dit, dtype="bfloat16")
    given = (params, x, t, t / 4, jnp.array([0, 3]))
    with jax.numpy_dtype_promotion("standard"):  # JAX's attention mixes dtypes inside.
        exact, coarse, plain = (jax.jit(network.apply)(*given) for network in (rough.exact(), rough, dit))
    np.testing.assert_array_equal(exact, plain)
    assert np.abs(coarse - plain).max() > 1e-3
