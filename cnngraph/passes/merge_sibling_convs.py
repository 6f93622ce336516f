"""The 1x1 convolutions that read one value become one, with their weights side by side (horizontal fusion)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, ChannelSlice, SiblingConvs


def merge_sibling_convs(graph: Graph) -> Graph:
    """Runs after `fuse_batch_norm_act`: what it makes reads its part of the merged map where it lies."""
    merged: dict[str, Node] = {}
    slices: dict[str, Node] = {}
    for siblings in _siblings(graph):
        whole = _merge(siblings)
        merged[siblings[0].path] = whole
        for index, conv in enumerate(siblings):
            part = ChannelSlice(index=index, channels=conv.shape.channels)
            slices[conv.path] = replace(conv, op=part, inputs=(whole.path,))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.path in merged:
            nodes.append(merged[node.path])
        nodes.append(slices.get(node.path, node))
    return graph.with_nodes(nodes)


def _siblings(graph: Graph) -> Iterator[list[Node]]:
    found: dict[object, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if isinstance(node.op, Conv2d) and _is_pointwise(node.op) and _is_normalized(graph, node):
            found[node.inputs, node.aux, node.op.bias].append(node)
    return (siblings for siblings in found.values() if _pays(graph, siblings))


def _is_pointwise(op: Conv2d) -> bool:
    return (op.kernel_size, op.stride, op.groups, op.padding_mode) == ((1, 1), (1, 1), 1, "zeros") and (
        op.padding in ((0, 0), "valid", "same")
    )


def _is_normalized(graph: Graph, conv: Node) -> bool:
    """Whether batch norms alone read it, and add it to nothing: others would copy their part of the merged map first."""
    readers = graph.users.get(conv.path, ())
    if not readers or conv.path in graph.outputs:
        return False
    return all(isinstance(reader.op, BatchNormAct) and conv.path not in reader.inputs[1:] for reader in readers)


def _pays(graph: Graph, siblings: list[Node]) -> bool:
    """Apart, each but one reads the input again, and makes a gradient for it that is added to the others'.

    Together, the gradients of their results are first put side by side: more than that where they are wide.
    """
    spared = (len(siblings) - 1) * graph.shape_of(siblings[0].inputs[0]).channels
    return spared > sum(conv.shape.channels for conv in siblings)


def _merge(siblings: list[Node]) -> Node:
    """It stands before the first, and has a path of its own: theirs are those of its slices."""
    first = siblings[0]
    op = SiblingConvs(convs=tuple(conv.op for conv in siblings))
    channels = sum(conv.shape.channels for conv in siblings)
    return replace(
        first,
        path=f"(siblings of {first.path})",
        op=op,
        shape=first.shape.with_channels(channels),
        parts=tuple(siblings),
    )
