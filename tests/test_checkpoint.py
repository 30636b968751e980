"""Checkpoints: whole ones, odd folders, damage, and readers that leave no trace."""

import errno
import logging
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from shortcut_models import InputError, checkpoint
from shortcut_models.checkpoint import Checkpoints, agree, check_path, load_newest, newest


def state(step: int, size: int = 3000) -> dict[str, Any]:
    """Parts with all that a training's have: dicts, named tuples, None, scalars, odd names, 16 bits."""
    noise = np.random.default_rng(0).standard_normal(size)
    ema = {
        "blocks": {"kernel": jnp.asarray(noise + step, jnp.float32)},
        "a/b=1 c": jnp.full((2, 3), step, jnp.bfloat16),
    }
    rest = {"target": None, "steps": (jnp.uint32(step), [jnp.float32(0.5)])}
    return {"ema": ema, "rest": rest}


def shapes(parts: dict[str, Any]) -> dict[str, Any]:
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), parts)


SHAPES = shapes(state(0))


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def save(folder: Path, *steps: int, keep: int = 2) -> None:
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 4 and 8. Shared: a test that changes it copies it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(folder, 4, 8)
    return folder


# --- Written and read


def test_what_is_written_is_read_to_the_last_bit(saved: Path) -> None:
    found = load_newest(saved, SHAPES)
    assert found is not None
    assert found[0] == 8
    assert_same(found[1], state(8))
    assert jax.tree.map(lambda a: a.dtype, found[1]) == jax.tree.map(lambda a: a.dtype, state(8))
    with Checkpoints(saved) as checkpoints:
        assert_same(checkpoints.load(4, {"rest": SHAPES["rest"]}), {"rest": state(4)["rest"]})


def test_orbax_reads_the_same(saved: Path) -> None:
    assert_same(ocp.load_checkpointables(str(saved / "8"), SHAPES), state(8))


def test_an_array_is_read_into_the_sharding_that_is_asked_for(saved: Path) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "x")
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    copied = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    asked = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=copied), SHAPES)
    asked["ema"]["blocks"]["kernel"] = jax.ShapeDtypeStruct((3000,), jnp.float32, sharding=spread)
    found = load_newest(saved, asked)
    assert found is not None
    kernel = found[1]["ema"]["blocks"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(375,)}
    assert len(found[1]["rest"]["steps"][0].sharding.device_set) == 8
    assert_same(found[1], state(8))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path / "two", 1, 2, 3, 4)
    save(tmp_path / "one", 1, 2, 3, 4, keep=1)
    assert names(tmp_path / "two") == ["3", "4"]
    assert names(tmp_path / "one") == ["4"]


def test_only_what_is_whole_is_a_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") is None
    (tmp_path / "file").write_text("")
    assert newest(tmp_path / "file") is None
    for name in ("12.orbax-checkpoint-tmp", "notes", "9 (copy)", "007", "-3", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "20").write_text("")
    assert newest(tmp_path) is None
    assert load_newest(tmp_path, SHAPES) is None
    for name in ("0", "5", "10"):
        (tmp_path / name).mkdir()
    assert newest(tmp_path) == 10


# --- Readers leave no trace


def test_reading_changes_nothing_and_starts_no_thread(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "checkpoints"))
    shutil.copytree(folder / "8", folder / "12.orbax-checkpoint-tmp")  # The save in progress of a training.
    before, threads = contents(folder), threading.enumerate()
    assert newest(folder) == 8
    assert load_newest(folder, SHAPES) is not None
    assert contents(folder) == before
    assert threading.enumerate() == threads
    assert load_newest(tmp_path / "nowhere", SHAPES) is None
    assert not (tmp_path / "nowhere").exists()


def test_the_next_training_clears_what_a_killed_one_left(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "checkpoints"))
    (folder / "8").rename(folder / "8.orbax-checkpoint-tmp")
    save(folder, 9)
    assert names(folder) == ["4", "9"]


def test_a_reader_beside_a_training_that_keeps_one_gets_a_whole_checkpoint_every_time(tmp_path: Path) -> None:
    folder, found = tmp_path / "checkpoints", []
    save(folder, 1, keep=1)
    finished = threading.Event()

    def train() -> None:
        with Checkpoints(folder, 1) as checkpoints:
            for step in range(2, 16):
                checkpoints.save(step, state(step))
        finished.set()

    training = threading.Thread(target=train)
    training.start()
    while not finished.is_set():
        read = load_newest(folder, SHAPES)
        assert read is not None
        assert_same(read[1], state(read[0]))
        found.append(read[0])
    training.join()
    assert found == sorted(found)
    assert len(set(found)) > 3
    assert names(folder) == ["15"]


