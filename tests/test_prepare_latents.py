"""`prepare` of latents that another tool encoded: kept as they are, in our form."""

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from shortcut_models import InputError, cli
from shortcut_models import prepare as prepare_module
from shortcut_models.codecs.edm2 import Edm2Latents as Edm2Codec
from shortcut_models.codecs.latents import Latents as Codec
from shortcut_models.data import choose, take
from shortcut_models.data.latents import Latents
from shortcut_models.prepare import prepare

ZIP = Path(__file__).parent / "golden" / "data" / "zip" / "edm2_latents.zip"


def test_latents_of_other_tools_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "SHARD_ITEMS", 3)
    stored = np.load(ZIP.parents[1] / "latents" / "expected_latents.npz")
    moments = stored["edm2_latents/mean_std"].transpose(0, 2, 3, 1).astype(np.float16)
    for latents, codec in (("edm2", Edm2Codec), ("repa", Codec)):
        out = tmp_path / latents
        manifest = prepare(cast(Latents, choose(ZIP, latents=latents)), out, size=64)
        about = {name: manifest[name] for name in ("kind", "count", "shape", "latents", "vae", "mirrored", "left_out")}
        rest = {"vae": None, "mirrored": False, "left_out": []}
        assert about == {"kind": "latents", "count": 4, "shape": [8, 8, 4], "latents": latents, **rest}
        data = choose(out)
        found = take(data.open(), np.arange(4))
        np.testing.assert_array_equal(np.concatenate([found["mean"], found["deviation"]], axis=-1), moments)
        assert found["label"].tolist() == stored["edm2_latents/label"].tolist()
        assert type(data.codec) is codec
        assert data.codec.shape(data.shape) == (8, 8, 4)
    assert choose(tmp_path / "edm2").identity() != choose(tmp_path / "repa").identity()
    with pytest.raises(InputError, match="holds latents of images of 64x64, but --size is 256"):
        prepare(cast(Latents, choose(ZIP, latents="edm2")), tmp_path / "other", size=256)
    with pytest.raises(InputError, match="which a VAE has made already: leave --vae out"):
        prepare(cast(Latents, choose(ZIP, latents="edm2")), tmp_path / "other", size=64, vae=cast(Any, "a VAE"))
    assert not (tmp_path / "other").exists()


def test_a_damaged_latent_is_left_out_or_named(tmp_path: Path) -> None:
    shutil.unpack_archive(ZIP, tmp_path / "latents")
    files = sorted((tmp_path / "latents").rglob("*.npy"))
    files[1].write_bytes(files[1].read_bytes()[:-100])
    np.save(files[2], np.full((8, 4, 4), 0.5, np.float32))
    array = np.load(files[3])
    array[0, 0, 0] = np.nan
    np.save(files[3], array)
    data = cast(Latents, choose(tmp_path / "latents", latents="repa"))
    with pytest.raises(InputError, match=r"img-mean-std-0*1\.npy of .* is no latent to use \(corrupt"):
        data.open()[1]
    manifest = prepare(data, tmp_path / "out", size=64, most_left_out=0.9)
    assert [(bad["reason"], bad["name"][-5]) for bad in manifest["left_out"]] == [
        ("corrupt", files[1].name[-5]),
        ("mode", files[2].name[-5]),
        ("corrupt", files[3].name[-5]),
    ]


def test_latents_take_no_settings_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", str(ZIP), str(tmp_path / "out"), "--size", "64", "--latents", "edm2"]
    for flag in (["--crop", "adm"], ["--alpha", "white"]):
        assert cli.main([*words, *flag]) == 2
        assert f"{' '.join(flag)} does not fit" in capsys.readouterr().err
    assert cli.main(words) == 0
