"""Files: whole or not at all, locks that die with their process, and failures told in one sentence."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shortcut_models import InputError, files
from shortcut_models.files import ADVICE, absolute, explain, explained, find, hold, holder, make_folder, remove_empty

# --- Whole or not at all


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    with pytest.raises(RuntimeError), files.whole_file(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize("write", [files.write_json, lambda path, data: files.write_text(path, str(data))])
def test_a_file_is_written_aside_so_that_whoever_reads_sees_the_old_or_the_new_one(tmp_path: Path, write) -> None:
    path, old = tmp_path / "run.json", tmp_path / "old.json"
    path.write_text("as it was")
    old.hardlink_to(path)  # Another name of the same file: it changes if that is written in place.
    write(path, {"new": 1})
    assert "new" in path.read_text()
    assert old.read_text() == "as it was"


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("as it was")
    code = f"""
import os, signal
from pathlib import Path
from shortcut_models.files import whole_file
with whole_file(Path({str(path)!r})) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_text() == "as it was"


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, " ", "[a]*?", "trailing."])
def test_every_name_that_the_file_system_allows_can_be_written(tmp_path: Path, name: str) -> None:
    files.write_json(tmp_path / name, {"a": 1})
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_failure_names_the_file_and_not_the_one_aside(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(OSError, match="space") as caught, files.whole_file(path):
        raise OSError(errno.ENOSPC, "no space")
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as missing, files.whole_file(path):
        pass  # Nothing was written aside.
    assert (missing.value.filename, missing.value.filename2) == (str(path), None)
    with pytest.raises(FileNotFoundError) as other, files.whole_file(path):
        (tmp_path / "other").read_text()
    assert other.value.filename == str(tmp_path / "other")
    with pytest.raises(FileNotFoundError) as within, files.naming(path, instead_of=tmp_path / "aside"):
        (tmp_path / "aside/report.json").read_text()
    assert within.value.filename == str(path)


# --- Paths


def test_a_stored_path_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute("runs/../runs/flow/") == f"{tmp_path}/runs/flow"
    assert absolute("/data/pairs") == "/data/pairs"
    assert absolute("~/pairs") == "/home/someone/pairs"


def test_a_path_that_was_stored_as_it_was_given_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow, run, elsewhere = (tmp_path / name for name in ("project/runs/flow", "project/runs/run", "elsewhere"))
    for folder in (flow, run, elsewhere):
        folder.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert find("runs/flow", run) == flow  # As seen from the project's folder, above the run's.
    assert find("../flow", run) == run / "../flow"
    assert find("nowhere", run) == elsewhere / "nowhere"
    assert find("/data/pairs", run) == Path("/data/pairs")
    (elsewhere / "runs" / "flow").mkdir(parents=True)
    assert find("runs/flow", run) == elsewhere / "runs" / "flow"  # What is here comes first, as it did.


def test_folders_that_were_made_go_again_as_far_as_they_are_empty(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "a" / "b" / "c")
    assert made == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b", tmp_path / "a"]
    (tmp_path / "a" / "kept").write_text("")
    remove_empty(made)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept"]
    assert make_folder(tmp_path) == []


# --- Locks


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its input ends."""
    code = f"""
import sys
from pathlib import Path
from shortcut_models.files import hold
with hold(Path({str(path)!r})) as held:
    print(held, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with other_process(path) as other:
        with hold(path, wait=False) as held:
            assert not held
        assert f"process {other.pid} on {os.uname().nodename}, since 20" in holder(path)
        other.kill()
        other.wait()
        assert path.exists()  # What a killed process leaves keeps nobody out.
        with hold(path, wait=False) as held:
            assert held
            assert f"process {os.getpid()} on" in holder(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with hold(tmp_path / ".lock") as held:
        assert held
    assert f"{tmp_path}: this file system has no locks" in capsys.readouterr().err
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"), hold(tmp_path / ".lock"):
        pass


def test_a_lock_is_released_however_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), hold(path) as held:
            assert held
            raise error
        assert not path.exists()
    assert holder(path) == "another process"


def test_a_lock_that_is_waited_for_comes_when_the_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with other_process(path) as other:
        assert other.stdin is not None
        threading.Timer(0.2, other.stdin.close).start()
        with hold(path) as held:
            assert held
            assert path.exists()
            assert other.wait() == 0


def test_no_two_hold_a_lock_although_each_holder_removes_it(tmp_path: Path) -> None:
    path, inside, most = tmp_path / ".lock", [], []

    def turns() -> None:
        for _ in range(200):
            with hold(path) as held:
                assert held
                inside.append(None)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=turns) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 800
    assert max(most) == 1


# --- Failures


@pytest.mark.parametrize("code", ADVICE)
def test_a_failure_that_a_user_can_mend_is_one_sentence(code: int) -> None:
    with pytest.raises(InputError) as caught, explained("the checkpoint of step 4 is kept"):
        raise OSError(code, os.strerror(code), "runs/a/metrics.jsonl")
    sentence = str(caught.value)
    assert sentence.startswith("runs/a/metrics.jsonl: ")
    assert os.strerror(code)[1:] in sentence
    assert "(the checkpoint of step 4 is kept)" in sentence
    assert sentence.endswith(f"{ADVICE[code]}.")
    assert len(sentence.splitlines()) == 1


def test_other_failures_are_left_as_they_are() -> None:
    for error in (OSError("no number"), OSError(errno.EINVAL, "invalid"), ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, explained():
            raise error
        assert caught.value is error


def test_a_failure_without_a_file_is_one_of_the_output() -> None:
    assert explain(BrokenPipeError(errno.EPIPE, "Broken pipe")) == (
        "the output: broken pipe: the program that reads the output has ended, so that the rest of it is lost."
    )
