"""What the program settles before it computes."""

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shortcut_models import cli, startup
from shortcut_models.cli import sample

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator's settings are glibc's")

# Takes, fills and frees memory in a thread, as a step of XLA does, and counts the pages that had to be mapped.
TAKES_MEMORY = """
import ctypes, json, resource, sys, threading
from shortcut_models import startup
if sys.argv[1] == "tuned":
    startup.prepare()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
size, faults = int(sys.argv[2]), []
def turns():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(size)
        libc.memset(block, 1, size)
        libc.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=turns)
thread.start()
thread.join()
print(json.dumps(faults))
"""


def clean() -> dict[str, str]:
    """The environment without a user's settings."""
    names = (startup.TUNABLES, startup.CACHE)
    return {name: value for name, value in os.environ.items() if name not in names and not name.startswith("MALLOC_")}


def run(code: str, *words: str, **env: str) -> Any:
    """What a process printed."""
    return json.loads(subprocess.check_output([sys.executable, "-c", code, *words], text=True, env={**clean(), **env}))


@glibc
@pytest.mark.parametrize("size", [40 << 20, 100 << 20])
def test_memory_that_was_freed_is_not_mapped_again(tmp_path: Path, size: int) -> None:
    plain = run(TAKES_MEMORY, "plain", str(size))
    tuned = run(TAKES_MEMORY, "tuned", str(size), XDG_CACHE_HOME=str(tmp_path))
    pages = size // os.sysconf("SC_PAGE_SIZE")
    # Pages of 2 MiB, where the system gives them unasked, are fewer.
    assert min(plain) >= pages / 600
    assert max(tuned[1:]) < min(plain) / 10


# The pieces of the heap: how large each is, and whether huge pages were asked for.
HEAPS = """
import json
from pathlib import Path
from shortcut_models import startup
startup.keep_memory()
pieces, inside = [], False
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, *rest = line.split()
    if not name.endswith(":"):
        inside = line.endswith("[heap]")
    elif inside and name == "Size:":
        pieces.append([int(rest[0]) << 10])
    elif inside and name == "VmFlags:":
        pieces[-1].append("hg" in rest)
print(json.dumps(pieces))
"""


@glibc
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the kernel has no huge pages")
def test_the_heap_may_come_in_huge_pages() -> None:
    assert sum(size for size, asked in run(HEAPS) if asked) > startup.HEAP - startup.HUGE_PAGE


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
    before, kept, after = run(GIVES_BACK, XDG_CACHE_HOME=str(tmp_path))
    assert kept > before + 60
    assert after < before + 8


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Calls that would have set the allocator, in an environment that is free to be changed."""
    found: list[None] = []
    monkeypatch.setattr(os, "environ", clean())
    monkeypatch.setattr(startup, "keep_memory", lambda: found.append(None))
    return found


def test_compiled_programs_are_kept_in_the_users_cache(
    kept: list[None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path))
    startup.prepare()
    assert os.environ[startup.CACHE] == str(tmp_path / "shortcut-models")
    assert (tmp_path / "shortcut-models").is_dir()
    assert len(kept) == 1


@pytest.mark.parametrize("variable", [startup.TUNABLES, "MALLOC_ARENA_MAX"])
def test_what_the_user_has_set_is_left_alone(
    kept: list[None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setitem(os.environ, startup.CACHE, str(tmp_path / "own"))
    monkeypatch.setitem(os.environ, variable, "")  # An empty setting is one, too.
    before = dict(os.environ)
    startup.prepare()
    assert dict(os.environ) == before
    assert not kept
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_made_is_not_asked_for(
    kept: list[None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "file"))
    startup.prepare()
    assert startup.CACHE not in os.environ
    assert len(kept) == 1


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("asked for"))
    startup.keep_memory()
    startup.give_back()


@pytest.mark.parametrize(
    ("words", "prepared"), [(["sample", "nowhere"], 1), (["sample", "--help"], 0), (["presets"], 0), (["--help"], 0)]
)
def test_the_program_prepares_only_to_compute(
    words: list[str], prepared: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[None] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "prepare", lambda: calls.append(None))
    monkeypatch.setattr(sys, "argv", ["shortcut", *words])
    monkeypatch.setattr(sample, "run", lambda _: 0)
    cli.main()
    assert len(calls) == prepared
    cli.main(["sample", "nowhere"])  # Called as a function, it leaves the process as it is.
    assert len(calls) == prepared
