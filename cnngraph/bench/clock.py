"""How long something takes."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter


def time_of(run: Callable[[], object], seconds: float) -> float:
    """The median time of as many runs as fill `seconds`, at least one."""
    times: list[float] = []
    while sum(times) < seconds or not times:
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return sorted(times)[len(times) // 2]
