"""The graph, and what is computed from it without torch: costs, stages, input sizes, memory, features."""

from cnngraph.graph.graph import INPUT, Copy, Graph, Node, Scope

__all__ = ["INPUT", "Copy", "Graph", "Node", "Scope"]
