"""`bench`: a network's step, as every contender runs it, in rounds that take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnngraph.bench import machine
from cnngraph.bench.arithmetic import flops_of, graph_of, macs_of
from cnngraph.bench.figures import Figure
from cnngraph.bench.processes import Worker, WorkerError, Workers
from cnngraph.bench.variants import OURS, Contender, Work, always, contender_of

Progress = Callable[[str, float], object]
"""Is told what is being done, and which share of everything is behind."""


@dataclass
class Row:
    """What was found of one contender.

    Attributes:
        error: why it has no figures, or lacks some.
        seconds: a step, once a round; None where it never ran.
        ratio: its step over ours, the median of the rounds' ratios.
        result: the first step's loss, or what evaluation results in on average: the same for all that compute the same.
        tensor_bytes: the peak of torch's tensors in a step, `held_bytes` that outlive it included.
        process_bytes: the process's peak while it was measured; on a GPU, of what its torch had of the GPU's memory.
    """

    contender: Contender
    error: str | None = None
    seconds: Figure | None = None
    ratio: float | None = None
    result: float | None = None
    memory_settings: str | None = None
    prepare_seconds: float | None = None
    tensor_bytes: int | None = None
    held_bytes: int | None = None
    process_bytes: int | None = None


@dataclass
class LayerAlone:
    """A convolution or linear layer timed alone: once a round, forward, and in training backward."""

    path: str
    kind: str
    count: int
    flops: int
    seconds: Figure


@dataclass
class FloorFound:
    """Attributes:
    flops: of the convolutions and linear layers in a step.
    peak: whose rate is the machine's.
    rate: FLOP/s of these, once a round.
    layers: the distinct layers.
    """

    flops: int
    peak: str = ""
    rate: Figure | None = None
    layers: list[LayerAlone] = field(default_factory=list)
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """The step's arithmetic at that rate."""
        return self.flops / self.rate.median if self.rate else None

    @property
    def layers_seconds(self) -> float | None:
        """All layers, each as long as it takes alone."""
        return sum(layer.count * layer.seconds.median for layer in self.layers) if self.layers else None


@dataclass
class NetworkBench:
    """Everything that a run of `bench` found."""

    work: Work
    name: str
    rounds: int
    rows: list[Row]
    floor: FloorFound
    machine: dict[str, Any]

    @property
    def ours(self) -> Row:
        return self.rows[0]


def bench_network(
    work: Work,
    against: Sequence[str],
    rounds: int = 7,
    seconds: float = 0.3,
    progress: Progress = lambda what, share: None,
) -> NetworkBench:
    """Measures the step of `work`, run by the fused backend and by its peers, each in a process of its own.

    In every round each contender runs one step, or as many as fill `seconds`; who begins changes from round to round.
    Whatever goes wrong with a contender is told in its row.

    Raises:
        CnngraphError: there is no such device, or the network does not take this input; `SpecError` where the spec does
            not hold.
    """
    machine.require(work.device)
    graph = graph_of(work)
    rows = [Row(contender_of(name)) for name in dict.fromkeys([*always(work.device), *against])]
    floor = FloorFound(flops_of(macs_of(graph, work), work))
    told = _Progress(progress, len(rows) + 1, rounds)
    found = machine.describe()
    with Workers(work.threads) as workers:
        running = {}
        for index, row in enumerate(rows):
            told(f"preparing {row.contender.name}", index)
            running |= _prepared(workers, row, work, found)
        told("preparing the floor", len(rows))
        alone = _prepared_floor(workers, floor, work)
        others = machine.OtherWork(worker.process_id for worker in [*running.values(), *alone])
        times = _rounds(running, alone, floor, rows, rounds, seconds, told)
        found["other_work"] = others.share
        _fill(rows, times)
        for name, worker in running.items():
            told(f"measuring memory of {name}", None)
            _memory(worker, next(row for row in rows if row.contender.name == name))
    return NetworkBench(work, graph.name, rounds, rows, floor, found)


