"""How the program keeps memory and compiled programs: settled before it imports JAX."""

import ctypes
import os
import platform
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
"""With this, or a variable that begins with MALLOC_, a user sets the allocator up; then nothing is changed."""

# XLA's CPU backend asks for temporary memory at every execution. What is freed, glibc by default hands back
# to the system if it is larger than 32 MiB; the system zeroes and maps it again for the next step, 4 KiB at a time: a
# fifth to a quarter of the step of two blocks of S/2. So all of it is kept. `param`s as in glibc's malloc.h.
KEEP_MEMORY = {
    -1: -1,  # M_TRIM_THRESHOLD: never shrink the heap.
    -2: 1 << 26,  # M_TOP_PAD: grow it by 64 MiB at a time.
    -4: 0,  # M_MMAP_MAX: large blocks are of the heap too; what is mapped by itself is unmapped when freed.
    -8: 1,  # M_ARENA_MAX: one heap for all threads; those of other threads hold no block above 64 MiB.
}

HEAP = 1 << 31
HUGE_PAGE, MADV_HUGEPAGE = 1 << 21, 14

CACHE = "JAX_COMPILATION_CACHE_DIR"
CACHE_BYTES = 2**30


def prepare() -> None:
    """Set what the user has not set, for this process: the allocator, and where compiled programs are kept.

    To be called by the program alone, before it imports JAX or starts a thread. A compilation cache is kept where
    the user's cache folder can be written.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "shortcut-models"
    if CACHE not in os.environ and _can_write(folder):
        os.environ.update({CACHE: str(folder), "JAX_COMPILATION_CACHE_MAX_SIZE": str(CACHE_BYTES)})
    if not any(name == TUNABLES or name.startswith("MALLOC_") for name in os.environ):
        keep_memory()


def keep_memory() -> None:
    """Have glibc's allocator keep what is freed; another C library is left as it is."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for param, value in KEEP_MEMORY.items():
        libc.mallopt(param, value)
    _ask_for_huge_pages(libc)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Let the heap's first HEAP bytes come in huge pages, which are mapped and looked up more quickly.

    The heap grows to that size, which takes no memory until it is written to, and stays so, since it is never
    trimmed. Where the system refuses, the heap is what it was.
    """
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    first = -(-libc.sbrk(0) // HUGE_PAGE) * HUGE_PAGE
    libc.free(libc.malloc(HEAP))
    if (length := libc.sbrk(0) - first) > 0:
        libc.madvise(first, length, MADV_HUGEPAGE)


def start_processes() -> None:
    """Join the other processes of a run, if JAX_COORDINATOR_ADDRESS says that there are any.

    JAX_NUM_PROCESSES and JAX_PROCESS_ID complete it; on a cluster that JAX knows, they may be absent.
    """
    if "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return
    import jax

    if not jax.distributed.is_initialized():
        count, own = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"], int(count) if count else None, int(own) if own else None
        )


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
