"""A graph as a tree of plain data: blocks and layers, with shapes, costs and lines of the spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnngraph.graph import Graph, Node
from cnngraph.graph.cost import Cost, node_cost
from cnngraph.shape import TensorShape

Tree = dict[str, Any]
"""Keys are short, because there is one tree for each layer:

- `n` name, `k` kind, `p` path, `s` output shape, `l` file and line;
- `w` parameters, `m` multiply-accumulates, `a` bytes of outputs, `t` seconds, of all parts;
- `c` the parts of a block;
- of a layer, `d` its arguments, `i` what it reads, `f` its fused operation, `x` 1 in side heads.
"""

_BYTES = 4
"""Bytes of a float32."""


def tree_of(
    graph: Graph,
    files: Mapping[str, int],
    fused: Mapping[str, str],
    seconds: Mapping[str, float] | None,
) -> Tree:
    """The tree of a graph.

    Args:
        files: the number of each spec file, by its name.
        fused: the name of the fused operation of each node that is part of one.
        seconds: the time of each node, if it was measured.
    """
    return _Builder(graph, files, fused, seconds).build()


class _Builder:
    def __init__(
        self,
        graph: Graph,
        files: Mapping[str, int],
        fused: Mapping[str, str],
        seconds: Mapping[str, float] | None,
    ) -> None:
        self.graph = graph
        self.files = files
        self.fused = fused
        self.seconds = seconds
        self.root = self._tree(graph.name, "network", "", graph.shape_of(graph.output))
        self.groups: dict[str, Tree] = {"": self.root}

    def build(self) -> Tree:
        for node in self.graph.nodes:
            level = self._level(node.path)
            self.groups[level].setdefault("c", []).append(self._leaf(node, level))
            cost = node_cost(self.graph, node)
            for group in self._above(level):
                self._count(group, node, cost)
        return self.root

    def _level(self, path: str) -> str:
        """The innermost block or composite of a node; it and those around it get a tree."""
        level = here = ""
        for part in path.split("."):
            here = f"{here}.{part}" if here else part
            scope = self.graph.scopes.get(here)
            if scope is None:
                continue
            if here not in self.groups:
                group = self._tree(_relative(here, level), scope.kind, here, scope.shape)
                group["l"] = self._place(scope.origin.source.name, scope.origin.line)
                self.groups[here] = group
                self.groups[level].setdefault("c", []).append(group)
            level = here
        return level

    def _above(self, level: str) -> list[Tree]:
        groups = [self.root]
        here = ""
        for part in level.split(".") if level else ():
            here = f"{here}.{part}" if here else part
            if here in self.groups:
                groups.append(self.groups[here])
        return groups

    def _leaf(self, node: Node, level: str) -> Tree:
        name = _relative(node.path, level) if node.path != level else f"({node.op.kind})"
        leaf = self._tree(name, node.op.kind, node.path, node.shape)
        leaf["l"] = self._place(node.origin.source.name, node.origin.line)
        leaf["i"] = list(node.inputs)
        if arguments := str(node.op).removeprefix(node.op.kind).strip("[]"):
            leaf["d"] = arguments
        if node.path in self.fused:
            leaf["f"] = self.fused[node.path]
        if node.aux:
            leaf["x"] = 1
        self._count(leaf, node, node_cost(self.graph, node))
        return leaf

    def _tree(self, name: str, kind: str, path: str, shape: TensorShape) -> Tree:
        return {"n": name, "k": kind, "p": path, "s": str(shape), "w": 0, "m": 0, "a": 0}

    def _count(self, tree: Tree, node: Node, cost: Cost) -> None:
        tree["w"] += cost.params
        tree["m"] += cost.macs
        tree["a"] += node.shape.elements * _BYTES
        if self.seconds is not None:
            tree["t"] = tree.get("t", 0.0) + self.seconds.get(node.path, 0.0)

    def _place(self, file: str, line: int) -> list[int]:
        return [self.files.get(file, 0), line]


def _relative(path: str, level: str) -> str:
    return path.removeprefix(f"{level}.") if level else path
