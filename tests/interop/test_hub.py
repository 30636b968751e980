import logging
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from shortcut_models import InputError
from shortcut_models.codecs.latents import Latents
from shortcut_models.codecs.sd_vae_file import FILENAME, REPOSITORY, find_vae
from shortcut_models.interop import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache in a folder of its own, offline; holds owner/name's a.bin."""
    folder = tmp_path / "cache"
    snapshot = folder / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "a.bin").write_bytes(b"cached")
    refs = folder / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def test_a_path_comes_before_the_variable_and_that_before_the_cache(tmp_path, monkeypatch, cache):
    named, other = tmp_path / "named.bin", tmp_path / "folder" / "a.bin"
    other.parent.mkdir()
    for file in (named, other):
        file.write_bytes(b"here")
    monkeypatch.setenv("A_FILE", str(other.parent))
    assert hub.find("owner/name", "a.bin", path=named, variable="A_FILE") == named
    assert hub.find("owner/name", "a.bin", variable="A_FILE") == other
    monkeypatch.setenv("A_FILE", "")
    assert hub.find("owner/name", "a.bin", variable="A_FILE").read_bytes() == b"cached"
    assert hub.find("owner/name", "a.bin", revision=COMMIT).is_relative_to(cache)


@pytest.mark.usefixtures("cache")
def test_a_place_that_was_named_must_have_the_file(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"gone.bin \(by --file\) is not there"):
        hub.find("owner/name", "a.bin", path=tmp_path / "gone.bin", flag="--file")
    monkeypatch.setenv("A_FILE", str(tmp_path))
    with pytest.raises(InputError, match=r"\(by A_FILE\) holds no a.bin"):
        hub.find("owner/name", "a.bin", variable="A_FILE")
    monkeypatch.setenv("A_FILE", "gs://bucket/a.bin")
    with pytest.raises(InputError, match=r"A_FILE gs://bucket/a.bin lies on a remote store"):
        hub.find("owner/name", "a.bin", variable="A_FILE")


def test_offline_is_honoured_and_told(monkeypatch, cache):
    monkeypatch.delenv("SHORTCUT_VAE", raising=False)
    with pytest.raises(InputError) as caught:
        find_vae()
    assert str(caught.value) == (
        f"{FILENAME} of {REPOSITORY} is not in the hub's cache {cache}, and HF_HUB_OFFLINE is set: "
        "give the file with --vae or SHORTCUT_VAE."
    )
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set: give the file with SHORTCUT_VAE\.$"):
        Latents(identity="").ready()  # Commands that decode have no --vae.


@pytest.mark.usefixtures("cache")
def test_it_downloads_only_what_the_cache_lacks_and_only_when_allowed(monkeypatch, caplog):
    asked = []
    real = huggingface_hub.hf_hub_download

    def download(repository, filename, *, revision, local_files_only=False, **more):
        if local_files_only:
            return real(repository, filename, revision=revision, local_files_only=True, **more)
        asked.append((repository, filename, revision))
        logging.getLogger("huggingface_hub.utils").warning("attempt 1 of 5")
        raise ConnectionError("no route to the hub.\nmore lines")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert hub.find("owner/name", "a.bin").read_bytes() == b"cached" and not asked
    with pytest.raises(InputError, match="not in the hub's cache"):
        hub.find("owner/name", "b.bin", download=False)
    assert not asked
    with pytest.raises(InputError) as caught:
        hub.find("owner/name", "b.bin", revision="v2", flag="--file")
    assert asked == [("owner/name", "b.bin", "v2")]
    assert str(caught.value) == (
        "b.bin of owner/name cannot be had from the hub (ConnectionError: no route to the hub): "
        "give the file with --file."
    )
    # The sentence says it all: the library's own lines on every attempt stay out.
    assert "attempt" not in caplog.text


@pytest.mark.usefixtures("cache")
def test_a_name_that_the_hub_does_not_take_is_told_in_one_sentence():
    with pytest.raises(InputError, match="HFValidationError"):
        hub.find("not a name", "a.bin")


def test_a_mistyped_run_beside_others_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_id("mine/flow") and not hub.is_id("mine/flow/more")
    Path("mine").mkdir()
    assert not hub.is_id("mine/flow")
    assert not hub.is_id("runs/flow")  # Where runs go by default, although there is none yet.
