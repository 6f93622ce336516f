"""Drawings of networks, as SVG and Mermaid, and through an extra as PNG and PDF."""

from cnngraph.drawing.drawing import Drawing, draw_graph

__all__ = ["Drawing", "draw_graph"]
