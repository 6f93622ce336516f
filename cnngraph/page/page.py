"""The report of a spec as one HTML page, which needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from cnngraph.atomic_write import PathLike, atomic_write_text
from cnngraph.checker import SpecLike, check_network, read_spec
from cnngraph.drawing import draw_graph
from cnngraph.drawing.style import style_sheet
from cnngraph.elaborate import valid_part
from cnngraph.errors import Diagnostic, Source, SpecError, render
from cnngraph.graph import Graph
from cnngraph.graph.step_memory import predict
from cnngraph.options import Options
from cnngraph.page.timing import seconds_by_node
from cnngraph.page.tree import tree_of
from cnngraph.passes import PassResult, passes_of, run_passes
from cnngraph.report.check import Report, shapes
from cnngraph.report.input_sizes import describe_sizes
from cnngraph.report.numbers import short, size

MARK = "<!-- Made by `cnngraph report` -->"
_HEIGHT = 800
"""The height of the page in a notebook, in pixels."""


@dataclass(frozen=True)
class Page:
    """A page about a network; a notebook displays it.

    Attributes:
        name: the spec as given.
        html: the text of the page.
        ok: whether the spec is valid.
    """

    name: str
    html: str
    ok: bool

    def save(self, path: PathLike) -> None:
        """Writes the page. Raises `CnngraphError` if the file cannot be written."""
        atomic_write_text(path, self.html)

    def __repr__(self) -> str:
        return f"<Page of {self.name}>"

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{_HEIGHT}px;border:0"
        return f'<iframe style="{style}" srcdoc="{escape(self.html)}"></iframe>'


def report_page(
    spec: SpecLike,
    params: Mapping[str, Any] | None = None,
    *,
    measure: bool = False,
    allow_code: bool = False,
) -> Page:
    """A page about a spec: its network to unfold and search, costs, drawing and mistakes.

    Args:
        spec: as in `cnngraph.check`.
        params: values for the spec's `params`.
        measure: times each layer of the plain network on this machine; this loads torch.
        allow_code: as in `cnngraph.check`.

    Returns:
        The page; for an invalid spec, with its mistakes, and the part of the network that is valid.
    """
    report = check_network(spec, params, allow_code=allow_code)
    graph, sources = report.graph, _sources(report)
    if graph is None:
        try:
            loaded = read_spec(spec, allow_code)
            sources = list(loaded.files.values())
            graph = valid_part(loaded, params)
        except SpecError:
            graph = None
    seconds = seconds_by_node(spec, params, allow_code) if measure and report.ok else None
    return Page(report.name, _html(report, graph, sources, seconds), report.ok)


def _sources(report: Report) -> list[Source]:
    """The files of a spec, the spec itself first."""
    if report.spec is not None:
        return list(report.spec.files.values())
    found = (item.position.source for item in report.diagnostics if item.position)
    return list({source.name: source for source in found}.values())


def _html(
    report: Report,
    graph: Graph | None,
    sources: Sequence[Source],
    seconds: Mapping[str, float] | None,
) -> str:
    passes, fused = _fused(graph) if graph is not None and report.graph is not None else ([], {})
    numbers = {source.name: index for index, source in enumerate(sources)}
    tree = tree_of(graph, numbers, fused, seconds) if graph else None
    name = graph.name if graph else report.name
    return _TEMPLATE.format(
        mark=MARK,
        title=escape(name),
        css=_file("page.css"),
        dark=style_sheet(True),
        facts="".join(
            f'<span class="faded">{escape(fact)}</span>' for fact in _facts(report, name)
        ),
        diagnostics=_diagnostics(report.diagnostics),
        network=_NETWORK if graph else "",
        spec="".join(_listing(i, source, report) for i, source in enumerate(sources)),
        drawing=_drawing(graph, report.ok),
        rest=_rest(report, graph, passes, seconds),
        data=_json({"tree": tree}),
        js="\n".join(map(_file, ["theme.js", "page.js"] if graph else ["theme.js"])),
    )


def _fused(graph: Graph) -> tuple[Sequence[PassResult], dict[str, str]]:
    """What the passes made, and the fused operation of each node that is part of one."""
    optimized, passes = run_passes(graph, passes_of(Options()))
    names = {
        part.path: " + ".join(leaf.op.kind for leaf in node.parts)
        if len(node.parts) <= 4
        else f"{node.op.kind} of {len(node.parts)} layers"
        for node in optimized.nodes
        if len(node.parts) > 1
        for part in node.parts
    }
    return passes, names


def _facts(report: Report, title: str) -> list[str]:
    given = [report.name] if report.name != title else []
    if report.graph is None or report.summary is None:
        return [*given, "the spec is invalid"]
    total = report.summary.total
    return [
        *given,
        shapes(report.graph),
        f"{short(total.params)} parameters",
        f"{short(total.macs)} MACs for one image",
    ]


def _diagnostics(found: Sequence[Diagnostic]) -> str:
    if not found:
        return ""
    return f'<h2>Diagnostics</h2><pre class="diagnostics">{escape(render(found))}</pre>'


def _listing(number: int, source: Source, report: Report) -> str:
    wrong = {
        item.position.line
        for item in report.diagnostics
        if item.position and item.position.source.name == source.name
    }
    lines = "".join(
        f'<li class="line{" wrong" if line in wrong else ""}" id="line-{number}-{line}">'
        f"{escape(text)}</li>"
        for line, text in enumerate(source.lines, 1)
    )
    return f'<h2>{escape(source.name)}</h2><ol class="file">{lines}</ol>'


def _drawing(graph: Graph | None, ok: bool) -> str:
    if graph is None:
        return ""
    title = "Drawing" if ok else "Drawing of the part that is valid"
    svg = draw_graph(graph).svg
    return f'<h2>{title}</h2><div class="sheet">{svg}</div>'


def _rest(
    report: Report,
    graph: Graph | None,
    passes: Sequence[PassResult],
    seconds: Mapping[str, float] | None,
) -> str:
    """Valid input sizes, memory of a training step, and fusions."""
    if report.graph is None or graph is None:
        return ""
    parts: list[str] = []
    if report.sizes is not None:
        declared = max(shape.spatial for shape in graph.inputs.values())
        lines = describe_sizes(report.sizes, declared)
        parts.append(_section("Input sizes", lines))
    memory = predict(graph, 16)
    peak = f"{size(memory.peak)} at the peak of a training step of 16 images, by plain PyTorch"
    parts.append(_section("Memory", [peak]))
    made = [
        f"{item.name}: {', '.join(f'{count:,} x {what}' for what, count in item.made.items())}"
        for item in passes
        if item.made
    ]
    parts.append(_section("Fusions", made or ["nothing is fused"]))
    if seconds is None:
        hint = "`cnngraph report --measure` times each layer on this machine."
        parts.append(_section("Time", [hint]))
    return "".join(parts)


def _section(title: str, lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return f"<h2>{title}</h2><pre>{escape(text)}</pre>"


def _json(data: Any) -> str:
    """JSON that cannot end the script element that it is put in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _file(name: str) -> str:
    return files("cnngraph.page").joinpath(name).read_text(encoding="utf-8").strip()


_NETWORK = """
<h2>Where it goes</h2>
<div id="bars" class="bars"></div>
<h2>Network</h2>
<div class="tools">
  <input id="search" type="search" placeholder="Search (press /)" aria-label="Search the network">
  <span id="found" class="faded" role="status"></span>
</div>
<div id="tree">
  <div id="head" class="head"><span>name, kind</span><span class="number">output</span></div>
  <div id="rows" role="tree" aria-label="Network"></div>
</div>
<div id="details" aria-live="polite" class="faded">
Choose a layer, a line of the spec, or a box.
</div>
"""

_TEMPLATE = """\
<!doctype html>
{mark}
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}
{dark}
</style>
</head>
<body>
<header><h1>{title}</h1>{facts}<button id="theme" type="button">Light or dark</button></header>
{diagnostics}
<div class="columns">
<main>{network}
{drawing}
{rest}
</main>
<aside aria-label="Spec">{spec}</aside>
</div>
<script type="application/json" id="data">{data}</script>
<script>
{js}
</script>
</body>
</html>
"""
