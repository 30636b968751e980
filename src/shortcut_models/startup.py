"""How the program keeps memory and compiled programs: settled before it imports JAX."""

import ctypes
import os
import platform
import sys
from pathlib import Path

ALLOCATOR = "GLIBC_TUNABLES"
"""What glibc reads its settings from, and only when a process starts."""

# XLA's CPU backend asks for the temporary memory of every execution anew. What is freed, glibc hands back to
# the system if it is larger than 32 MiB, which zeroes and maps it again for the next step, 4 KiB at a time: a
# fifth to a quarter of the step of two blocks of S/2 (docs/speed.md, "What each choice is worth").
KEEP_MEMORY = ":".join(
    (
        "glibc.malloc.trim_threshold=68719476736",  # Keep what is freed, up to 64 GiB of it.
        "glibc.malloc.top_pad=67108864",  # Grow by 64 MiB: the heaps of threads, too, then keep that much.
        "glibc.malloc.hugetlb=1",  # Ask for pages of 2 MiB: what is larger is mapped anew, but quickly.
    )
)

CACHE = "JAX_COMPILATION_CACHE_DIR"
CACHE_BYTES = 2**30


def prepare() -> None:
    """Set what the user has not set; where that needs it, start this program anew, in the same process.

    To be called before anything else is done, and by the program alone. The allocator's settings
    are for glibc; a compilation cache is kept where the user's cache folder can be written.
    """
    settings = {}
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "shortcut-models"
    if CACHE not in os.environ and _can_write(folder):
        settings |= {CACHE: str(folder), "JAX_COMPILATION_CACHE_MAX_SIZE": str(CACHE_BYTES)}
    os.environ.update(settings)
    if ALLOCATOR not in os.environ and platform.libc_ver()[0] == "glibc":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, ALLOCATOR: KEEP_MEMORY})


def give_back() -> None:
    """Hand the memory that has been freed, and kept, back to the system.

    For the end of compiling, which takes several hundred MiB more than the steps that follow will ask for.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
