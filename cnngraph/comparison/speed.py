"""Images per second of networks on this machine."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from cnngraph.bench.processes import Workers
from cnngraph.bench.variants import Work
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph

_VARIANT = "inference"
_ROUNDS = 3
_SECONDS = 0.5


class Speed(NamedTuple):
    """The median of three measurements, and the number of threads."""

    images_per_second: float
    threads: int


def measure_speed(work: Work, graph: Graph) -> Speed:
    """Times `for_inference()` of a network, in a process of its own.

    Raises `CnngraphError` if the network has several inputs, or cannot be run.
    """
    if len(graph.inputs) > 1:
        raise CnngraphError(f"{work.spec} has several inputs: its speed is not measured")
    with Workers(None) as workers:
        worker = workers.start(_VARIANT)
        prepared = worker.ask("prepare_variant", variant=_VARIANT, work=work.to_json())
        seconds = [worker.ask("measure", seconds=_SECONDS) for _ in range(_ROUNDS)]
    return Speed(work.batch_size / median(seconds), prepared["machine"]["threads"])
