import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models import InputError
from shortcut_models.codecs import Pixels
from shortcut_models.data.pixels import to_network

KEY = jax.random.key(0)


def test_bytes_are_scaled_as_on_the_host_to_the_bit_under_jit():
    images = np.arange(256, dtype=np.uint8).reshape(2, 8, 8, 2)
    encoded = jax.jit(Pixels().encode)({"image": jnp.asarray(images)}, KEY)
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, to_network(images))


@pytest.mark.parametrize("name", ["image", "x"])
def test_floats_pass_unchanged_both_ways(name):
    points = jnp.asarray([[0.25, -3.0]], jnp.float32)
    np.testing.assert_array_equal(Pixels().encode({name: points}, KEY), points)
    np.testing.assert_array_equal(Pixels().decode(points), points)
    assert Pixels().shape((2,)) == (2,) and Pixels().shape((8, 8, 1)) == (8, 8, 1)


def test_what_is_no_pixels_is_refused():
    with pytest.raises(InputError, match="int32"):
        Pixels().encode({"image": jnp.zeros((1, 8, 8, 3), jnp.int32)}, KEY)
    with pytest.raises(InputError, match="deviation, mean"):
        Pixels().encode({"mean": jnp.zeros((1, 4)), "deviation": jnp.zeros((1, 4))}, KEY)


def test_the_codec_goes_through_jit_as_an_argument():
    codec = jax.jit(lambda codec: codec)(Pixels())
    assert codec == Pixels() and codec.identity == "pixels"
