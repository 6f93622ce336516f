"""`bench`: the step of a network in every variant; each round measures every variant once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnngraph.bench import machine
from cnngraph.bench.arithmetic import flops_of, graph_of, macs_of
from cnngraph.bench.processes import Worker, WorkerError, Workers
from cnngraph.bench.samples import Samples
from cnngraph.bench.variants import OURS, Variant, Work, always, variant_of

FLOOR = "floor"

Progress = Callable[[str, float], object]
"""Callback `(activity, share)`: the current activity, and the finished share of all work."""


@dataclass
class Row:
    """The result of one variant.

    Attributes:
        variant: the variant.
        error: why some or all results are missing.
        seconds: time of a step; None if it never ran.
        ratio: its time over ours, the median of the ratios in each round.
        result: the first step's loss, or the mean magnitude of the output in evaluation. Variants
            that compute the same have the same result.
        memory_settings: the settings that `allocator.tune_memory` reported.
        prepare_seconds: time to build the network and run the first steps.
        tensor_bytes: peak of torch's tensors in a step.
        held_bytes: the part of it that outlives the step.
        process_bytes: the process's peak during the measurement; on a GPU, of the memory that torch
            reserved there.
    """

    variant: Variant
    error: str | None = None
    seconds: Samples | None = None
    ratio: float | None = None
    result: float | None = None
    memory_settings: dict[str, Any] | None = None
    prepare_seconds: float | None = None
    tensor_bytes: int | None = None
    held_bytes: int | None = None
    process_bytes: int | None = None


@dataclass
class LayerTime:
    """A convolution or linear layer timed alone, forward and in training backward.

    Attributes:
        path: the first such layer of the network.
        kind: its op.
        count: how many equal layers the network has.
        flops: operations of one.
        seconds: time of one.
    """

    path: str
    kind: str
    count: int
    flops: int
    seconds: Samples


@dataclass
class FloorResult:
    """Two estimates of the least time of a step: from the peak rate, and from single layers.

    Attributes:
        flops: operations of the convolutions and linear layers in a step.
        peak: the operations whose rate is the machine's peak.
        rate: the peak rate in FLOP/s.
        layers: the distinct layers, each timed alone.
        error: why the results are missing.
    """

    flops: int
    peak: str = ""
    rate: Samples | None = None
    layers: list[LayerTime] = field(default_factory=list["LayerTime"])
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """Time of the step's operations at the peak rate."""
        return self.flops / self.rate.median if self.rate else None

    @property
    def layers_seconds(self) -> float | None:
        """Sum over all layers of the time that each takes alone."""
        if not self.layers:
            return None
        return sum(layer.count * layer.seconds.median for layer in self.layers)


@dataclass
class NetworkBench:
    """The result of `bench_network`; our variant is the first row."""

    work: Work
    name: str
    rounds: int
    rows: list[Row]
    floor: FloorResult
    machine: dict[str, Any]

    @property
    def ours(self) -> Row:
        """The row of our variant."""
        return self.rows[0]


