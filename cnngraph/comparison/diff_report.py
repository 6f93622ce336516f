"""The differences of two networks as text, Markdown, HTML and plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cnngraph.comparison.difference import COSTS, Difference
from cnngraph.comparison.layers import Layer, LayerChange
from cnngraph.graph import Graph
from cnngraph.ops.op import brief
from cnngraph.report.html import preformatted, table
from cnngraph.report.numbers import plural, short, size
from cnngraph.report.terminal import printable, simple_table, to_text

if TYPE_CHECKING:
    from rich.table import Table

_MARKS = {"added": "+", "removed": "-", "changed": "~"}
_LEFT = ("", "layer", "kind", "change")
_RIGHT = ("output", "params", "MACs", "act.")
_NAMES = {"params": "parameters", "macs": "MACs", "activations": "activations"}
_SHOWN = 4


@dataclass(frozen=True)
class _Row:
    """One change of a layer, or the same change of all layers of a block."""

    path: str
    changes: tuple[LayerChange, ...]
    kind: str = ""


def _rows(diff: Difference) -> list[_Row]:
    """What was added, removed and changed, in order; whole blocks in one row."""
    shown = [change for change in diff.layers if change.status in _MARKS]
    blocks = {
        "added": _Blocks(diff.new, [c.new for c in shown if c.old is None]),
        "removed": _Blocks(diff.old, [c.old for c in shown if c.new is None]),
    }

    def block(change: LayerChange) -> tuple[str, str, str]:
        status = change.status
        path, kind = _path(change), ""
        if status in blocks:
            path, kind = blocks[status].of(path)
        return status, path, kind

    return [
        _Row(path, tuple(changes), kind) for (_, path, kind), changes in groupby(shown, key=block)
    ]


class _Blocks:
    """The outermost blocks of a network whose layers were all added, or all removed."""

    def __init__(self, graph: Graph, layers: Sequence[Layer | None]) -> None:
        paths = {layer.path for layer in layers if layer is not None}
        others = [node.path for node in graph.nodes if node.path not in paths]
        self._graph = graph
        self._kept = {prefix for path in others for prefix in _prefixes(path)}

    def of(self, path: str) -> tuple[str, str]:
        """The path of such a block around a layer and its kind; without one, the layer itself."""
        for prefix in _prefixes(path):
            scope = self._graph.scopes.get(prefix)
            if scope is not None and prefix not in self._kept:
                return prefix, scope.kind
        return path, ""


def _prefixes(path: str) -> Iterator[str]:
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _path(change: LayerChange) -> str:
    layer = change.new or change.old
    assert layer is not None
    return layer.path


def _cells(row: _Row) -> tuple[str, ...]:
    first, last = row.changes[0], row.changes[-1]
    layer = last.new or last.old
    assert layer is not None
    return (
        _MARKS[first.status],
        row.path,
        row.kind or _from_to(first, "kind"),
        plural(len(row.changes), "layer") if row.kind else _words(first),
        str(layer.shape) if row.kind else _from_to(first, "shape"),
        *(_signed(sum(_delta(change, name) for change in row.changes), name) for name in COSTS),
    )


def _from_to(change: LayerChange, name: str) -> str:
    known = [str(getattr(layer, name)) for layer in (change.old, change.new) if layer is not None]
    return " -> ".join(dict.fromkeys(known))


def _words(change: LayerChange) -> str:
    parts = [
        f"{name} {brief(old)} -> {brief(new)}" for name, (old, new) in change.arguments.items()
    ]
    if change.old and change.new and change.old.path != change.new.path:
        parts.append(f"was {change.old.path}")
    return ", ".join(parts)


def _delta(change: LayerChange, name: str) -> int:
    old, new = (getattr(layer, name) if layer else 0 for layer in (change.old, change.new))
    return new - old


def _signed(delta: int, name: str) -> str:
    if not delta:
        return "-"
    return f"{'+' if delta > 0 else '-'}{_amount(abs(delta), name)}"


def _amount(value: int, name: str) -> str:
    return size(value) if name == "activations" else short(value)


def _total_rows(diff: Difference) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, (old, new) in diff.totals.items():
        share = f" ({(new - old) / old:+.1%})" if old and new != old else ""
        change = f"{_signed(new - old, name)}{share}"
        rows.append((_NAMES[name], _amount(old, name), _amount(new, name), change))
    return rows


def _notes(diff: Difference) -> list[str]:
    """What the table leaves out, and what becomes of the weights."""
    statuses = [change.status for change in diff.layers]
    notes = [f"the same: {plural(statuses.count('same'), 'layer')}"]
    if renamed := statuses.count("renamed"):
        notes.append(f"the same under another name: {plural(renamed, 'layer')}")
    if resized := statuses.count("resized"):
        notes.append(f"the same with an output of another size: {plural(resized, 'layer')}")
    return [*notes, "", *_weight_lines(diff)]


def _weight_lines(diff: Difference) -> list[str]:
    weights = diff.weights
    moves = [f"{_module(old)} -> {_module(new)}" for new, old in weights.renamed.items()]
    groups = (
        ("kept", len(weights.kept), []),
        ("renamed", len(moves), moves),
        ("lost", len(weights.lost), map(_module, weights.lost)),
        ("new", len(weights.new), map(_module, weights.new)),
    )
    lines = ["tensors of the state_dict, with load_weights(..., transfer=True):"]
    for name, count, modules in groups:
        listed = [*dict.fromkeys(modules)]
        shown = [*listed[:_SHOWN], *["..."] * (len(listed) > _SHOWN)]
        lines.append(f"  {name:<8}{count:>6,}  {', '.join(shown)}".rstrip())
    return lines


def _module(key: str) -> str:
    return key.rpartition(".")[0] or key


def diff_table(diff: Difference) -> Table:
    """A row for each layer or block that was added, removed or changed."""
    found = simple_table(_LEFT, _RIGHT)
    for row in _rows(diff):
        found.add_row(*map(printable, _cells(row)))
    return found


def totals_table(diff: Difference) -> Table:
    """Parameters, multiply-accumulates and activations before and after."""
    found = simple_table(("for one image",), ("old", "new", "change"))
    for row in _total_rows(diff):
        found.add_row(*row)
    return found


def diff_notes(diff: Difference) -> str:
    """How many layers are the same, and which weights survive."""
    return printable("\n".join(_notes(diff)))


def diff_text(diff: Difference) -> str:
    """Everything as plain text."""
    tables = [to_text(diff_table(diff))] if _rows(diff) else []
    return "\n\n".join([*tables, to_text(totals_table(diff)), diff_notes(diff)])


def diff_markdown(diff: Difference) -> str:
    """The tables and the notes in Markdown."""
    parts = [_markdown(_LEFT, _RIGHT, [*map(_cells, _rows(diff))])] if _rows(diff) else []
    parts.append(_markdown(("for one image",), ("old", "new", "change"), _total_rows(diff)))
    return "\n\n".join([*parts, f"```text\n{diff_notes(diff)}\n```"])


def _markdown(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [(*left, *right), ("---",) * len(left) + ("---:",) * len(right), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def diff_html(diff: Difference) -> str:
    """The same for a notebook."""
    rows = [*map(_cells, _rows(diff))]
    parts = [table(_LEFT, _RIGHT, rows)] if rows else []
    parts.append(table(("for one image",), ("old", "new", "change"), _total_rows(diff)))
    return "\n".join([*parts, preformatted(diff_notes(diff))])


def diff_data(diff: Difference) -> dict[str, Any]:
    """Everything as plain data; layers that are the same are counted only."""
    return {
        "old": diff.names[0],
        "new": diff.names[1],
        "totals": {name: [*both] for name, both in diff.totals.items()},
        "layers": [_layer_data(change) for change in diff.changes],
        "same": len(diff.layers) - len(diff.changes),
        "weights": diff.weights.to_dict(),
    }


def _layer_data(change: LayerChange) -> dict[str, Any]:
    sides = (change.old, change.new)
    return {
        "status": change.status,
        "path": [layer and layer.path for layer in sides],
        "kind": [layer and layer.kind for layer in sides],
        "arguments": {name: [*map(_plain, both)] for name, both in change.arguments.items()},
        "shape": [layer and [*layer.shape] for layer in sides],
        **{name: [getattr(layer, name) if layer else 0 for layer in sides] for name in COSTS},
    }


def _plain(value: Any) -> Any:
    """A value that JSON has."""
    if isinstance(value, tuple | list):
        return [*map(_plain, value)]  # pyright: ignore[reportUnknownArgumentType]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
