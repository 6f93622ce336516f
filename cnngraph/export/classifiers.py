"""Which layers of emitted Python have `num_classes` outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cnngraph.export.constructs import Construct
from cnngraph.graph import Graph, Node
from cnngraph.importer.holes import Expression
from cnngraph.lowering.levels import Level

_KINDS = ("linear", "conv2d")
_SIZES = ("num_classes", "out_features", "out_channels")


class Classifiers:
    """The last layers of a network and of its side heads, if they have an output per class.

    Attributes:
        size: the number of classes; 0 if the network is no classifier.
    """

    def __init__(self, graph: Graph) -> None:
        main = _last_layer(graph, "")
        layers = [layer for head in ("", *graph.aux) if (layer := _last_layer(graph, head))]
        self.size = 0
        if main is not None and main.op.kind in _KINDS and not graph.features:
            classes = graph.shape_of(graph.output).channels
            self.size = classes if main.shape.channels == classes else 0
        self._paths = {
            layer.path
            for layer in layers
            if layer.op.kind in _KINDS and not layer.shared and layer.shape.channels == self.size
        }
        self._adjustable = set(self._paths)

    def claim(self, levels: Sequence[Level], constructs: Mapping[str, Construct]) -> frozenset[str]:
        """The children that make classifiers, in each of the levels of a class.

        If there are any, the class gets an argument `num_classes`.
        """
        children = {self._children(level, constructs) for level in levels}
        found = children.pop() if len(children) == 1 else frozenset[str]()
        if found:
            self._adjustable.update(level.path for level in levels)
        return found

    def _children(self, level: Level, constructs: Mapping[str, Construct]) -> frozenset[str]:
        found: set[str] = set()
        for path in self._paths:
            if path.startswith(level.prefix):
                name = level.name_of(path).partition(".")[0]
                if self._is_reached(path, level.prefix + name, constructs):
                    found.add(name)
        return frozenset(found)

    def _is_reached(self, path: str, child: str, constructs: Mapping[str, Construct]) -> bool:
        """Whether the size of a layer can be an argument of the call that makes `child`."""
        while child not in self._adjustable:
            if constructs.get(child, Construct("")).callee != "nn.Sequential":
                return False
            following = path[len(child) + 1 :].partition(".")[0]
            child = f"{child}.{following}"
        return True


def _last_layer(graph: Graph, head: str) -> Node | None:
    found = None
    for node in graph.nodes:
        shapes = graph.input_shapes(node)
        if node.aux == head and (node.op.parameters(*shapes) or node.op.buffers(*shapes)):
            found = node
    return found


def with_classes(construct: Any) -> Construct:
    """The call with `num_classes` as the size of its last layer."""
    items = list(construct.items)
    for index in reversed(range(len(items))):
        if _has_size(items[index]):
            items[index] = with_classes(items[index])
            return replace(construct, items=tuple(items))
    name = next(name for name in _SIZES if name in construct.args)
    return replace(construct, args=construct.args | {name: Expression("num_classes")})


def _has_size(construct: Construct) -> bool:
    return any(name in construct.args for name in _SIZES) or any(map(_has_size, construct.items))
