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
    memory: list[float] = []
    files: list[int] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(STEPS // PERIOD):
            start = time.process_time()
            for _ in range(PERIOD):
                training.step()
            seconds.append((time.process_time() - start) / PERIOD)
            use(training, Path(folder) / "net.pt")
            memory.append(resident())
            files.append(len(os.listdir("/proc/self/fd")))
    tenth = len(memory) // 10
    first, last = memory[tenth : 2 * tenth], memory[-tenth:]
    early, late = (statistics.median(part) for part in (seconds[:tenth], seconds[-tenth:]))
    print(f"memory: {max(first):.1f} MB after {STEPS // 10} steps, {max(last):.1f} MB at the end")
    print(f"open files: {files[0]} and {files[-1]}")
    print(f"processor time of a step: {1e3 * early:.2f} ms and {1e3 * late:.2f} ms")
    assert max(last) < max(first) + MEGABYTES
    assert files[-1] == files[0]
    assert late < 1.5 * early


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
