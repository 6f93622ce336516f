"""Describes where a value's shape comes from, for diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cnngraph.graph import Node
from cnngraph.shape import TensorShape


class Provenance:
    """Traces shapes back through the nodes elaborated so far, and caches the results."""

    def __init__(self, nodes: Mapping[str, Node], inputs: Mapping[str, TensorShape]) -> None:
        self.nodes = nodes
        self.inputs = inputs
        self._channels_set: dict[str, str] = {}
        self._size_set: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Such as `"128 channels from conv2d at line 44; 28x28 since max_pool2d at line 22"`."""
        text = self._channels(path)
        size = self._shape(path).spatial
        return f"{text}; {'x'.join(map(str, size))} {self._size(path)}" if size else text

    def _shape(self, path: str) -> TensorShape:
        return self.inputs[path] if path in self.inputs else self.nodes[path].shape

    def _input(self, name: str) -> str:
        return f"the input `{name}`" if len(self.inputs) > 1 else "the input"

    def _trace(self, path: str, known: dict[str, str], decides: Callable[[Node], bool]) -> str:
        """The path of the last node up to `path` for which `decides` is true, or the input."""
        passed: list[str] = []
        while path not in self.inputs and path not in known and not decides(self.nodes[path]):
            passed.append(path)
            path = self.nodes[path].inputs[0]
        found = known.get(path, path)
        known.update(dict.fromkeys(passed, found))
        return found

    def _channels(self, path: str) -> str:
        shape = self._shape(path)
        noun = "channels" if shape.spatial else "features"
        path = self._trace(path, self._channels_set, lambda node: node.op.sets_channels)
        if path in self.inputs:
            return f"{shape.channels} {noun} of {self._input(path)}"
        node = self.nodes[path]
        where = f"{node.op.kind} at line {node.origin.line}"
        if len(node.inputs) > 1:
            parts = " + ".join(str(self._shape(source).channels) for source in node.inputs)
            return f"{shape.channels} = {parts} {noun}, the {where}"
        return f"{shape.channels} {noun} from {where}"

    def _size(self, path: str) -> str:
        path = self._trace(
            path,
            self._size_set,
            lambda node: self._shape(node.inputs[0]).spatial != node.shape.spatial,
        )
        if path in self.inputs:
            return f"from {self._input(path)}"
        node = self.nodes[path]
        return f"since {node.op.kind} at line {node.origin.line}"
