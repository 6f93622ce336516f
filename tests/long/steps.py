"""10,000 training steps, with a save, a check and an evaluation after each hundred.

The memory of the process, its open files and the processor time of a step must not grow.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import cnngraph

from .networks import SPEC, Training

STEPS, PERIOD = 10_000, 100
MEGABYTES = 4
"""Memory that may be taken between the first tenth of the run and its end."""


def resident() -> float:
    """The memory of this process, in megabytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    torch.manual_seed(0)
    training = Training()
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, STEPS // PERIOD + 1):
            start = time.process_time()
            for _ in range(PERIOD):
                training.step()
            milliseconds = 1e3 * (time.process_time() - start) / PERIOD
            use(training, Path(folder) / "net.pt")
            seen.append((resident(), len(os.listdir("/proc/self/fd")), milliseconds))
            if number * PERIOD % (STEPS // 10) == 0:
                last = seen[-(STEPS // PERIOD // 10) :]
                print(f"{number * PERIOD:,} steps: {summary(last)}", flush=True)
    tenth = len(seen) // 10
    (early, files, fast), (late, more_files, slow) = (
        summarize(part) for part in (seen[tenth : 2 * tenth], seen[-tenth:])
    )
    assert late < early + MEGABYTES
    assert files == more_files
    assert slow < 1.5 * fast


Seen = tuple[float, int, float]
"""The memory in megabytes, the number of open files, and the milliseconds of a step."""


def summarize(seen: list[Seen]) -> Seen:
    memory, files, milliseconds = zip(*seen, strict=True)
    return max(memory), max(files), statistics.median(milliseconds)


def summary(seen: list[Seen]) -> str:
    memory, files, milliseconds = summarize(seen)
    return f"{memory:.1f} MB, {files} open files, {milliseconds:.2f} ms of processor time a step"


def use(training: Training, path: Path) -> None:
    """What happens beside the steps: all that may keep something."""
    network = training.network
    cnngraph.save_compiled(network, path)
    cnngraph.load_compiled(path)
    assert cnngraph.check(SPEC).ok
    with torch.no_grad():
        network.eval()
        network.for_inference()(training.batch()[0])
    network.train()
