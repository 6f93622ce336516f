"""For evaluation: the layers of a dense block append to one buffer, without concatenation."""

from __future__ import annotations

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.fused import BatchNormAct, DenseLayers, Folded
from cnngraph.ops.merge import Concat

_Layer = tuple[Node, ...]
"""A batch norm with its activation, the layers after it, and the concatenation."""


def append_dense_layers(graph: Graph) -> Graph:
    """Runs after `fold_batch_norm` and `fuse_batch_norm_act`."""
    layers = {node.path: layer for node in graph.nodes if (layer := _layer(graph, node))}

    def match(node: Node) -> Group | None:
        if node.path not in layers:
            return None
        block = [layers[node.path]]
        while before := layers.get(block[0][0].inputs[0]):
            if not _is_read_only_by(graph, before, block[0]):
                break
            block.insert(0, before)
        nodes = [part for layer in block for part in layer]
        op = DenseLayers(layers=tuple(tuple(part.op for part in layer[:-1]) for layer in block))
        return nodes, Node.fuse(nodes, op, nodes[0].inputs)

    return graph.rewrite(match)


def _layer(graph: Graph, concat: Node) -> _Layer | None:
    """The layer whose result this concatenation appends to the maps that the layer reads."""
    if not isinstance(concat.op, Concat) or len(concat.inputs) != 2:
        return None
    maps, path = concat.inputs
    chain = [concat]
    while path != maps:
        node = graph.producer_for(chain[0], path)
        if node is None or len(node.inputs) != 1:
            return None
        if not isinstance(node.op, Folded if len(chain) == 1 else (Folded, BatchNormAct)):
            return None
        chain.insert(0, node)
        path = node.inputs[0]
    folds = all(isinstance(node.op, Folded) for node in chain[1:-1])
    return tuple(chain) if folds and isinstance(chain[0].op, BatchNormAct) else None


def _is_read_only_by(graph: Graph, layer: _Layer, reader: _Layer) -> bool:
    path = layer[-1].path
    users = {user.path for user in graph.users[path]}
    return path not in graph.outputs and users == {reader[0].path, reader[-1].path}
