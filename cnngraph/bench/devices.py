"""Where a step runs, and what follows from that for measuring it: settings, the clock, and peaks of memory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from math import ceil
from time import perf_counter
from typing import Any

import torch

from cnngraph.allocator import tune_memory
from cnngraph.bench.memory import peak_of_process, peak_of_tensors, restart_peak_of_process

Run = Callable[[], object]


def device_of(name: str, threads: int | None) -> Cpu | Cuda:
    """`cpu` or `cuda`, ready to be measured on. `threads` of this process; None leaves them to torch."""
    if threads is not None:
        torch.set_num_threads(threads)
    return Cuda() if name == "cuda" else Cpu()


class Cpu:
    """The processor."""

    name = "cpu"

    def describe(self) -> dict[str, Any]:
        """What a reader of the figures must know, and only this process can tell."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }

    def tune_memory(self) -> str | None:
        """Sets `allocator.tune_memory`, where that is of use, and says what was set."""
        return tune_memory()

    def time_of(self, run: Run, seconds: float) -> float:
        """The median time of as many runs as fill `seconds`, at least one."""
        times: list[float] = []
        while sum(times) < seconds or not times:
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
        return _middle(times)

    time_alone = time_of

    def restart_peaks(self) -> None:
        restart_peak_of_process()

    def peak_of_process(self) -> int | None:
        """Bytes that the process has had at most since `restart_peaks`."""
        return peak_of_process()

    def peak_of_tensors(self, step: Run, held: int) -> int:
        """Bytes at the peak of `step`, which finds `held` bytes and leaves them."""
        return held + peak_of_tensors(step)

    def rest(self) -> None:
        """Called when others are measured next."""


class Cuda:
    """The first GPU that CUDA shows, with the settings that are the fastest for everyone."""

    name = "cuda"

    def __init__(self) -> None:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TensorFloat32, as cuDNN's convolutions use by themselves

    def describe(self) -> dict[str, Any]:
        cudnn = torch.backends.cudnn.version() or 0
        return {
            **Cpu().describe(),
            "gpu": torch.cuda.get_device_name(),
            "gpu_memory_bytes": torch.cuda.get_device_properties().total_memory,
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}",
        }

    def tune_memory(self) -> str | None:
        return None

    def time_of(self, run: Run, seconds: float) -> float:
        """The median time of as many runs as fill `seconds`, one after the other as training runs its steps: nothing waits
        for the GPU in between, and where the GPU waits for the processor that counts.
        """
        return _middle(_times(run, _count(run, seconds)))

    def time_alone(self, run: Run, seconds: float) -> float:
        """The same of the GPU alone: runs are queued while it is kept busy, so that launching them takes none of its time."""
        count = min(_count(run, seconds), _QUEUED)
        start = perf_counter()
        _times(run, count)
        return _middle(_times(run, count, busy=perf_counter() - start))

    def restart_peaks(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_of_process(self) -> int | None:
        """Bytes that torch has had of the GPU at most since `restart_peaks`."""
        return torch.cuda.max_memory_reserved()

    def peak_of_tensors(self, step: Run, held: int) -> int:
        """Of all steps since `restart_peaks`: a captured step allocates when it is captured, not when it is replayed."""
        return torch.cuda.max_memory_allocated()

    def rest(self) -> None:
        """Gives the GPU's memory to the others, but for what is held and what CUDA graphs own."""
        torch.cuda.empty_cache()


_QUEUED = 16
"""Runs that are queued at most: CUDA takes about a thousand launches before it lets the processor wait."""

_FASTEST_CLOCK = 2e9
"""Cycles a second that no GPU exceeds by much."""


def _count(run: Run, seconds: float) -> int:
    """How many runs fill `seconds`, by the time of one, which also wakes the GPU."""
    return max(1, ceil(seconds / _times(run, 1)[0]))


def _times(run: Run, count: int, busy: float = 0.0) -> list[float]:
    """The seconds between the ends of `count` runs on the GPU, which is first kept busy for so many seconds."""
    if busy:
        torch.cuda._sleep(int(busy * _FASTEST_CLOCK))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    events[-1].synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]


def _middle(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    return None


def captured(step: Callable[[], Any], held: Callable[[], object]) -> Callable[[], Any]:
    """`step` as one CUDA graph, whose replay has the result of a call. The step must have run before.

    `held` lets go of what the step frees first: the graph must not own, and overwrite, what was made outside it.
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
