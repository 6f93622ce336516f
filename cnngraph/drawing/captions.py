"""The texts of boxes, and the table of what differs among the calls of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from cnngraph.drawing.flow import Chain, Fork, end_of
from cnngraph.drawing.labels import Slots, shape_text
from cnngraph.drawing.outline import Block, Outline, Run
from cnngraph.drawing.text import width
from cnngraph.drawing.units import Unit
from cnngraph.graph import Graph

WIDEST = 74.0
"""The widest text in a box, in points."""


@dataclass(frozen=True)
class Caption:
    """The texts of one box.

    Attributes:
        path: the path of the box's first unit.
        lines: kind, arguments, and what follows the layer.
        title: the tooltip.
        small: whether it is part of a card.
    """

    path: str
    name: str
    lines: tuple[str, ...]
    count: str
    output: str
    title: str
    shape: tuple[int, ...]
    style: str
    small: bool = False


@dataclass(frozen=True)
class Table:
    """What differs among the calls of a block, a row for each distinct call."""

    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Captions:
    """The captions of a level, by the path of a run's first unit, and its table.

    `common` is what follows every layer of a kind, which the boxes do not repeat, as
    `each conv2d + BN`.
    """

    by_path: Mapping[str, Caption] = field(default_factory=dict[str, Caption])
    table: Table = Table()
    common: tuple[str, ...] = ()


def run_name(graph: Graph, run: Run, level: str) -> str:
    """`conv1`, or `inception4a … 4e`; "" for unnamed layers without weights."""
    units = [end_of(element) for element in run]
    if not any(map(_is_named, units)) and not any(_has_weights(graph, unit) for unit in units):
        return ""
    first = _relative(units[0].path, level)
    last = units[-1].path.rpartition(".")[2]
    return first if len(units) == 1 else f"{first} … {last}"


def _is_named(unit: Unit) -> bool:
    return unit.scope is not None or bool(unit.path.rpartition(".")[2].strip("0123456789"))


def _has_weights(graph: Graph, unit: Unit) -> bool:
    return any(node.op.parameters(*graph.input_shapes(node)) for node in unit.nodes)


def _relative(path: str, level: str) -> str:
    return path.removeprefix(f"{level}.") if level else path


def kind_lines(outline: Outline, run: Run) -> list[str]:
    """`basic_block ×2` and `first /2`; of a stage, a line or two for each of its blocks."""
    unit = end_of(run[0])
    kind = times(unit.kind, len(run))
    if unit.scope is None:
        return [kind]
    if unit.scope.kind == "aux":
        return [kind, "training only"]
    if unit.scope.kind != "repeat":
        note = outline.note(cast(tuple[Unit, ...], run))
        both = f"{kind}, {note}"
        return [kind] if not note else [both] if width(both) <= WIDEST else [kind, note]
    inner = outline.runs(outline.flow(unit).chain)
    if len(inner) > 3:
        return [f"{sum(map(len, inner))} blocks"]
    return [line for item in inner for line in kind_lines(outline, item)]


def times(text: str, count: int) -> str:
    """`conv2d ×3`; the text alone for one."""
    return f"{text} ×{count}" if count > 1 else text


def network_captions(outline: Outline) -> Captions:
    """The captions of the network itself."""
    flow = outline.flow()
    in_grid = {unit.path for unit in flow.in_grid}
    captions: dict[str, Caption] = {}
    for run in _boxes(outline, flow.chains):
        unit = end_of(run[0])
        details = [] if unit.scope else [_details(unit, outline.slots(unit))]
        lines = [*kind_lines(outline, run), *details, *_tail_lines(unit)]
        shapes = outline.shapes(end_of(run[-1]))
        if unit.path in in_grid and "kernel" in dict(outline.slots(unit)):
            shapes = []  # the row of the grid says it
        output = ", ".join(map(shape_text, shapes))
        captions[unit.path] = _caption(outline, run, "", lines, "", output)
    for strand in flow.strands if not flow.tangle else ():
        first = end_of(strand.chain[0]).path
        if strand.origin and first in captions:
            lines = (*captions[first].lines, f"from {strand.origin.path}")
            captions[first] = replace(captions[first], lines=lines)
    return Captions(captions)


def _details(unit: Unit, found: Slots) -> str:
    """`3×3, 64, /2`; without the number of features, which is the whole output of a layer."""
    said = "channels" if len(unit.shape) == 1 else ""
    return ", ".join(text for name, text in found if name != said)


def _caption(
    outline: Outline,
    run: Run,
    level: str,
    lines: list[str],
    count: str,
    output: str,
) -> Caption:
    first, last = end_of(run[0]), end_of(run[-1])
    lines += [f"weights of {node.shared}" for node in first.nodes[:1] if node.shared]
    until = f" … {last.path}" if first is not last else ""
    return Caption(
        first.path,
        run_name(outline.graph, run, level),
        tuple(line for line in lines if line),
        f"×{count or len(run)}",
        output,
        f"{first.path}{until}: {times(first.kind, len(run))}, {shape_text(last.shape)}",
        last.shape,
        first.style,
    )


def _boxes(outline: Outline, chains: Iterable[Chain]) -> Iterator[Run]:
    """The runs of the chains and of their branches, joins included."""
    for chain in chains:
        for run in outline.runs(chain):
            if isinstance(run[0], Fork):
                yield from _boxes(outline, run[0].branches)
            yield run


# --- blocks --------------------------------------------------------------------------------------


def block_captions(outline: Outline, block: Block, flat: bool = True) -> Captions:
    """The captions of a block, with letters for what differs among its calls, and the table.

    Boxes are small, so that branches and blocks fit on a page: a window and its channels tell the
    output, and what follows every convolution is said once.

    Args:
        flat: puts the kind and the arguments of a layer in one line.
    """
    calls = [list(_boxes(outline, outline.flow(unit).chains)) for unit in block.calls]
    level = block.calls[0].scope.path if block.calls[0].scope else ""
    common = _common_tails(outline, calls[0])
    in_grid = bool(outline.flow(block.calls[0]).tangle)
    letters = _Letters()
    captions: dict[str, Caption] = {}
    for runs in zip(*calls, strict=True):
        first = end_of(runs[0][0])
        columns = _columns([_run_slots(outline, run) for run in runs])
        texts = {name: letters.text(name, values) for name, values in columns.items()}
        count = texts.pop("count", "")
        alike = {tuple(kind_lines(outline, run)) for run in runs}
        kind = "blocks" if first.scope and first.kind == "repeat" else first.kind
        kinds = [*alike.pop()] if len(alike) == 1 else [f"{kind} ×{count}" if count else kind]
        kinds = [] if kinds == [first.kind] and first.kind in common else kinds
        details = ", ".join(text for text in texts.values() if text)
        tail = [] if first.kind in common else _tail_lines(first)
        shapes = {end_of(run[-1]).shape for run in runs}
        said = "kernel" in texts or in_grid
        output = "" if said or len(shapes) > 1 else shape_text(*shapes)
        details = "" if details == output else details  # the number of features of a linear layer
        lines = [*(_joined(kinds, details) if flat else [*kinds, details]), *tail]
        caption = _caption(outline, runs[0], level, lines, count, output)
        captions[first.path] = replace(caption, small=True)
    notes = tuple(f"each {kind} {line}" for kind, tail in common.items() for line in tail)
    return Captions(captions, _table(outline, block, letters), notes)


def _tail_lines(unit: Unit) -> list[str]:
    """`+ BN, relu` for what follows a layer."""
    return [f"+ {', '.join(unit.tail)}"] if unit.tail else []


def _common_tails(outline: Outline, runs: Iterable[Run]) -> dict[str, list[str]]:
    """What follows every layer of a kind with a window, by the kind."""
    tails: dict[str, list[list[str]]] = {}
    for run in runs:
        unit = end_of(run[0])
        if unit.scope is None and "kernel" in dict(outline.slots(unit)):
            tails.setdefault(unit.kind, []).append(_tail_lines(unit))
    return {
        kind: found[0]
        for kind, found in tails.items()
        if found[0] and all(tail == found[0] for tail in found)
    }


def _joined(kinds: list[str], details: str) -> list[str]:
    """`conv2d 3×3, 64` in a line, if it is not too wide."""
    line = " ".join([*kinds, details])
    counted = any("×" in kind for kind in kinds)
    return [line] if len(kinds) < 2 and not counted and width(line) <= WIDEST else [*kinds, details]


def _run_slots(outline: Outline, run: Run) -> Slots:
    unit = end_of(run[0])
    found = () if unit.scope else outline.slots(unit)
    return (("count", str(len(run))), *found) if len(run) > 1 else found


def _columns(rows: list[Slots]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for row in rows for name, _ in row)
    return {name: [dict(row).get(name, "") for row in rows] for name in names}


class _Letters:
    """Letters for values that differ; equal columns share one."""

    _FIRST = {"count": "n", "stride": "s", "groups": "g", "kernel": "k"}
    _ALPHABET = "abcdefhijlmopqrtuvwxyz"

    def __init__(self) -> None:
        self.columns: dict[tuple[str, tuple[str, ...]], str] = {}

    def text(self, name: str, values: list[str]) -> str:
        """The common value, or the letter that stands for the values."""
        if len(set(values)) == 1:
            return values[0]
        key = name, tuple(values)
        if key not in self.columns:
            self.columns[key] = self._unused(self._FIRST.get(name, ""))
        return self.columns[key]

    def _unused(self, wanted: str) -> str:
        used = set(self.columns.values())
        for number in range(len(self.columns) + 1):
            for letter in wanted or self._ALPHABET:
                name = f"{letter}{number or ''}"
                if name not in used:
                    return name
        raise AssertionError


def _table(outline: Outline, block: Block, letters: _Letters) -> Table:
    """Empty if all calls are alike, apart from the sizes of their maps."""
    if not letters.columns:
        return Table()
    columns = sorted(letters.columns.items(), key=lambda item: item[1])
    rows: dict[tuple[str, ...], list[str]] = {}
    for index, unit in enumerate(block.calls):
        values = (*(key[1][index] or "-" for key, _ in columns), shape_text(unit.shape))
        rows.setdefault(values, []).append(unit.path)
    head = ("", *(letter for _, letter in columns), "output")
    return Table(head, tuple((_listed(paths), *values) for values, paths in rows.items()))


def _listed(paths: list[str]) -> str:
    """`layer1.0`, `layer1.1 … layer3.5 (×5)`."""
    if len(paths) == 1:
        return paths[0]
    return f"{paths[0]} … {paths[-1]} (×{len(paths)})"
