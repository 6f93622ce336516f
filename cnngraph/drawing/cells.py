"""The cells of a level that is drawn as a grid, and the values that enter and leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

from cnngraph.drawing.flow import Chain, Fork, end_of, units_of
from cnngraph.drawing.grid import Cell, Draw, Grid, place
from cnngraph.drawing.labels import resolution
from cnngraph.drawing.outline import Outline, Run
from cnngraph.drawing.units import drawn_inputs


def grid_of(outline: Outline, chains: Sequence[Chain], draw: Callable[[Run], Draw]) -> Grid:
    """The grid of the main chain (the first) and the strands that exchange values with it."""
    runs = [run for chain in chains for run in _runs(outline, chain)]
    runs.sort(key=lambda run: outline.graph.index.get(end_of(run[-1]).output, -1))
    inside = {path for run in runs for path in _paths(run)}
    reads = [_reads(outline, run) for run in runs]
    leaving = [path for path in inside if set(outline.units.readers.get(path, ())) - inside]
    last = end_of(chains[0][-1]).output
    order = outline.graph.index
    leaving.sort(key=lambda path: (path != last, -order.get(path, -1)))
    needed = {*leaving, *(value for values in reads for value in values)}
    cells: list[Cell] = []
    for run, values in zip(runs, reads, strict=True):
        output = end_of(run[-1]).output
        given = [path for path in _paths(run) if path in needed and path != output]
        unit = end_of(run[0])
        cells.append(Cell((output, *given), values, draw(run), joins=unit.is_merge))
    entering = dict.fromkeys(value for values in reads for value in values if value not in inside)

    def size(value: str) -> tuple[int, str]:
        shape = outline.graph.shape_of(value)
        return (prod(shape.spatial) if shape.spatial else 0), resolution(shape)

    return place(cells, entering, leaving or [last], size)


def _runs(outline: Outline, chain: Chain) -> Iterator[Run]:
    """The runs of a chain; forks are opened, but for those that are repeated."""
    for run in outline.runs(chain):
        if isinstance(run[0], Fork) and len(run) == 1:
            for branch in run[0].branches:
                yield from _runs(outline, branch)
            yield (run[0].merge,)
        else:
            yield run


def _paths(run: Run) -> list[str]:
    return [node.path for unit in units_of(run) for node in unit.nodes]


def _reads(outline: Outline, run: Run) -> tuple[str, ...]:
    """The values from outside that a run reads, in order."""
    inside = {*_paths(run)}
    nodes = (node for unit in units_of(run) for node in unit.nodes)
    read = (outline.units.source(path) for node in nodes for path in drawn_inputs(node))
    return tuple(dict.fromkeys(path for path in read if path not in inside))
