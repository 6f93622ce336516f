"""The machine that a benchmark ran on, and how busy other processes kept it meanwhile."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cnngraph.errors import CnngraphError


def describe() -> dict[str, Any]:
    """Processor, memory, system and Python; what the system does not report is None."""
    return {
        "cpu": _cpu() or platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def require(device: str) -> None:
    """Raises `CnngraphError` if `device` is `cuda` and there is no GPU, or no kernels for it."""
    if device == "cpu":
        return
    import torch

    from cnngraph import kernels

    if not torch.cuda.is_available():
        why = "it finds none" if torch.version.cuda else "it was built without CUDA"
        raise CnngraphError(
            f"torch {torch.__version__} has no GPU here: {why}. If `nvidia-smi` lists one, install"
            " a torch for CUDA (https://pytorch.org/get-started) and unset CUDA_VISIBLE_DEVICES"
        )
    if not kernels.build_info().get("cuda"):
        raise CnngraphError(
            "the compiled kernels are missing, or built for the CPU only. Build them with nvcc, in"
            " a clone: FORCE_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps ."
        )


def _cpu() -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found and found[1].strip()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


class OtherWork:
    """The share of the machine's processor time that other processes took since it was created.

    Read from Linux' /proc; on other systems `share` is None.
    """

    def __init__(self, processes: Iterable[int]) -> None:
        self._processes = list(processes)
        self._start = self._now()

    @property
    def share(self) -> float | None:
        """Between 0 and 1, without idle time and the given processes."""
        start, now = self._start, self._now()
        if start is None or now is None or now[0] <= start[0]:
            return None
        total, busy, own = (after - before for before, after in zip(start, now, strict=True))
        return min(1.0, max(0.0, (busy - own) / total))

    def _now(self) -> tuple[int, int, int] | None:
        """Clock ticks so far: all, the busy ones, and those of the processes."""
        line = _read("/proc/stat").partition("\n")[0].split()
        if len(line) < 9 or line[0] != "cpu":
            return None
        ticks = [int(item) for item in line[1:9]]
        idle = ticks[3] + ticks[4]
        return sum(ticks), sum(ticks) - idle, sum(map(_ticks_of, self._processes))


def _ticks_of(process: int) -> int:
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
