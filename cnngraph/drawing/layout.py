"""Lays out the flow of a level: left to right, in rows, branches as rails, skips as arcs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from math import prod

from cnngraph.drawing.captions import Captions
from cnngraph.drawing.cells import grid_of
from cnngraph.drawing.flow import Chain, Flow, Fork, Strand, end_of, units_of
from cnngraph.drawing.grid import Draw, Grid
from cnngraph.drawing.labels import resolution
from cnngraph.drawing.outline import Outline, Run
from cnngraph.drawing.pieces import box, frame, join_width, joint, merge, rails
from cnngraph.drawing.routes import draw_grid
from cnngraph.drawing.rows import (
    GAP,
    MARGIN,
    ROW_GAP,
    Arc,
    Item,
    joined,
    row,
    split_rows,
    widen_steps,
    with_steps,
)
from cnngraph.drawing.shapes import Piece, Wire, packed, stacked
from cnngraph.drawing.units import Unit


class Layout:
    """Lays out the flows of one drawing.

    Args:
        shaded: the paths of the nodes that are drawn on a shade.
        letters: how many letters are in use already.
    """

    def __init__(self, outline: Outline, shaded: frozenset[str], letters: int = 0) -> None:
        self.outline = outline
        self.shaded = shaded
        self._letters = map(_letter, count(letters))
        self._ins: dict[str, list[str]] = {}
        self._outs: dict[str, list[str]] = {}

    def flow(
        self,
        flow: Flow,
        captions: Captions,
        limit: float,
        steps: bool = False,
        labelled: bool = False,
    ) -> Piece:
        """A level: its main chain, then the strands below.

        Args:
            limit: the width at which rows are wrapped; a single box may be wider.
            steps: puts the rows on panels, one for each run of a resolution.
            labelled: names the rows of a grid by their resolution.
        """
        span, grid = self._grid(flow, captions, limit)
        inside = self._inside(flow, span)
        beside = [strand for strand in flow.strands if strand not in inside]
        for origin, unit in flow.links if not span else ():
            self._ins.setdefault(unit.path, []).append(self._leaving(origin))
        starts = [self._leaving(strand.origin) for strand in beside]
        items: list[Item] = []
        arcs: list[Arc] = []
        inner = _inner(limit, steps)
        widest = inner - GAP if grid else self._widest(flow.chain, inner)
        self._collect(flow.chain[: span.start], captions, widest, items, arcs)
        if grid:
            piece = draw_grid(grid, widest, steps or labelled)
            shape = end_of(flow.chain[span.stop - 1]).shape
            items.append(Item(piece, "", prod(shape.spatial), merge=True))
        self._collect(flow.chain[span.stop :], captions, widest, items, arcs)
        chain = self._arranged(items, arcs, inner, steps)
        strands = [
            self._chain(strand.chain, captions, limit, steps, letter)
            for strand, letter in zip(beside, starts, strict=True)
        ]
        return stacked([chain, packed(strands, limit, GAP)], ROW_GAP) if strands else chain

    def _grid(self, flow: Flow, captions: Captions, limit: float) -> tuple[range, Grid | None]:
        """The elements of the main chain that are drawn as a grid, and the grid."""
        span, grid = flow.tangle, None
        while span and (grid is None or (span.start and len(grid.columns[0]) > 1)):
            span = range(span.start - 1, span.stop) if grid else span
            inside = self._inside(flow, span)
            chains = [flow.chain[span.start : span.stop], *(strand.chain for strand in inside)]
            grid = grid_of(self.outline, chains, lambda run: self._drawer(run, captions, limit))
        return span, grid

    def _inside(self, flow: Flow, span: range) -> list[Strand]:
        """The strands that are part of a level's grid: side heads only if they start in it."""
        units = list(units_of(flow.chain[span.start : span.stop]))
        return [item for item in flow.strands if span and (not item.aux or item.origin in units)]

    def _drawer(self, run: Run, captions: Captions, limit: float) -> Draw:
        """What draws a run in a grid."""
        first, shaded = run[0], self._is_shaded(run)
        if isinstance(first, Fork):
            piece = self._frame(first, captions, limit - GAP)
            return lambda ports, span: piece
        if first.is_merge:
            return lambda ports, span: joint(first, ports, 0.0, shaded)
        caption = replace(captions.by_path[first.path], small=True)
        return lambda ports, span: box(caption, shaded, span)

    def _frame(self, first: Fork, captions: Captions, limit: float) -> Piece:
        inside = self._chain((first,), captions, limit - 16)
        return frame(inside, captions.by_path[end_of(first).path].count)

    def _leaving(self, origin: Unit | None) -> str:
        """A letter at the value that `origin` gives."""
        letter = next(self._letters)
        self._outs.setdefault(origin.path if origin else "", []).append(letter)
        return letter

    def _chain(
        self,
        chain: Chain,
        captions: Captions,
        limit: float,
        steps: bool = False,
        start: str = "",
    ) -> Piece:
        """A chain in rows; `start` is the letter at its start, if it is a strand."""
        items: list[Item] = []
        arcs: list[Arc] = []
        inner = _inner(limit, steps)
        self._collect(chain, captions, self._widest(chain, inner), items, arcs)
        return self._arranged(items, arcs, inner, steps, start)

    def _widest(self, chain: Chain, inner: float) -> float:
        """The width of the widest item of a chain; one alone has no turn beside it."""
        runs = self.outline.runs(chain)
        return inner if len(runs) == 1 and not _is_arc(runs[0]) else inner - GAP

    def _arranged(
        self, items: list[Item], arcs: list[Arc], limit: float, steps: bool, start: str = ""
    ) -> Piece:
        """The items in rows, with their arcs."""
        if not items:
            return Piece(GAP, 1.0, 0.5, (Wire(((0, 0.5), (GAP, 0.5)), arrow=False),))
        items[0].ins += [start] if start else []
        entered = not start and not (steps and len(self.outline.graph.inputs) > 1)
        if steps:
            widen_steps(items)
        rows = split_rows(items, limit)
        near = [arc for arc in arcs if any(arc.start in span and arc.end in span for span in rows)]
        for arc in arcs:
            if arc not in near:
                self._break(arc, items)
        pieces: list[Piece] = []
        for span in rows:
            inside = [items[index] for index in span]
            arcs_inside = [arc for arc in near if arc.start in span]
            piece = row(inside, arcs_inside, span.start, lead=entered or span.start > 0)
            last = span.stop == len(items)
            pieces.append(with_steps(piece, inside, last) if steps else piece)
        return joined(pieces, lead=entered, last=steps)

    def _break(self, arc: Arc, items: Sequence[Item]) -> None:
        """Puts a letter at both ends of an arc, in place of the arc."""
        letter = next(self._letters)
        source = items[arc.start - 1].outs if arc.start else items[0].ins
        source.append(letter)
        items[arc.end].ins.append(letter)

    def _collect(
        self, chain: Chain, captions: Captions, limit: float, items: list[Item], arcs: list[Arc]
    ) -> None:
        """The items of a chain, each of at most `limit` if it can be that narrow."""
        for run in self.outline.runs(chain):
            first = run[0]
            if isinstance(first, Unit):
                if first.is_merge:
                    self._add(items, run, merge(first, self._is_shaded(run)), joins=True)
                else:
                    caption = captions.by_path[first.path]
                    self._add(items, run, box(caption, self._is_shaded(run)))
            elif len(run) > 1:
                self._add(items, run, self._frame(first, captions, limit), ports=False)
            elif _is_arc(run):
                start = len(items)
                for branch in first.branches:
                    self._collect(branch, captions, limit, items, arcs)
                if not all(first.branches):
                    arcs.append(Arc(start, len(items)))
                self._add(items, run, merge(first.merge, self._is_shaded(run)), joins=True)
            else:
                self._add(items, run, self._rails(first, captions, limit), joins=True)

    def _add(
        self,
        items: list[Item],
        run: Run,
        piece: Piece,
        joins: bool = False,
        ports: bool = True,
    ) -> None:
        """Adds an item; `ports` is False if the letters of its units are inside of it."""
        shape = end_of(run[-1]).shape
        pixels = prod(shape.spatial)
        paths = [end_of(element).path for element in run] if ports else []
        ins = [letter for path in paths for letter in self._ins.get(path, ())]
        outs = [letter for path in paths for letter in self._outs.get(path, ())]
        items.append(Item(piece, resolution(shape), pixels, joins, ins, outs))

    def _rails(self, fork: Fork, captions: Captions, limit: float) -> Piece:
        inner = limit - join_width(fork.merge)
        branches = [self._chain(branch, captions, inner) for branch in fork.branches]
        inputs = all(branch and end_of(branch[0]).style == "input" for branch in fork.branches)
        return rails(branches, fork.merge, self._is_shaded((fork,)), split=not inputs)

    def _is_shaded(self, run: Run) -> bool:
        nodes = (node for element in run for node in end_of(element).nodes)
        return any(node.path in self.shaded for node in nodes)


def _is_arc(run: Run) -> bool:
    """Whether it is one fork with at most one branch that is not empty."""
    first = run[0]
    return isinstance(first, Fork) and len(run) == 1 and sum(map(bool, first.branches)) < 2


def _inner(limit: float, steps: bool) -> float:
    """The width of the boxes of a row, without its turns."""
    return limit - 2 * MARGIN - (GAP / 2 if steps else 0)


def _letter(index: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    more, index = divmod(index, len(letters))
    return (_letter(more - 1) if more else "") + letters[index]
