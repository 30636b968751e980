import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shortcut_models import cli, startup

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator's settings are glibc's")

# Takes, fills and frees 40 MiB in a thread, as a step of XLA does, and counts the pages that had to be mapped.
TAKES_MEMORY = """
import ctypes, json, os, resource, sys, threading
from shortcut_models import startup
if sys.argv[1] == "tuned":
    startup.prepare()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
faults = []
def turns():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(40 << 20)
        libc.memset(block, 1, 40 << 20)
        libc.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=turns)
thread.start()
thread.join()
print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "faults": faults}))
"""


def run(code: str, *words: str, **env: str) -> tuple[int, dict[str, Any]]:
    """The process's id, and what it printed."""
    clean = {name: value for name, value in os.environ.items() if name not in (startup.ALLOCATOR, startup.CACHE)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env={**clean, **env}
    )
    printed, _ = process.communicate()
    assert process.returncode == 0
    return process.pid, json.loads(printed)


@glibc
def test_memory_that_was_freed_is_not_mapped_again(tmp_path: Path) -> None:
    _, plain = run(TAKES_MEMORY, "plain")
    pid, tuned = run(TAKES_MEMORY, "tuned", "a b", "--c", XDG_CACHE_HOME=str(tmp_path))
    pages = (40 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert min(plain["faults"]) >= pages
    assert max(tuned["faults"][1:]) < pages / 100
    # It is still the process that was started, with the words that it was given.
    assert tuned["pid"] == pid
    assert tuned["argv"] == ["tuned", "a b", "--c"]


# Takes 64 MiB in small blocks, as a compiler does, and frees them under a block that stays; then what remains of them.
GIVES_BACK = """
import ctypes, json, os, sys
from pathlib import Path
from shortcut_models import startup
startup.prepare()
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
found = [held()]
blocks = [libc.malloc(1 << 16) for _ in range(1 << 10)]
for block in blocks:
    libc.memset(block, 1, 1 << 16)
stays = libc.malloc(1 << 16)
for block in blocks:
    libc.free(block)
found.append(held())
startup.give_back()
print(json.dumps([*found, held()]))
"""


@glibc
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what a process holds")
def test_memory_that_was_kept_can_be_given_back(tmp_path: Path) -> None:
    _, (before, kept, after) = run(GIVES_BACK, XDG_CACHE_HOME=str(tmp_path))
    assert kept > before + 60
    assert after < before + 8


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Environments under which the program would have started anew."""
    found: list[dict[str, str]] = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "execve", lambda *given: found.append(given[-1]))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return found


def test_compiled_programs_are_kept_in_the_users_cache(
    restarts: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(os.environ, startup.CACHE, raising=False)
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(os.environ, startup.ALLOCATOR, "")
    startup.prepare()
    assert os.environ[startup.CACHE] == str(tmp_path / "shortcut-models")
    assert (tmp_path / "shortcut-models").is_dir()
    assert not restarts  # An empty setting of the user's is one, too.


def test_what_the_user_has_set_is_left_alone(
    restarts: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(os.environ, startup.CACHE, str(tmp_path / "own"))
    monkeypatch.setitem(os.environ, startup.ALLOCATOR, "glibc.malloc.check=1")
    before = dict(os.environ)
    startup.prepare()
    assert dict(os.environ) == before
    assert not restarts


def test_a_cache_that_cannot_be_made_is_not_asked_for(
    restarts: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delitem(os.environ, startup.CACHE, raising=False)
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delitem(os.environ, startup.ALLOCATOR, raising=False)
    startup.prepare()
    assert [env.get(startup.CACHE) for env in restarts] == [None]
    assert restarts[0][startup.ALLOCATOR] == startup.KEEP_MEMORY


@pytest.mark.parametrize(("words", "prepared"), [(["sample", "nowhere"], 1), (["--help"], 0), ([], 0)])
def test_the_program_prepares_only_to_compute(
    words: list[str], prepared: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[None] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "prepare", lambda: calls.append(None))
    monkeypatch.setattr(sys, "argv", ["shortcut", *words])
    cli.main()
    assert len(calls) == prepared
    cli.main(["sample", "nowhere"])  # Called as a function, it leaves the process as it is.
    assert len(calls) == prepared
