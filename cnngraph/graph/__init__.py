"""The graph, and what is computed from it without torch: cost, input sizes, memory, features."""

from cnngraph.graph.graph import INPUT, Copy, Graph, GraphError, Group, Node, Scope

__all__ = ["INPUT", "Copy", "Graph", "GraphError", "Group", "Node", "Scope"]
