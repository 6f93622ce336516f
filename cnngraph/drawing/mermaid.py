"""A network as a Mermaid flowchart, which GitHub and many editors draw inside of Markdown."""

from __future__ import annotations

from cnngraph.drawing.captions import Captions, network_captions
from cnngraph.drawing.flow import Chain, Fork, end_of
from cnngraph.drawing.labels import shape_text
from cnngraph.drawing.outline import Outline, Run
from cnngraph.drawing.style import BASE, mixed
from cnngraph.drawing.units import Unit

_SHAPES = {
    "input": ("([", "])"),
    "conv": ("[", "]"),
    "linear": ("[[", "]]"),
    "pool": ("[/", "\\]"),
    "norm": ("(", ")"),
    "activation": ("([", "])"),
    "shape": (">", "]"),
    "merge": ("((", "))"),
    "other": ("{{", "}}"),
    "block": ("[[", "]]"),
}
"""The brackets of a node of each class."""
_ESCAPES = str.maketrans(
    {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}
)
_SIGNS = {"add": "+", "multiply": "×"}


def to_mermaid(outline: Outline) -> str:
    """The flowchart. Blocks are folded, as in the upper part of a drawing."""
    return _Writer(outline).text()


class _Writer:
    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.captions: Captions = network_captions(outline)
        self.lines: list[str] = []
        self.used: set[str] = set()
        self.ids: dict[str, str] = {}
        self.drawn = {"input"} if len(outline.graph.inputs) == 1 else set[str]()

    def text(self) -> str:
        flow = self.outline.flow()
        graph = self.outline.graph
        start = f'input(["input<br/>{shape_text(graph.input)}"])'
        inputs = [start] if len(graph.inputs) == 1 else []  # several have nodes of their own
        self._chain(flow.chain, "input")
        for strand in flow.strands:
            origin = self.ids[strand.origin.path] if strand.origin else "input"
            self._chain(strand.chain, origin)
        for source, unit in flow.links:
            origin = self.ids[source.path] if source else "input"
            self.lines.append(f"{origin} --> {self.ids[unit.path]}")
        body = [f"    {line}" for line in (*inputs, *self.lines, *map(_class, sorted(self.used)))]
        return "\n".join(["%% Made by `cnngraph draw`", "flowchart LR", *body, ""])

    def _chain(self, chain: Chain, before: str) -> str:
        """Writes a chain after the node `before`, and returns its last node."""
        for run in self.outline.runs(chain):
            first = run[0]
            ends = [before]
            if isinstance(first, Fork):
                ends = [self._chain(branch, before) for branch in first.branches]
            before = self._node(run)
            known = [end for end in dict.fromkeys(ends) if end in self.drawn]
            self.lines += [f"{end} --> {before}" for end in known]
        return before

    def _node(self, run: Run) -> str:
        unit = end_of(run[0])
        name = f"n{len(self.ids)}"
        self.ids |= {end_of(element).path: name for element in run}
        self.used.add(unit.style)
        self.drawn.add(name)
        opening, closing = _SHAPES[unit.style]
        text = "<br/>".join(map(_escaped, self._texts(unit, run)))
        self.lines.append(f'{name}{opening}"{text}"{closing}:::{unit.style}')
        return name

    def _texts(self, unit: Unit, run: Run) -> list[str]:
        caption = self.captions.by_path[unit.path]
        if unit.style != "merge":
            return [line for line in (caption.name, *caption.lines, caption.output) if line]
        count = [caption.count] if len(run) > 1 else []
        return [_SIGNS.get(unit.kind, unit.kind), *unit.tail, *count]


def _class(name: str) -> str:
    fill = mixed(BASE[name], "#ffffff", 0.3)
    return f"classDef {name} fill:{fill},stroke:{BASE[name]},color:#111"


def _escaped(text: str) -> str:
    """Mermaid's own escapes: a `#` starts one."""
    return text.translate(_ESCAPES)