class _Progress:
    """Shares of the whole: preparing counts as much as a round."""

    def __init__(self, progress: Progress, contenders: int, rounds: int) -> None:
        self._progress = progress
        self._contenders = contenders
        self._steps = contenders * (rounds + 1)

    def __call__(self, what: str, contender: int | None, round: int = -1) -> None:
        done = self._steps if contender is None else contender + self._contenders * (round + 1)
        self._progress(what, done / self._steps)


def _prepared(workers: Workers, row: Row, work: Work, found: dict[str, Any]) -> dict[str, Worker]:
    name = row.contender.name
    if work.mode not in row.contender.modes:
        row.error = f"runs in {' and '.join(row.contender.modes)} mode only"
        return {}
    try:
        worker, answer = _started(workers, name, "prepare_contender", contender=name, work=work.to_json())
    except WorkerError as error:
        row.error = str(error)
        return {}
    row.result, row.memory_settings, row.prepare_seconds = (
        answer[key] for key in ("result", "memory_settings", "seconds")
    )
    found |= answer["machine"]
    return {name: worker}


def _prepared_floor(workers: Workers, floor: FloorFound, work: Work) -> list[Worker]:
    try:
        worker, answer = _started(workers, "floor", "prepare_floor", work=work.to_json())
    except WorkerError as error:
        floor.error = str(error)
        return []
    floor.peak = answer["peak"]
    floor.layers = [LayerAlone(**layer, seconds=Figure(())) for layer in answer["layers"]]
    return [worker]


def _started(workers: Workers, name: str, request: str, **arguments: Any) -> tuple[Worker, Any]:
    """A worker, and its answer to the first request; one that cannot answer is ended, with all memory it took."""
    worker = workers.start(name)
    try:
        return worker, worker.ask(request, **arguments)
    except WorkerError:
        worker.end()
        raise


def _rounds(
    running: dict[str, Worker],
    alone: list[Worker],
    floor: FloorFound,
    rows: list[Row],
    rounds: int,
    seconds: float,
    told: _Progress,
) -> dict[str, list[float]]:
    """The seconds of each contender that lasted, round by round; `floor` is filled in."""
    times: dict[str, list[float]] = {name: [] for name in running}
    floors: list[dict[str, Any]] = []
    for index in range(rounds):
        names = list(running)
        turn = index % max(1, len(names))
        for place, name in enumerate(names[turn:] + names[:turn]):
            told(f"round {index + 1} of {rounds}: {name}", place, index)
            try:
                times[name].append(running[name].ask("measure", seconds=seconds))
            except WorkerError as error:
                next(row for row in rows if row.contender.name == name).error = str(error)
                running.pop(name).end()
                del times[name]
        for worker in list(alone):
            told(f"round {index + 1} of {rounds}: the floor", len(rows), index)
            try:
                floors.append(worker.ask("measure", seconds=seconds))
            except WorkerError as error:
                floor.error = str(error)
                alone.remove(worker)
    if floors and floor.error is None:
        floor.rate = Figure(tuple(item["rate"] for item in floors))
        for index, layer in enumerate(floor.layers):
            layer.seconds = Figure(tuple(item["layers"][index] for item in floors))
    else:
        floor.layers = []
    return times


def _fill(rows: list[Row], times: dict[str, list[float]]) -> None:
    figures = {name: Figure(tuple(values)) for name, values in times.items() if values}
    for row in rows:
        row.seconds = figures.get(row.contender.name)
        if row.seconds is not None and OURS in figures:
            row.ratio = row.seconds.over(figures[OURS])


def _memory(worker: Worker, row: Row) -> None:
    try:
        answer = worker.ask("memory")
    except WorkerError as error:
        row.error = f"its memory could not be measured: {error}"
        return
    row.tensor_bytes, row.held_bytes, row.process_bytes = (
        answer[key] for key in ("tensor_bytes", "held_bytes", "process_bytes")
    )
