"""Peaks of memory: of the tensors that torch allocates, and of this process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_of_tensors(step: Callable[[], object]) -> int:
    """How many bytes more than at its start `step` has allocated at its peak, from the allocator's own reports.

    Every tensor counts, those of autograd and of operators' inside included; what a library allocates for itself does
    not. Nothing that was there before may be freed: that is not reported.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    kineto: Any = recorded.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    reports = [event for event in kineto.events() if event.name() == "[memory]"]
    reports.sort(key=lambda event: event.start_ns())  # sort is stable: those of one instant stay as they came
    return max(accumulate((event.nbytes() for event in reports), initial=0))


def restart_peak_of_process() -> None:
    """Counts the process's peak from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_of_process() -> int | None:
    """The most memory this process has had, in bytes."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None