def test_a_checkpoint_that_goes_under_a_readers_hands_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = tmp_path / "checkpoints", checkpoint._read
    save(folder, 4)

    def goes(where: Path, asked: Any) -> Any:
        if where.name == "4":
            save(folder, 8, keep=1)
        return read(where, asked)

    monkeypatch.setattr(checkpoint, "_read", goes)
    found = load_newest(folder, SHAPES)
    assert found is not None
    assert found[0] == 8
    assert_same(found[1], state(8))

    def vanishes(where: Path, asked: Any) -> Any:
        shutil.rmtree(folder)
        return read(where, asked)

    monkeypatch.setattr(checkpoint, "_read", vanishes)
    assert load_newest(folder, SHAPES) is None


def test_saving_leaves_no_thread_behind(tmp_path: Path) -> None:
    save(tmp_path / "first", 1)  # What is started once stays.
    before = threading.active_count()
    save(tmp_path / "second", *range(1, 9))
    assert threading.active_count() <= before


# --- Folders in the wild


ODD = ["a[b]c", "a*?", "**", "[!a]", "sp ace", "ünï", "dot.", "a%20b", "a:b", "new\nline", "#x?y=1", "{a}", "~x", "$x"]


@pytest.mark.parametrize("name", ["/".join(ODD), "a.orbax-checkpoint-tmp-3/'q\"/8", "x" * 255])
def test_a_folder_of_any_name_is_written_and_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "checkpoints"
    save(folder, 1, 2, 3)
    found = load_newest(folder, SHAPES)
    assert found is not None
    assert_same(found[1], state(3))
    assert names(folder) == ["2", "3"]
    assert names(tmp_path) == [name.split("/")[0]]


