"""A sheet: the title, the network, each distinct block once, and the legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnngraph.drawing.captions import Table, block_captions, network_captions
from cnngraph.drawing.labels import CLASSES, JOINS, shape_text
from cnngraph.drawing.layout import Layout
from cnngraph.drawing.outline import Block, Outline
from cnngraph.drawing.pieces import sign
from cnngraph.drawing.shapes import Piece, Rect, Shape, Text, beside, packed, stacked
from cnngraph.drawing.text import LINE, shorten, wrap
from cnngraph.drawing.text import width as text_width
from cnngraph.graph import Graph
from cnngraph.graph.cost import summarize
from cnngraph.report.numbers import short

_MARGIN = 8.0
_SPACE = 8.0
_PAD = 6.0
_TITLE = 10.0
_MOST_ROWS = 40
"""The most rows of a table that are drawn."""
_WIDEST_CELL = 100.0
"""The widest name of a row, or a third of the table if that is wider."""


def sheet(
    graph: Graph, *, depth: int, width: float, shaded: frozenset[str]
) -> tuple[list[Shape], float, float]:
    """The shapes of a drawing, and the width and height of the sheet in points."""
    outline = Outline(graph, depth)
    inner = width - 2 * _MARGIN
    drawn = [
        _drawn(outline, shaded, inner, limit, flat)
        for limit in (inner, (inner - _SPACE) / 2)
        for flat in (True, False)
    ]
    pieces = [
        _title(graph, inner),
        *min(drawn, key=lambda parts: sum(part.height for part in parts)),
    ]
    pieces.append(_legend(graph, pieces, inner, bool(shaded)))
    whole = stacked(pieces, _SPACE)
    widest = max(width, whole.width + 2 * _MARGIN)
    return whole.at(_MARGIN, _MARGIN), widest, whole.height + 2 * _MARGIN


def _drawn(
    outline: Outline, shaded: frozenset[str], inner: float, limit: float, flat: bool
) -> list[Piece]:
    """The network, and its blocks on cards.

    A card is at most `limit` points wide if it can be that narrow without breaking a skip.
    """
    layout = Layout(outline, shaded)
    network = layout.flow(outline.flow(), network_captions(outline), inner, steps=True)
    letters = _letters(network)
    cards: list[Piece] = []
    for block, name in _named(outline.blocks()):
        card = _card(outline, Layout(outline, shaded, letters), block, name, limit, flat)
        if _letters(card) and limit < inner:
            wide = _card(outline, Layout(outline, shaded, letters), block, name, inner, flat)
            card = min(card, wide, key=_letters)
        letters += _letters(card)
        cards.append(card)
    if not cards:
        return [network]
    tall_first = sorted(cards, key=lambda card: -card.height)
    ordered = [packed(order, inner, _SPACE) for order in (cards, tall_first)]
    return [network, min(ordered, key=lambda piece: piece.height)]


def _letters(piece: Piece) -> int:
    """How many letters stand for lines that are broken."""
    texts = (shape for shape in piece.shapes if isinstance(shape, Text))
    ports = [text.text.split() for text in texts if text.style == "port-text"]
    return len({letter for letters in ports for letter in letters})


def _title(graph: Graph, limit: float) -> Piece:
    costs = summarize(graph).total
    facts = f"{_shapes(graph)}, {short(costs.params)} parameters, {short(costs.macs)} MACs"
    name = shorten(graph.name, limit, bold=True, size=_TITLE)
    x = text_width(name, bold=True, size=_TITLE) + 10
    texts: list[Shape] = [Text(0, 9, name, "start", bold=True, size=_TITLE)]
    if x + text_width(facts) <= limit:
        texts.append(Text(x, 9, facts, "start", style="quiet"))
        return Piece(limit, 12, 6, tuple(texts))
    lines = wrap(facts, limit)
    texts += [
        Text(0, 9 + number * LINE, line, "start", style="quiet")
        for number, line in enumerate(lines, 1)
    ]
    return Piece(limit, 12 + len(lines) * LINE, 6, tuple(texts))


def _shapes(graph: Graph) -> str:
    """`3×224×224 to 1000`."""
    results = graph.features.values() or (graph.output,)
    inputs = ", ".join(map(shape_text, graph.inputs.values()))
    return f"{inputs} to {', '.join(shape_text(graph.shape_of(path)) for path in results)}"


# --- cards ---------------------------------------------------------------------------------------


def _named(blocks: Sequence[Block]) -> list[tuple[Block, str]]:
    """Each block and its title: blocks of one kind that differ in structure are numbered."""
    kinds = [block.kind for block in blocks]
    return [
        (block, f"{block.kind}, form {kinds[: index + 1].count(block.kind)}")
        if kinds.count(block.kind) > 1
        else (block, block.kind)
        for index, block in enumerate(blocks)
    ]


def _card(
    outline: Outline, layout: Layout, block: Block, name: str, limit: float, flat: bool
) -> Piece:
    """One block drawn open, with the table of what differs among its calls."""
    captions = block_captions(outline, block, flat)
    alike = not captions.table.rows
    body = layout.flow(outline.flow(block.calls[0]), captions, limit - 2 * _PAD, labelled=alike)
    if captions.table.rows:
        table = _table(captions.table, limit - 2 * _PAD)
        fits = len(captions.table.rows) > 5 and body.width + 20 + table.width <= limit - 2 * _PAD
        body = beside([body, table], 20) if fits else stacked([body, table], 6)
    places = [_where(outline, block)] if alike else []
    heading = _heading(
        name, [*places, *captions.common], min(limit - 2 * _PAD, max(body.width, 100))
    )
    content = stacked([heading, body], 6)
    wide, high = content.width + 2 * _PAD, content.height + 14
    frame = Rect(0.5, 0.5, wide - 1, high - 1, "card", 4)
    return Piece(wide, high, high / 2, (frame, *content.at(_PAD, 7)))


def _heading(name: str, facts: Iterable[str], limit: float) -> Piece:
    title = wrap(name, limit, bold=True)
    lines = [part for fact in facts for part in wrap(fact, limit)]
    texts = [
        *(Text(0, 6 + index * LINE, line, "start", bold=True) for index, line in enumerate(title)),
        *(
            Text(0, 6 + index * LINE, line, "start", style="quiet")
            for index, line in enumerate(lines, len(title))
        ),
    ]
    wide = max(text_width(text.text, bold=text.bold) for text in texts)
    return Piece(wide, LINE * len(texts), 3, tuple(texts))


def _where(outline: Outline, block: Block) -> str:
    """`features.6 … features.9 (×4), 384×35×35 to 384×35×35`."""
    first, last = block.calls[0], block.calls[-1]
    text = first.path if first is last else f"{first.path} … {last.path} (×{len(block.calls)})"
    if len({(outline.entry(unit), unit.shape) for unit in block.calls}) > 1:
        return text
    shapes = dict.fromkeys([outline.entry(first), first.shape])
    return f"{text}, {' to '.join(map(shape_text, shapes))}"


def _table(table: Table, limit: float) -> Piece:
    """The table; columns for which there is no space go on below."""
    rows = [table.head, *table.rows[:_MOST_ROWS]]
    first, *others = (list(column) for column in zip(*rows, strict=True))
    first = [shorten(cell, max(_WIDEST_CELL, limit / 3)) for cell in first]
    parts: list[list[list[str]]] = [[first]]
    for column in others:
        if sum(map(_column_width, [*parts[-1], column])) > limit and len(parts[-1]) > 1:
            parts.append([first])
        parts[-1].append(column)
    pieces = [_columns(part) for part in parts]
    if (more := len(table.rows) - _MOST_ROWS) > 0:
        text = f"and {more:,} more rows"
        line = Text(0, 6, text, "start", style="quiet")
        pieces.append(Piece(text_width(text), LINE, 3, (line,)))
    return stacked(pieces, 4)


def _column_width(column: Sequence[str]) -> float:
    return max(text_width(cell, bold=not number) for number, cell in enumerate(column)) + 8


def _columns(columns: Sequence[Sequence[str]]) -> Piece:
    """Columns side by side, with a line below their titles."""
    widths = [_column_width(column) for column in columns]
    lefts = [sum(widths[:index]) for index in range(len(widths))]
    shapes: list[Shape] = [Rect(0, 8.2, sum(widths) - 8, 0.5, "rule")]
    for index, row in enumerate(zip(*columns, strict=True)):
        y = 6 + index * LINE + (1.5 if index else 0)
        shapes += [
            Text(x, y, cell, "start", bold=not index)
            for x, cell in zip(lefts, row, strict=True)
            if cell
        ]
    high = LINE * len(columns[0]) + 1.5
    return Piece(sum(widths) - 8, high, high / 2, tuple(shapes))


# --- legend --------------------------------------------------------------------------------------


def _legend(graph: Graph, pieces: Iterable[Piece], limit: float, shaded: bool) -> Piece:
    used = {
        shape.style.removeprefix("strip ")
        for piece in pieces
        for shape in piece.shapes
        if isinstance(shape, Rect) and shape.style.startswith("strip ")
    }
    entries = [_entry(name, words) for name, words in CLASSES.items() if name in used]
    drawn = {node.op.kind for node in graph.nodes}
    entries += [_join_entry(kind, words) for kind, words in JOINS.items() if kind in drawn]
    if shaded:
        entries.append(_shade_entry())
    return packed(entries, limit, 12) if entries else Piece(0, 0, 0, ())


def _entry(name: str, words: str) -> Piece:
    shapes: tuple[Shape, ...] = (
        Rect(0, 1, 14, 7, f"strip {name}"),
        Rect(0, 1, 14, 7, f"hatch-{name}"),
        Text(18, 7, words, "start"),
    )
    return Piece(18 + text_width(words), 9, 4.5, shapes)


def _join_entry(kind: str, words: str) -> Piece:
    shapes = [Rect(3, 0, 4, 9, "bar", 1)] if kind == "concat" else sign(kind, 5, 4.5)
    text = Text(14, 7, words, "start")
    return Piece(14 + text_width(words), 9, 4.5, (*shapes, text))


def _shade_entry() -> Piece:
    words = "runs as part of a fused operation"
    return Piece(
        18 + text_width(words),
        9,
        4.5,
        (Rect(0, 1, 14, 7, "fused", 2), Text(18, 7, words, "start")),
    )
