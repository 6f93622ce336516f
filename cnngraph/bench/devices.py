"""How to measure on a device: its settings, the clock, and peaks of memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path
from statistics import median_high
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from cnngraph.allocator import tune_memory

Run = Callable[[], object]


def device_of(name: str, threads: int | None) -> Cpu | Cuda:
    """`cpu` or `cuda`, ready to be measured on.

    Args:
        name: the device.
        threads: threads of this process; None for torch's default.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return Cuda() if name == "cuda" else Cpu()


class Cpu:
    """The processor."""

    name = "cpu"

    def describe(self) -> dict[str, Any]:
        """The facts about the machine that only this process knows."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }

    def tune_memory(self) -> dict[str, Any] | None:
        """Calls `allocator.tune_memory` if that affects this device, and returns what was set."""
        return asdict(tune_memory())

    def time_of(self, run: Run, seconds: float) -> float:
        """The median time of as many runs as fill `seconds`, at least one."""
        times: list[float] = []
        while sum(times) < seconds or not times:
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
        return median_high(times)

    time_alone = time_of

    def restart_peaks(self) -> None:
        """Starts counting the process's peak."""
        restart_peak_of_process()

    def peak_of_process(self) -> int | None:
        """The process's peak in bytes since `restart_peaks`."""
        return peak_of_process()

    def peak_of_tensors(self, step: Run, held: int) -> int:
        """The peak in bytes during `step`, which starts and ends with `held` bytes."""
        return held + peak_of_tensors(step)

    def rest(self) -> None:
        """Called before another process is measured."""


class Cuda:
    """The first visible GPU, with the settings that are fastest for every variant."""

    name = "cuda"

    def __init__(self) -> None:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TensorFloat32, as in cuDNN's convolutions

    def describe(self) -> dict[str, Any]:
        """The facts about the machine that only this process knows."""
        cudnn = torch.backends.cudnn.version() or 0
        return {
            **Cpu().describe(),
            "gpu": torch.cuda.get_device_name(),
            "gpu_memory_bytes": torch.cuda.get_device_properties().total_memory,
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}",
        }

    def tune_memory(self) -> dict[str, Any] | None:
        """The C library's settings do not affect a GPU: sets nothing."""
        return None

    def time_of(self, run: Run, seconds: float) -> float:
        """The median time of as many runs as fill `seconds`, one after another as in training.

        Nothing waits for the GPU in between. If the GPU waits for the processor, that counts.
        """
        return median_high(_times(run, _count(run, seconds)))

    def time_alone(self, run: Run, seconds: float) -> float:
        """The same for the GPU alone: runs are queued while it is busy, to hide their launches."""
        count = min(_count(run, seconds), _MAX_QUEUED)
        start = perf_counter()
        _times(run, count)
        return median_high(_times(run, count, busy=perf_counter() - start))

    def restart_peaks(self) -> None:
        """Frees cached memory and starts counting the peaks."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_of_process(self) -> int | None:
        """The most GPU memory in bytes that torch has reserved since `restart_peaks`."""
        return torch.cuda.max_memory_reserved()

    def peak_of_tensors(self, step: Run, held: int) -> int:
        """The peak in bytes of all steps since `restart_peaks`.

        A captured step allocates when it is captured, not when it is replayed.
        """
        return torch.cuda.max_memory_allocated()

    def rest(self) -> None:
        """Releases cached GPU memory, for the other processes."""
        torch.cuda.empty_cache()


_MAX_QUEUED = 16
"""CUDA accepts about a thousand launches before it makes the processor wait."""

_MAX_CLOCK = 2e9
"""Cycles per second that no GPU exceeds by much."""


def _count(run: Run, seconds: float) -> int:
    """How many runs fill `seconds`, from the time of one, which also wakes the GPU."""
    return max(1, ceil(seconds / _times(run, 1)[0]))


def _times(run: Run, count: int, busy: float = 0.0) -> list[float]:
    """Seconds of each of `count` runs on the GPU, which is first kept busy for `busy` seconds."""
    if busy:
        torch.cuda._sleep(int(busy * _MAX_CLOCK))  # pyright: ignore[reportPrivateUsage]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    events[-1].synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.split()[0]
    return None


def captured(step: Callable[[], Any], held: Callable[[], object]) -> Callable[[], Any]:
    """`step` as one CUDA graph; a call replays it and returns its result.

    Args:
        step: has run at least once.
        held: frees what the step frees first, because the graph must not own, and overwrite,
            tensors that were allocated outside it.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    held()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = step()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def peak_of_tensors(step: Run) -> int:
    """The peak in bytes, over what was allocated before, of the CPU tensors during `step`.

    Counts everything that torch's allocator reports, including tensors of autograd and those inside
    operators, but not what libraries allocate themselves. `step` must not free tensors that were
    allocated before it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    kineto: Any = recorded.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    reports = [event for event in kineto.events() if event.name() == "[memory]"]
    reports.sort(key=lambda event: event.start_ns())  # stable: keeps the order within an instant
    return max(accumulate((event.nbytes() for event in reports), initial=0))


def restart_peak_of_process() -> None:
    """Starts counting the process's peak, if the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_of_process() -> int | None:
    """The most memory in bytes that this process has had; None if the system does not report it."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return int(found[1]) * 1024
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None
