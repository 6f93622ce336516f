"""What the C library offers against page faults: asked for by `tune_memory`, never set by an import.

Every large tensor that torch frees goes back to the system, and every new one is mapped and zeroed page by page again. With
these settings freed memory stays in the process, and comes in pages of 2 MiB where the system has them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_MADV_HUGEPAGE = 14
_LARGEST = 2**31 - 1
"""mallopt takes an int."""
_TOP_PAD = 64 * 2**20
_BLOCK = 2**30
"""Less than the largest threshold, so that it comes from the heap."""
_MOST_RESERVED = 64 * 2**30

_said: str | None = None


def tune_memory() -> str:
    """Makes this process keep freed memory, in huge pages where there are any; for its whole life, once.

    The process then holds on to the most it ever needed. Returns one line that says what was set, or why nothing was.
    """
    global _said
    if _said is None:
        _said = _tune()
    return _said


def _tune() -> str:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return f"memory settings: none, they need Linux with glibc (this is {_system()})"
    libc = ctypes.CDLL(None)
    return f"memory settings: {'; '.join([_keep_freed_memory(libc), _huge_pages(libc)])}"


def _keep_freed_memory(libc: Any) -> str:
    kept = libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST) or libc.mallopt(_M_MMAP_MAX, 0)  # the first since glibc 2.35
    untrimmed = libc.mallopt(_M_TRIM_THRESHOLD, -1)
    padded = libc.mallopt(_M_TOP_PAD, _TOP_PAD)
    return "freed memory is kept (mallopt)" if kept and untrimmed and padded else "mallopt refused"


def _huge_pages(libc: Any) -> str:
    """Advises the system to back the heap with huge pages, where it leaves that to advice.

    The heap must be there to be advised of, and what it grows by later is not: so it is grown ahead, in addresses alone,
    by as much as half of the machine's memory.
    """
    choice = _system_choice()
    if choice == "always":
        return "huge pages are always on"
    if choice != "madvise":
        return "no huge pages (the system has none, or never gives them)"
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = os.sysconf("SC_PAGE_SIZE")
    blocks: list[int] = []
    advised = 0
    for _ in range(max(1, min(os.sysconf("SC_PHYS_PAGES") * page // 2, _MOST_RESERVED) // _BLOCK)):
        block = libc.malloc(_BLOCK)
        if block is None:
            break
        blocks.append(block)
        start = block & -page
        advised += _BLOCK * (libc.madvise(start, block + _BLOCK - start, _MADV_HUGEPAGE) == 0)
    for block in blocks:
        libc.free(block)  # back to the heap, which keeps its addresses and what was advised of them
    return f"huge pages for {advised // 2**30} GiB of heap (madvise)" if advised else "no huge pages (madvise refused)"


def _system_choice() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""
    return text.partition("[")[2].partition("]")[0]


def _system() -> str:
    library = " ".join(filter(None, platform.libc_ver()))
    return " with ".join(filter(None, [platform.system() or sys.platform, library]))