def test_a_folder_is_read_from_beside_it(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `shortcut sample ../runs/mine` does; behind a link, ".." is where the link leads."""
    (tmp_path / "here/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "here/deep")
    folder = Path(shutil.copytree(saved, tmp_path / "here/checkpoints"))
    monkeypatch.chdir(tmp_path / "here/deep")
    for path in (Path("../checkpoints"), tmp_path / "link/../checkpoints"):
        found = load_newest(path, SHAPES)
        assert found is not None
        assert_same(found[1], state(8))
        with Checkpoints(path) as checkpoints:
            assert_same(checkpoints.load(4, SHAPES), state(4))
    assert contents(folder) == contents(saved)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/runs/back\\slash/checkpoints", "holds a backslash"),
        ("/runs/\udcff/checkpoints", "whose name is not UTF-8"),
        ("/runs/gs:/checkpoints", "gs: is taken for the address of a service"),
        ("/s3/runs/checkpoints", "/s3 is taken for the address of a service"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is(path: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        check_path(Path(path))
    assert "choose another --run-dir" in str(caught.value)
    with pytest.raises(InputError, match=sentence):
        Checkpoints(Path(path))
    assert not Path(path).parent.exists()


# --- What cannot be read


def spoil(folder: Path, harm: Callable[[Path], object]) -> Iterator[str]:
    """Harm one file of the part "ema" after another; yields its name while it is harmed."""
    for path in sorted(path for path in (folder / "8" / "ema").rglob("*") if path.is_file()):
        before, mode = path.read_bytes(), path.stat().st_mode
        harm(path)
        yield str(path.relative_to(folder / "8"))
        if path.exists():
            path.chmod(mode)
        path.write_bytes(before)


HARMS = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": lambda path: path.unlink(),
    "other bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_told_in_one_sentence_or_does_no_harm(
    saved: Path, tmp_path: Path, harm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, told = Path(shutil.copytree(saved, tmp_path / "checkpoints")), 0
    threads = threading.enumerate()
    for name in spoil(folder, HARMS[harm]):
        try:
            found = load_newest(folder, {"ema": SHAPES["ema"]})
        except InputError as error:
            told += 1
            assert f"checkpoint {folder}/8 is damaged (" in str(error), name
            assert "delete that folder to go on from the one before" in str(error)
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 600
        else:  # A file that the arrays do not need.
            assert found is not None
            assert_same(found[1]["ema"], state(8)["ema"])
    assert told >= 3
    # No late traceback, and nobody who could write one.
    assert threading.enumerate() == threads
    assert capfd.readouterr() == ("", "")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Who may do everything, as in many containers, does this as someone who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("locked", ["8", "8/ema", "8/ema/d", "files"])
def test_what_may_not_be_read_is_not_called_damaged(saved: Path, open_folder: Path, locked: str) -> None:
    folder = Path(shutil.copytree(saved, open_folder / "checkpoints"))
    if locked == "files":
        places = [path for path in (folder / "8" / "ema").rglob("*") if path.is_file()]
    else:
        places = [folder / locked]
    for place in places:
        place.chmod(0)
    try:
        with as_nobody(), pytest.raises(InputError) as caught:
            load_newest(folder, {"ema": SHAPES["ema"]})
    finally:
        for place in places:
            place.chmod(0o755)
    sentence = str(caught.value)
    assert f"checkpoint {folder}/8 may not be read (" in sentence
    assert "ermission denied" in sentence
    assert f"{folder}/8/ema" in sentence.split("(")[1]  # The innermost cause: which file.
    assert sentence.endswith("check its owner and permissions.")
    assert "delete" not in sentence


def test_a_disk_that_fails_is_not_called_damage(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/disk/d/1")

    monkeypatch.setattr(checkpoint, "_read", fail)
    with pytest.raises(InputError, match=r"cannot be read now \(Input/output error: /disk/d/1\)") as caught:
        load_newest(saved, SHAPES)
    assert "delete" not in str(caught.value)


def test_a_checkpoint_of_another_network_is_not_called_damaged(saved: Path) -> None:
    def asked(**changes: Any) -> dict[str, Any]:
        return {"ema": {"blocks": {"kernel": shapes({"k": jnp.zeros(3000)})["k"]}, **changes}}

    other = shapes({"a/b=1 c": jnp.zeros((2, 4))})
    for wanted, odd in (
        (asked(), r"a/b=1 c is only there"),
        (asked(**SHAPES["ema"], more=other["a/b=1 c"]), "more is not there"),
        (asked(**other), r"a/b=1 c is \(2, 3\) there, \(2, 4\) here"),
    ):
        with pytest.raises(InputError, match=rf"holds other arrays than its run.json describes \({odd}\)") as caught:
            load_newest(saved, wanted)
        assert "delete" not in str(caught.value)


# --- What cannot be written


@contextmanager
def size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the nearest to a full disk that a test can have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_does_not_fit_is_raised_once_and_keeps_the_one_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(OSError, match="File too large") as caught, Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state(1))
        checkpoints.wait()
        with size_limit(50_000):
            checkpoints.save(2, state(2, size=100_000))
            checkpoints.wait()
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(folder / "2"))
    assert newest(folder) == 1
    assert capfd.readouterr() == ("", "")  # Orbax logs a thousand lines of tracebacks.


def test_a_save_that_fails_in_the_background_is_raised_at_the_end_of_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    limit = size_limit(50_000)
    with pytest.raises(OSError, match="File too large"), limit, Checkpoints(folder) as checkpoints:
        checkpoints.save(2, state(2, size=100_000))
    with pytest.raises(KeyError), size_limit(50_000), Checkpoints(tmp_path / "other") as checkpoints:
        checkpoints.save(2, state(2, size=100_000))
        raise KeyError  # The first failure is the one to tell.


def test_a_folder_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    with pytest.raises(FileNotFoundError) as caught, Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state(1))
        checkpoints.wait()
        shutil.rmtree(folder.parent)
        checkpoints.save(2, state(2))
    assert caught.value.filename == str(folder)
    assert not folder.parent.exists()


def test_a_folder_that_may_not_be_written_fails_at_once(open_folder: Path) -> None:
    folder = open_folder / "checkpoints"
    save(folder, 1)
    folder.chmod(0o555)
    with pytest.raises(PermissionError) as caught, as_nobody(), Checkpoints(folder) as checkpoints:
        checkpoints.save(2, state(2))
    assert caught.value.filename == str(folder / "2")
    assert newest(folder) == 1


def test_stopping_at_once_does_not_wait_for_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(Checkpoints, "wait", lambda _: calls.append(None))
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt), checkpoints:
        raise KeyboardInterrupt
    assert not calls
    with pytest.raises(KeyError), checkpoints:
        raise KeyError
    assert len(calls) == 1


# --- What libraries say


def test_warnings_of_libraries_are_heard_and_their_chatter_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("absl")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # pyrefly: ignore[bad-assignment]
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        logger.info("saved 3 arrays")
        logger.warning("Skipping merge of OCDBT checkpoints")
        logger.error("an array was lost")
        try:
            raise ValueError
        except ValueError:
            logger.exception("raised to us as well")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert [record.getMessage() for record in records] == ["Skipping merge of OCDBT checkpoints", "an array was lost"]
    capfd.readouterr()


@pytest.mark.parametrize(
    ("own", "others", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_processes_agree_on_what_any_of_them_asks_for(
    monkeypatch: pytest.MonkeyPatch, own: bool, others: bool, expected: bool
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda flag: np.asarray([others, flag, False]))
    assert agree(own) is expected
