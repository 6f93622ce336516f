"""Settings of the C library that avoid page faults. `tune_memory` makes them; no import does.

By default every large tensor that torch frees goes back to the system, and every large allocation
maps and zeroes its pages again. With these settings freed memory stays in the process, in pages of
2 MiB if the system has them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_MADV_HUGEPAGE = 14
_MAX_INT = 2**31 - 1
_TOP_PAD = 64 * 2**20
_BLOCK = 2**30
"""Less than the largest threshold, so that a block comes from the heap."""
_MAX_RESERVED = 64 * 2**30

HugePages = Literal["always", "advised", "none", "failed"]
"""Whether the heap has huge pages: by the system's choice, on request, not at all, or because the
request failed."""


@dataclass(frozen=True)
class MemorySettings:
    """What `tune_memory` set for this process. `str` describes it in one line.

    Attributes:
        supported: whether the system has these settings: Linux with glibc does.
        keeps_freed_memory: whether malloc keeps freed memory.
        huge_pages: whether the heap has huge pages.
        advised_bytes: addresses for which huge pages were requested.
    """

    supported: bool
    keeps_freed_memory: bool = False
    huge_pages: HugePages = "none"
    advised_bytes: int = 0

    def __str__(self) -> str:
        if not self.supported:
            return f"memory settings: none, they need Linux with glibc (this is {_system()})"
        kept = "freed memory is kept (mallopt)" if self.keeps_freed_memory else "mallopt failed"
        pages = {
            "always": "huge pages are always on",
            "advised": f"huge pages for {self.advised_bytes // 2**30} GiB of heap (madvise)",
            "none": "no huge pages (the system has none, or never uses them)",
            "failed": "no huge pages (madvise failed)",
        }[self.huge_pages]
        return f"memory settings: {kept}; {pages}"


_settings: MemorySettings | None = None


def tune_memory() -> MemorySettings:
    """Makes this process keep freed memory, in huge pages if possible, until it ends.

    The process then keeps the most memory that it has ever needed. Further calls change nothing.
    """
    global _settings
    if _settings is None:
        _settings = _tune()
    return _settings


def _tune() -> MemorySettings:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return MemorySettings(supported=False)
    libc = ctypes.CDLL(None)
    return MemorySettings(True, _keep_freed_memory(libc), *_huge_pages(libc))


def _keep_freed_memory(libc: Any) -> bool:
    # Before glibc 2.35, the threshold is limited.
    kept = libc.mallopt(_M_MMAP_THRESHOLD, _MAX_INT) or libc.mallopt(_M_MMAP_MAX, 0)
    untrimmed = libc.mallopt(_M_TRIM_THRESHOLD, -1)
    padded = libc.mallopt(_M_TOP_PAD, _TOP_PAD)
    return bool(kept and untrimmed and padded)


def _huge_pages(libc: Any) -> tuple[HugePages, int]:
    """Asks for huge pages for the heap, if the system leaves the choice to the process.

    The request covers existing addresses only. Hence the heap first grows, in addresses but not in
    memory, by half of the machine's memory.

    Returns:
        Whether there are huge pages, and the bytes of addresses for which they were requested.
    """
    choice = _system_choice()
    if choice == "always":
        return "always", 0
    if choice != "madvise":
        return "none", 0
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = os.sysconf("SC_PAGE_SIZE")
    reserved = min(os.sysconf("SC_PHYS_PAGES") * page // 2, _MAX_RESERVED)
    blocks: list[int] = []
    advised = 0
    for _ in range(max(1, reserved // _BLOCK)):
        block = libc.malloc(_BLOCK)
        if block is None:
            break
        blocks.append(block)
        start = block & -page
        size = block + _BLOCK - start
        advised += _BLOCK * (libc.madvise(start, size, _MADV_HUGEPAGE) == 0)
    for block in blocks:
        libc.free(block)  # to the heap, which keeps the addresses and their advice
    return ("advised", advised) if advised else ("failed", 0)


def _system_choice() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""
    return text.partition("[")[2].partition("]")[0]


def _system() -> str:
    library = " ".join(filter(None, platform.libc_ver()))
    return " with ".join(filter(None, [platform.system() or sys.platform, library]))