def bench_network(
    work: Work,
    against: Sequence[str],
    rounds: int = 7,
    seconds: float = 0.3,
    progress: Progress = lambda what, share: None,
) -> NetworkBench:
    """Measures a step in the fused backend and in its peers, each in a process of its own.

    In every round each variant runs one step, or as many as fill `seconds`. The order rotates from
    round to round. An error of a variant is reported in its row.

    Args:
        work: the step.
        against: names of the peers.
        rounds: number of rounds.
        seconds: least time of a measurement.
        progress: callback, see `Progress`.

    Raises:
        CnngraphError: there is no such device, or the network does not accept this input;
            `SpecError` if the spec is invalid.
    """
    machine.require(work.device)
    graph = graph_of(work)
    names = dict.fromkeys([*always(work.device), *against])
    rows = [Row(variant_of(name)) for name in names]
    floor = FloorResult(flops_of(macs_of(graph, work), work))
    found = machine.describe()
    subjects: dict[str, Row | FloorResult] = {row.variant.name: row for row in rows}
    subjects[FLOOR] = floor
    steps = len(subjects) * (rounds + 1)
    with Workers(work.threads) as workers:
        running: dict[str, Worker] = {}
        for place, (name, subject) in enumerate(subjects.items()):
            progress(f"preparing {name}", place / steps)
            try:
                running[name] = _prepared(workers, subject, work, found)
            except WorkerError as error:
                subject.error = str(error)
        others = machine.OtherWork(worker.process_id for worker in running.values())
        answers: dict[str, list[Any]] = {name: [] for name in running}
        for index in range(rounds):
            for place, name in enumerate(_order(list(running), index)):
                done = len(subjects) * (index + 1) + place
                progress(f"round {index + 1} of {rounds}: {name}", done / steps)
                try:
                    answers[name].append(running[name].ask("measure", seconds=seconds))
                except WorkerError as error:
                    subjects[name].error = str(error)
                    running.pop(name).end()
                    del answers[name]
        found["other_work"] = others.share
        _fill(rows, floor, answers)
        for row in rows:
            if worker := running.get(row.variant.name):
                progress(f"measuring memory of {row.variant.name}", 1.0)
                _measure_memory(worker, row)
    return NetworkBench(work, graph.name, rounds, rows, floor, found)


def _prepared(
    workers: Workers, subject: Row | FloorResult, work: Work, found: dict[str, Any]
) -> Worker:
    """Starts the worker of a variant or of the floor."""
    if isinstance(subject, FloorResult):
        worker, answer = _asked(workers, FLOOR, "prepare_floor", work=work.to_json())
        subject.peak = answer["peak"]
        subject.layers = [LayerTime(**layer, seconds=Samples(())) for layer in answer["layers"]]
        return worker
    variant = subject.variant
    if work.mode not in variant.modes:
        raise WorkerError(f"runs in {' and '.join(variant.modes)} mode only")
    arguments = {"variant": variant.name, "work": work.to_json()}
    worker, answer = _asked(workers, variant.name, "prepare_variant", **arguments)
    subject.result, subject.memory_settings = answer["result"], answer["memory_settings"]
    subject.prepare_seconds = answer["seconds"]
    found |= answer["machine"]
    return worker


def _asked(workers: Workers, name: str, request: str, **arguments: Any) -> tuple[Worker, Any]:
    worker = workers.start(name)
    try:
        return worker, worker.ask(request, **arguments)
    except WorkerError:
        worker.end()
        raise


def _order(names: list[str], index: int) -> list[str]:
    """Another variant begins each round; the floor comes last."""
    variants = [name for name in names if name != FLOOR]
    start = index % max(1, len(variants))
    return [*variants[start:], *variants[:start], *names[len(variants) :]]


def _fill(rows: list[Row], floor: FloorResult, answers: dict[str, list[Any]]) -> None:
    floors = answers.pop(FLOOR, [])
    if floors:
        floor.rate = Samples(tuple(item["rate"] for item in floors))
    else:
        floor.layers = []
    for index, layer in enumerate(floor.layers):
        layer.seconds = Samples(tuple(item["layers"][index] for item in floors))
    samples = {name: Samples(tuple(values)) for name, values in answers.items()}
    for row in rows:
        row.seconds = samples.get(row.variant.name)
        if row.seconds is not None and OURS in samples:
            row.ratio = row.seconds.over(samples[OURS])


def _measure_memory(worker: Worker, row: Row) -> None:
    try:
        answer = worker.ask("memory")
    except WorkerError as error:
        row.error = f"its memory could not be measured: {error}"
        return
    row.tensor_bytes, row.held_bytes = answer["tensor_bytes"], answer["held_bytes"]
    row.process_bytes = answer["process_bytes"]
