"""The VAE against the golden values of PyTorch's, and the codec made of it against the formulas."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from vaes import NAME, TINY, tiny_weights, weight, write_tiny

from shortcut_models import InputError, sharding
from shortcut_models.codecs import sd_vae_network
from shortcut_models.codecs.edm2 import Edm2Latents
from shortcut_models.codecs.latents import Latents
from shortcut_models.codecs.sd_vae import SCALE, SDVAE
from shortcut_models.codecs.sd_vae_file import load_vae
from shortcut_models.codecs.sd_vae_network import Architecture, layout
from shortcut_models.data.digits import Digits
from shortcut_models.encoding import make_encode
from shortcut_models.presets import get_preset
from shortcut_models.state import shapes_of

GOLDEN = Path(__file__).parents[1] / "golden"
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SDVAE:
    return load_vae(write_tiny(tmp_path_factory.mktemp("vae")))


def images(count: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


def latents(count: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, 4, 6, 4)).astype(np.float32)


def test_the_published_layout():
    golden = json.loads((GOLDEN / "sd_vae_layout.json").read_text())
    assert {name: list(shape) for name, shape in layout(Architecture()).items()} == golden


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> SDVAE:
    """The full network from a file in the published layout, with attention's names as in the published file."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, shape in layout(Architecture()).items():
        array, old = weight(name, shape, 0), name
        for new, before in names.items():
            if f".{new}." in name:
                old = name.replace(f".{new}.", f".{before}.")
                array = array[:, :, None, None] if array.ndim == 2 and before != "proj_attn" else array
        tensors[old] = array
    file = tmp_path_factory.mktemp("published") / NAME
    save_file(tensors, file)
    vae = load_vae(file)
    file.unlink()
    return vae


