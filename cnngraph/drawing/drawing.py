"""A drawing of a network: its text in each format, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cnngraph.atomic_write import PathLike, atomic_write, atomic_write_text
from cnngraph.drawing.images import to_pdf, to_png
from cnngraph.drawing.mermaid import to_mermaid
from cnngraph.drawing.outline import Outline
from cnngraph.drawing.shapes import Shape
from cnngraph.drawing.sheet import sheet
from cnngraph.drawing.svg import POINTS, to_svg
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.options import Options

FORMATS = (".svg", ".png", ".pdf", ".mmd")
"""The endings of the files that a drawing can be saved to."""
WIDTH = 180.0
"""The width of a page of text in millimetres."""
LEAST_WIDTH = 85.0
"""The width of a column of a paper in millimetres."""


@dataclass(frozen=True)
class Drawing:
    """A drawing of a network.

    Attributes:
        graph: the network.
        depth: how many levels of blocks are opened in place; 1 folds every block, and draws each
            distinct block open below.
        width: the width of the sheet in millimetres, at which rows are wrapped; branches inside of
            branches may need more. The text has the same size at each width.
        dark: light lines on dark paper.
        shaded: the paths of the nodes that are drawn on a shade.
    """

    graph: Graph
    depth: int = 1
    width: float = WIDTH
    dark: bool = False
    shaded: frozenset[str] = frozenset()

    @cached_property
    def sheet(self) -> tuple[list[Shape], float, float]:
        """The shapes, and the width and height of the sheet in points."""
        width = self.width * POINTS
        return sheet(self.graph, depth=self.depth, width=width, shaded=self.shaded)

    @cached_property
    def svg(self) -> str:
        """The drawing as SVG."""
        return to_svg(*self.sheet, self.graph.name, self.dark)

    @cached_property
    def mermaid(self) -> str:
        """The network as a Mermaid flowchart, with every block folded to a node."""
        return to_mermaid(Outline(self.graph, self.depth))

    def save(self, path: PathLike) -> None:
        """Writes the drawing in the format of the file's ending: .svg, .png, .pdf or .mmd.

        Raises:
            CnngraphError: the ending is another, PNG or PDF cannot be made because `cairosvg` is
                missing, or the file cannot be written.
        """
        ending = format_of(path)
        if ending in (".png", ".pdf"):
            data = (to_png if ending == ".png" else to_pdf)(self.svg)
            atomic_write(path, lambda file: file.write_bytes(data))
        else:
            atomic_write_text(path, self.svg if ending == ".svg" else self.mermaid)

    def __repr__(self) -> str:
        return f"<Drawing of {self.graph.name}>"

    def _repr_svg_(self) -> str:
        return self.svg


def draw_graph(
    graph: Graph, *, depth: int = 1, width: float = WIDTH, dark: bool = False, fused: bool = False
) -> Drawing:
    """A drawing of a graph; see `cnngraph.draw`.

    Raises `CnngraphError` for a depth below 1, or a width below 85 mm.
    """
    if depth < 1:
        raise CnngraphError(f"the depth of a drawing is at least 1, not {depth}")
    if width < LEAST_WIDTH:
        raise CnngraphError(f"a drawing is at least {LEAST_WIDTH:g} mm wide, not {width:g}")
    shaded = fused_paths(graph) if fused else frozenset[str]()
    return Drawing(graph, depth, width, dark, shaded)


def fused_paths(graph: Graph) -> frozenset[str]:
    """The nodes that the fused backend computes together with others."""
    from cnngraph.passes import passes_of, run_passes

    optimized, _ = run_passes(graph, passes_of(Options()))
    groups = [node.parts for node in optimized.nodes if len(node.parts) > 1]
    return frozenset(part.path for group in groups for part in group)


def format_of(path: PathLike) -> str:
    """The ending of a file. Raises `CnngraphError` if a drawing cannot be saved to it."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        name = Path(path).name
        raise CnngraphError(f"a drawing is saved as one of {', '.join(FORMATS)}, not as `{name}`")
    return ending
