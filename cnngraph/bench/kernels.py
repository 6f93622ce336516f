"""`bench-kernels`: each fused kernel against torch's operators and against a copy of its tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cnngraph.bench import machine
from cnngraph.bench.networks import Progress
from cnngraph.bench.processes import Workers
from cnngraph.bench.samples import Samples

MEGABYTES = {"cpu": (0.5, 2.0, 8.0, 32.0, 100.0), "cuda": (16.0, 64.0, 256.0, 1000.0)}
"""The default sizes of the tensors on each device."""
MEMORY_FORMATS = ("channels_last", "contiguous_format")
KernelDtype = Literal["float32", "bfloat16"]
DTYPES: tuple[KernelDtype, ...] = get_args(KernelDtype)


@dataclass(frozen=True)
class Case:
    """A kernel and the tensor that it is measured with."""

    kernel: str
    megabytes: float
    memory_format: str
    dtype: str


@dataclass(frozen=True)
class KernelRow:
    """The time of one kernel on one tensor, forward and backward.

    Attributes:
        case: what was measured.
        least_passes: how often the tensor must at least be read or written.
        shape: the tensor's shape, (N, C, H, W).
        bytes: the tensor's size.
        copy, ours, eager: seconds of a copy of the tensor, of our kernel, and of torch's operators.
    """

    case: Case
    least_passes: int
    shape: tuple[int, ...]
    bytes: int
    copy: Samples
    ours: Samples
    eager: Samples

    @property
    def bandwidth(self) -> float:
        """Bytes per second of a copy, which reads and writes the tensor once each."""
        return 2 * self.bytes / self.copy.median

    @property
    def speedup(self) -> float:
        """Time of torch's operators over ours."""
        return self.eager.over(self.ours)

    @property
    def passes(self) -> float:
        """Our time in passes over the tensor at the bandwidth of a copy."""
        return 2 * self.ours.over(self.copy)

    @property
    def eager_passes(self) -> float:
        """The time of torch's operators in such passes."""
        return 2 * self.eager.over(self.copy)

    @property
    def of_floor(self) -> float:
        """Our passes over the least number of passes."""
        return self.passes / self.least_passes


@dataclass(frozen=True)
class KernelBench:
    """The result of `bench_kernels`."""

    device: str
    rounds: int
    rows: list[KernelRow]
    machine: dict[str, Any]


def cases(
    kernels: Iterable[str], megabytes: Sequence[float], dtypes: Sequence[str] = DTYPES
) -> list[Case]:
    """Every combination of kernel, size, memory format and data type."""
    return [
        Case(kernel, size, memory_format, dtype)
        for kernel in kernels
        for dtype in dtypes
        for memory_format in MEMORY_FORMATS
        for size in megabytes
    ]


def bench_kernels(
    megabytes: Sequence[float] | None = None,
    dtypes: Sequence[KernelDtype] = DTYPES,
    rounds: int = 5,
    seconds: float = 0.02,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress = lambda what, share: None,
) -> KernelBench:
    """Measures the fused kernels in one process, with memory settings.

    A copy, our kernel and torch's operators take turns in every round.

    Args:
        megabytes: approximate sizes of the tensors; None for `MEGABYTES` of the device.
        dtypes: data types of the tensors.
        rounds: number of rounds.
        seconds: least time of a measurement.
        threads: threads of the process; None for torch's default.
        device: `cpu` or `cuda`.
        progress: callback, see `Progress`.

    Raises:
        CnngraphError: there are no compiled kernels, or there is no such device.
    """
    machine.require(device)
    found = machine.describe()
    rows: list[KernelRow] = []
    with Workers(threads) as workers:
        worker = workers.start("kernels")
        progress("starting", 0)
        found |= worker.ask("prepare_kernels", threads=threads, device=device)
        least_passes: dict[str, int] = found.pop("least_passes")
        sizes = MEGABYTES[device] if megabytes is None else megabytes
        every = cases(least_passes, sizes, dtypes)
        others = machine.OtherWork([worker.process_id])
        for index, case in enumerate(every):
            name = f"{case.kernel}, {case.megabytes:g} MB, {case.dtype}, {case.memory_format}"
            progress(name, index / len(every))
            answer = worker.ask("case", case=vars(case), rounds=rounds, seconds=seconds)
            samples = {name: Samples(tuple(answer[name])) for name in ("copy", "ours", "eager")}
            shape, least = tuple(answer["shape"]), least_passes[case.kernel]
            rows.append(KernelRow(case, least, shape, answer["bytes"], **samples))
        found["other_work"] = others.share
    return KernelBench(device, rounds, rows, found)