def test_the_golden_values_of_the_published_network(published):
    golden = np.load(GOLDEN / "sd_vae.npz")
    last = {name: np.moveaxis(golden[name], 1, -1) for name in ("images", "mean", "logvar", "latents", "decoded")}
    mean, logvar = published.encode(last["images"])
    np.testing.assert_allclose(mean, last["mean"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(logvar, last["logvar"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(published.decode(last["latents"]), last["decoded"], rtol=0, atol=1e-4)


def test_products_are_exact_float32_by_default_and_bfloat16_when_asked(tiny):
    def text(dtype: str) -> str:
        return str(jax.make_jaxpr(lambda x: sd_vae_network.decode(tiny.params, x, TINY, dtype))(latents(1)))

    exact, quick = text("float32"), text("bfloat16")
    products = exact.count("conv_general_dilated[") + exact.count("dot_general[")
    assert exact.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products > 10
    assert "HIGHEST" not in quick and "bf16" in quick and "bf16" not in exact


def test_bfloat16_rounds_and_keeps_the_weights_identity(tmp_path, tiny):
    quick = load_vae(write_tiny(tmp_path), dtype="bfloat16")
    assert quick.identity == tiny.identity
    exact, rough = tiny.decode(latents(3)), quick.decode(latents(3))
    assert rough.dtype == jnp.float32
    assert 1e-4 < np.sqrt(np.mean((rough - exact) ** 2)) / np.std(exact) < 0.03


def test_pieces_and_devices_change_nothing(tiny):
    small = SDVAE(params=tiny.params, architecture=TINY, at_once=1)  # 8 devices: pieces of 8, 8 and 3.
    alone = small.encode(images(19)[17:])
    for found, expected in zip(small.encode(images(19)), alone, strict=True):
        assert found.shape == (19, 4, 6, 4)
        np.testing.assert_allclose(found[17:], expected, atol=2e-6)
    whole, pieces = tiny.decode(latents(19)), small.decode(jnp.asarray(latents(19)))
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_a_batch_is_spread_over_the_devices(tiny):
    decoded = tiny.decode(latents(16))
    assert {shard.data.shape[0] for shard in decoded.addressable_shards} == {2}


def test_the_error_names_what_is_wrong_with_an_array(tiny):
    for call, given, told in [
        (tiny.encode, images(1, 8, 9), "multiples of 2"),
        (tiny.encode, images(1)[0], r"\(8, 12, 3\)"),
        (tiny.encode, np.zeros((1, 3, 8, 8), np.float32), "channels last"),
        (tiny.encode, np.zeros((1, 8, 8, 3), np.uint8), "uint8"),
        (tiny.encode, images(1) * 255, r"\[-1, 1\]"),
        (tiny.encode, images(1) * np.nan, "nan"),
        (tiny.encode, images(0), "multiples"),
        (tiny.decode, latents(1)[..., :3], r"\(1, 4, 6, 3\)"),
        (tiny.decode, latents(0), "nothing"),
    ]:
        with pytest.raises(InputError, match=told):
            call(given)


def test_stored_moments_are_sampled_and_scaled():
    codec = Latents(identity="abc")
    mean = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float16)
    deviation = np.abs(mean) + np.float16(0.5)
    encoded = jax.jit(lambda codec, batch: codec.encode(batch, KEY))(codec, {"mean": mean, "deviation": deviation})
    eps = np.asarray(jax.random.normal(KEY, mean.shape))
    expected = 0.18215 * (mean.astype(np.float32) + deviation.astype(np.float32) * eps)
    assert encoded.dtype == jnp.float32
    np.testing.assert_allclose(encoded, expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(eps)) == eps.size


@pytest.mark.parametrize("at_once", [None, 8])
def test_images_are_encoded_sampled_and_scaled_and_samples_decoded_spread_over_the_devices(tiny, at_once):
    codec = Latents.of(tiny, at_once=at_once)
    assert codec.shape((8, 12, 3)) == codec.shape((4, 6, 4)) == (4, 6, 4)
    stored = np.random.default_rng(0).integers(0, 256, (16, 8, 12, 3), dtype=np.uint8)
    batch = sharding.place_batch(sharding.make_mesh(), {"image": stored})
    encoded = jax.jit(lambda codec, batch: codec.encode(batch, KEY))(codec, batch)
    mean, logvar = tiny.encode(stored.astype(np.float32) / 127.5 - 1)
    eps = jax.random.normal(KEY, mean.shape)
    np.testing.assert_allclose(encoded, SCALE * (mean + jnp.exp(0.5 * logvar) * eps), atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(lambda c, x: c.decode(x))(codec, encoded), tiny.decode(encoded / SCALE), atol=2e-5
    )


@pytest.mark.slow
def test_edm2s_latents_are_whitened_and_of_images_between_0_and_1(tiny):
    codec = Edm2Latents.of(tiny)
    mean, deviation = latents(2), np.abs(latents(2)) + 0.1
    eps = np.asarray(jax.random.normal(KEY, mean.shape))
    # As EDM2's StabilityVAEEncoder: scale = final_std / raw_std, bias = final_mean - raw_mean * scale.
    scale = 0.5 / np.array([4.17, 4.62, 3.71, 3.28])
    bias = 0 - np.array([5.81, 3.25, 0.12, -2.15]) * scale
    x = np.asarray(codec.encode({"mean": jnp.float16(mean), "deviation": jnp.asarray(deviation)}, KEY))
    np.testing.assert_allclose(x, (mean.astype(np.float16) + deviation * eps) * scale + bias, atol=1e-5)
    unit = np.asarray(tiny.decode((x - bias) / scale))
    np.testing.assert_allclose(codec.decode(jnp.asarray(x)), 2 * unit - 1, atol=1e-4)
    given = images(2)
    own, logvar = tiny.encode((given + 1) / 2)
    eps = np.asarray(jax.random.normal(KEY, own.shape))
    expected = (own + np.exp(logvar / 2) * eps) * scale + bias
    np.testing.assert_allclose(codec.encode({"image": jnp.asarray(given)}, KEY), expected, atol=1e-4)
    stored = Edm2Latents(identity="")
    assert stored.using(tiny).identity == tiny.identity
    assert stored.shape((32, 32, 4)) == (32, 32, 4)


@pytest.mark.parametrize("kind", [Latents, Edm2Latents])
def test_what_is_in_the_networks_range_already_stays_as_it_is(kind):
    """Pairs of a model of latents are its samples, which need no VAE to be trained on."""
    x = latents(2)
    np.testing.assert_array_equal(kind(identity="abc").encode({"x": jnp.asarray(x), "noise": x}, KEY), x)


def test_weights_are_arguments_of_a_compiled_program(tiny):
    lowered = jax.jit(lambda codec, x: codec.decode(x)).lower(Latents.of(tiny), jnp.asarray(latents(1)))
    assert len(jax.tree.leaves(lowered.in_avals)) == len(tiny.params) + 1
    assert len(lowered.as_text()) < 200_000  # As constants the weights alone take more.


def test_they_cross_to_the_devices_once_and_not_at_every_step(tiny, monkeypatch):
    monkeypatch.setattr(Digits, "codec", property(lambda _: Latents.of(tiny)))
    config = get_preset("digits")
    there = sharding.make_layout(shapes_of(config), "dp", ())
    leaves = jax.tree.leaves(make_encode(config, there).args[0])  # pyrefly: ignore[missing-attribute]
    assert leaves
    assert all(isinstance(leaf, jax.Array) and leaf.sharding.is_fully_replicated for leaf in leaves)
    assert {len(leaf.sharding.device_set) for leaf in leaves} == {there.mesh.size}


def test_log_variances_are_clipped(tiny):
    params = dict(tiny.params)
    params["quant_conv.bias"] = np.asarray([0] * 4 + [1e3, -1e3, 0, 0], np.float32)
    logvar = SDVAE(params=params, architecture=TINY).encode(images(1))[1]
    assert np.all(logvar[..., 0] == 20) and np.all(logvar[..., 1] == -30)


def test_latents_without_their_vae_train_but_say_what_decoding_needs(tiny):
    codec = Latents(identity=tiny.identity, factor=2)
    with pytest.raises(InputError, match=r"decoding latents needs the VAE .* --vae"):
        codec.decode(jnp.zeros((1, 4, 6, 4)))
    with pytest.raises(InputError, match="encoding images needs"):
        codec.encode({"image": jnp.zeros((1, 8, 8, 3), jnp.uint8)}, KEY)
    with pytest.raises(InputError, match="label"):
        codec.encode({"label": jnp.zeros(1, jnp.int32)}, KEY)
    with pytest.raises(InputError, match=r"\(9, 8, 3\)"):
        codec.shape((9, 8, 3))
    assert codec.using(tiny).vae is tiny


def test_latents_of_another_vae_are_refused(tiny):
    with pytest.raises(InputError, match="made by the VAE 0123"):
        Latents(identity="0123456789abcdef").using(tiny)
    with pytest.raises(InputError, match=r"scaled by 0\.13025, but this VAE's by 0\.18215: give the VAE that they"):
        Latents(identity="", scale=0.13025).using(tiny)


@pytest.mark.parametrize(("known", "scale"), [(False, 0.18125), (True, 0.13025)])
def test_latents_are_decoded_by_the_scale_that_they_have(tiny, known, scale):
    """MeanFlow's public code multiplies by 0.18125, and a config beside the VAE may say anything."""
    codec = Latents(identity=tiny.identity if known else "", scale=scale).using(tiny)
    unscaled = latents(1)
    np.testing.assert_allclose(codec.decode(jnp.asarray(scale * unscaled)), tiny.decode(unscaled), atol=1e-4)


def test_the_identity_is_that_of_names_and_values(tmp_path, tiny):
    digest = hashlib.sha256()
    for name, array in sorted(tiny_weights().items()):
        digest.update(name.encode() + b"\0" + array.tobytes())
    assert tiny.identity == digest.hexdigest()
    file = write_tiny(tmp_path)
    assert load_vae(file).file_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    changed = tiny_weights()
    changed["decoder.conv_out.bias"] = changed["decoder.conv_out.bias"] + np.float32(1e-3)
    assert load_vae(write_tiny(tmp_path, changed)).identity != tiny.identity


def old_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, array in tensors.items():
        old = name
        for new, before in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            old = old.replace(f".{new}.", f".{before}.")
        renamed[old] = array[:, :, None, None] if old != name and array.ndim == 2 else array
    return renamed


def test_old_and_new_names_of_attention_are_the_same_vae(tmp_path, tiny):
    old = load_vae(write_tiny(tmp_path, old_names(tiny_weights())))
    assert old.identity == tiny.identity and old.file_sha256 != tiny.file_sha256
    jax.tree.map(np.testing.assert_array_equal, old.params, tiny.params)
    half = load_vae(write_tiny(tmp_path, {k: v.astype(np.float16) for k, v in tiny_weights().items()}))
    assert {array.dtype for array in half.params.values()} == {np.dtype(np.float32)}


def test_a_config_beside_it_gives_the_scale_and_other_configs_are_let_be(tmp_path, tiny):
    assert tiny.scale == 0.18215 and tiny.architecture == TINY
    assert load_vae(write_tiny(tmp_path, scaling_factor=0.13025).parent).scale == 0.13025
    with pytest.raises(InputError, match=r"shift_factor of 0\.1"):
        load_vae(write_tiny(tmp_path, shift_factor=0.1))
    with pytest.raises(InputError, match="no number"):
        load_vae(write_tiny(tmp_path, layers_per_block="two"))
    with pytest.raises(InputError, match="lacks decoder"):  # Then it is to be one of the published.
        load_vae(write_tiny(tmp_path, _class_name="Run"))


def test_a_file_that_is_not_whole_is_refused_by_the_tensors_name(tmp_path):
    def told(change) -> str:
        tensors = tiny_weights()
        change(tensors)
        with pytest.raises(InputError) as caught:
            load_vae(write_tiny(tmp_path, tensors))
        return str(caught.value)

    bias = "decoder.conv_in.bias"
    assert f"lacks {bias}" in told(lambda t: t.pop(bias))
    assert "also holds loss.logvar" in told(lambda t: t.update({"loss.logvar": np.zeros(1, np.float32)}))
    assert f"{bias} in shape (3,), but an SD-VAE has (16,)" in told(lambda t: t.update({bias: np.zeros(3, np.float32)}))
    assert f"{bias} as int32" in told(lambda t: t.update({bias: np.zeros(16, np.int32)}))
    assert "are no numbers" in told(lambda t: t.update({bias: np.full(16, np.nan, np.float32)}))
    key = "encoder.mid_block.attentions.0.to_k.bias"
    assert f"{key} twice" in told(lambda t: t.update({key.replace("to_k", "key"): t[key]}))


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    file = write_tiny(tmp_path)
    whole = file.read_bytes()
    for end in (0, 4, 100, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(InputError, match="truncated"):
            load_vae(file)
    with pytest.raises(InputError, match="is not there"):
        load_vae(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="float16"):
        load_vae(file, dtype="float16")
