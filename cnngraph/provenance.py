"""Says where a value's shape comes from, in the words a diagnostic needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnngraph.graph import INPUT, Node, TensorShape


@dataclass(frozen=True)
class Provenance:
    """Traces shapes back through the nodes elaborated so far."""

    nodes: Mapping[str, Node]
    input: TensorShape

    def of(self, path: str) -> str:
        """`"128 channels from conv2d at line 44; 28x28 since max_pool2d at line 22"`."""
        text = self._channels(path)
        size = self._shape(path).spatial
        return f"{text}; {'x'.join(map(str, size))} {self._size(path)}" if size else text

    def _shape(self, path: str) -> TensorShape:
        return self.input if path == INPUT else self.nodes[path].shape

    def _channels(self, path: str) -> str:
        shape = self._shape(path)
        noun = "channels" if shape.spatial else "features"
        while path != INPUT and not self.nodes[path].op.sets_channels:
            path = self.nodes[path].inputs[0]
        if path == INPUT:
            return f"{shape.channels} {noun} of the input"
        node = self.nodes[path]
        where = f"{node.op.kind} at line {node.origin.line}"
        if len(node.inputs) > 1:
            parts = " + ".join(str(self._shape(source).channels) for source in node.inputs)
            return f"{shape.channels} = {parts} {noun}, the {where}"
        return f"{shape.channels} {noun} from {where}"

    def _size(self, path: str) -> str:
        size = self._shape(path).spatial
        while path != INPUT:
            node = self.nodes[path]
            if self._shape(node.inputs[0]).spatial != size:
                return f"since {node.op.kind} at line {node.origin.line}"
            path = node.inputs[0]
        return "from the input"
