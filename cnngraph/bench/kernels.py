"""`bench-kernels`: each room against torch's own operators, and against what a copy of its tensor takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnngraph.bench import machine
from cnngraph.bench.figures import Figure
from cnngraph.bench.kernel_cases import MEGABYTES, Case, cases
from cnngraph.bench.networks import Progress
from cnngraph.bench.processes import Workers


@dataclass(frozen=True)
class KernelRow:
    """One room on one tensor, forward and backward."""

    case: Case
    least_passes: int
    shape: tuple[int, ...]
    bytes: int
    copy: Figure
    ours: Figure
    eager: Figure

    @property
    def bandwidth(self) -> float:
        """Bytes a second that a copy moves; it reads and writes, so it is two passes."""
        return 2 * self.bytes / self.copy.median

    @property
    def speedup(self) -> float:
        return self.eager.over(self.ours)

    @property
    def passes(self) -> float:
        """How many passes over the tensor, at a copy's bandwidth, ours takes as long as."""
        return 2 * self.ours.over(self.copy)

    @property
    def eager_passes(self) -> float:
        return 2 * self.eager.over(self.copy)

    @property
    def of_floor(self) -> float:
        """Ours over the passes that it must take."""
        return self.passes / self.least_passes


@dataclass(frozen=True)
class KernelBench:
    device: str
    rounds: int
    rows: list[KernelRow]
    machine: dict[str, Any]


def bench_kernels(
    megabytes: Sequence[float] | None = None,
    rounds: int = 5,
    seconds: float = 0.02,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress = lambda what, share: None,
) -> KernelBench:
    """Measures rooms in one process with memory settings: a copy, ours and torch's take turns in every round.

    The tensors have about so many megabytes; None takes those of the device. Raises `CnngraphError` where there are no
    compiled kernels, or no such device.
    """
    machine.require(device)
    found = machine.describe()
    rows = []
    with Workers(threads) as workers:
        worker = workers.start("kernels")
        progress("starting", 0)
        found |= worker.ask("prepare_kernels", threads=threads, device=device)
        rooms = found.pop("rooms")
        every = cases(rooms, MEGABYTES[device] if megabytes is None else megabytes)
        others = machine.OtherWork([worker.process_id])
        for index, case in enumerate(every):
            progress(f"{case.room}, {case.megabytes:g} MB, {case.dtype}, {case.memory_format}", index / len(every))
            answer = worker.ask("case", case=vars(case), rounds=rounds, seconds=seconds)
            figures = {name: Figure(tuple(answer[name])) for name in ("copy", "ours", "eager")}
            rows.append(KernelRow(case, rooms[case.room], tuple(answer["shape"]), answer["bytes"], **figures))
        found["other_work"] = others.share
    return KernelBench(device, rounds, rows, found)
