"""Nodes of a network -> the text of its spec: blocks, repeats, params, and figures."""

from __future__ import annotations

from typing import Any

from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.graph.cost import summarize
from cnngraph.importer.blocks import find_blocks
from cnngraph.importer.holes import Expression
from cnngraph.importer.layout import data_of, name_nodes, tidy
from cnngraph.importer.nodes import SpecNode
from cnngraph.importer.repeats import fold_repeats
from cnngraph.importer.source import Source
from cnngraph.importer.yaml_text import yaml_text
from cnngraph.shape import TensorShape


def spec_text(name: str, input: TensorShape, graph: list[SpecNode], source: Source) -> str:
    """The spec of a network.

    Args:
        name: the network's name.
        input: the shape of one image.
        graph: the nodes of the network; they are changed.
        source: the module that is imported.
    """
    blocks = find_blocks(graph, source, fold_repeats)
    graph = fold_repeats(graph)
    params: dict[str, Any] = {}
    if (classes := _name_classes(graph)) is not None:
        params["num_classes"] = classes
    for block in blocks:
        tidy(block.body, whole=True)
    tidy(graph)
    defaults = {block.name: block.params for block in blocks}
    for body in (*(block.body for block in blocks), graph):
        name_nodes(body)
        _drop_defaults(body, defaults)
    document: dict[str, Any] = {"cnngraph": 1, "name": name, "input": list(input)}
    if params:
        document["params"] = params
    if blocks:
        document["blocks"] = {
            block.name: ({"params": block.params} if block.params else {})
            | ({"order": block.order} if block.order else {})
            | {"body": data_of(block.body, whole=True)}
            for block in blocks
        }
    document["graph"] = data_of(graph)
    total = summarize(elaborate_or_raise(read_spec(yaml_text(document)), {})).total
    document["expect"] = {
        "params": total.params,
        "buffers": total.buffers,
        "macs": total.macs,
    }
    return yaml_text(document)


def _drop_defaults(nodes: list[SpecNode], defaults: dict[str, dict[str, Any]]) -> None:
    """Leaves out the arguments of block calls that are the block's defaults."""
    for top in nodes:
        for node in top.walk():
            known = defaults.get(node.kind, {})
            node.args = {
                name: value
                for name, value in node.args.items()
                if known.get(name) is None or value != known[name]
            }


def _name_classes(graph: list[SpecNode]) -> int | None:
    """Makes the size of the last layer the param `num_classes`, and returns it."""
    layers = [
        node
        for top in graph
        for node in top.walk()
        if node.kind in ("linear", "conv2d", "linear2d")
    ]
    if not layers:
        return None
    last = layers[-1]
    argument = "out_channels" if last.kind == "conv2d" else "out_features"
    classes = last.args.get(argument)
    if type(classes) is not int:
        return None
    for node in layers:
        if node is last or (node.kind == last.kind == "linear" and node.args[argument] == classes):
            node.args[argument] = Expression("num_classes")
    return classes
