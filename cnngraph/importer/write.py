"""Nodes of a network -> the text of its spec: blocks, repeats, params, and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.graph import Graph
from cnngraph.graph.cost import summarize
from cnngraph.importer.blocks import find_blocks
from cnngraph.importer.holes import ABSENT, Expression
from cnngraph.importer.layout import data_of, name_nodes, name_outer, tidy, value_of
from cnngraph.importer.nodes import SpecNode
from cnngraph.importer.repeats import fold_repeats
from cnngraph.importer.source import Source
from cnngraph.importer.yaml_text import yaml_text
from cnngraph.shape import TensorShape

_FEWEST_PASSED = 3


def spec_text(
    name: str,
    inputs: Mapping[str, TensorShape],
    graph: list[SpecNode],
    outputs: Mapping[str, str],
    source: Source,
    *,
    variants: bool = True,
    allow_code: bool = False,
) -> tuple[str, Graph]:
    """The spec of a network, and what it elaborates to.

    Args:
        name: the network's name.
        inputs: the shapes of one image, by the names of the inputs.
        graph: the nodes of the network; they are changed.
        outputs: the names of the values that it returns, if there are several.
        source: the module that is imported.
        variants: whether a block may have optional nodes, for modules that differ in these, and
            a repeat several nodes.
        allow_code: whether it may contain `module:` nodes.
    """
    fold = fold_repeats if variants else partial(fold_repeats, most_nodes=1)
    blocks = find_blocks(graph, source, fold, variants=variants)
    graph = fold(graph)
    params: dict[str, Any] = {}
    if (classes := _name_classes(graph)) is not None:
        params["num_classes"] = classes
    for block in blocks:
        tidy(block.body, whole=True)
    tidy(graph)
    name_outer(graph)
    defaults = {block.name: block.params for block in blocks}
    for body in (*(block.body for block in blocks), graph):
        name_nodes(body)
        _drop_defaults(body, defaults)
    for block in blocks:
        _pass_params(block.body, block.params, defaults)
    document: dict[str, Any] = {"cnngraph": 1, "name": name}
    if len(inputs) == 1:
        (document["input"],) = map(list, inputs.values())
    else:
        document["inputs"] = {name: list(shape) for name, shape in inputs.items()}
    if outputs:
        document["outputs"] = _keys(outputs)
    if params:
        document["params"] = params
    if blocks:
        document["blocks"] = {
            block.name: ({"params": value_of(block.params)} if block.params else {})
            | ({"order": block.order} if block.order else {})
            | {"body": data_of(block.body, whole=True)}
            for block in blocks
        }
    document["graph"] = data_of(graph)
    elaborated = elaborate_or_raise(read_spec(yaml_text(document), allow_code), {})
    total = summarize(elaborated).total
    document["expect"] = {
        "params": total.params,
        "buffers": total.buffers,
        "macs": total.macs,
    }
    return yaml_text(document), elaborated


def _keys(outputs: Mapping[str, str]) -> dict[int | str, str]:
    """The outputs, with numbers in place of names such as "0"."""
    return {int(name) if name.isdecimal() else name: of for name, of in outputs.items()}


def _drop_defaults(nodes: list[SpecNode], defaults: dict[str, dict[str, Any]]) -> None:
    """Leaves out the arguments of block calls that are the block's defaults."""
    for top in nodes:
        for node in top.walk():
            known = defaults.get(node.kind, {})
            node.args = {
                name: value
                for name, value in node.args.items()
                if value is not ABSENT and (known.get(name) is None or value != known[name])
            }


def _pass_params(
    nodes: list[SpecNode], own: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]
) -> None:
    """Shortens the calls in a block that pass on its own parameters, if they are many."""
    for top in nodes:
        for node in top.walk():
            passed = [name for name, value in node.args.items() if value == Expression(name)]
            if len(passed) < _FEWEST_PASSED or node.kind not in known:
                continue
            if own.keys() & known[node.kind].keys() <= node.args.keys():
                kept = {name: value for name, value in node.args.items() if name not in passed}
                node.args = {**kept, "pass_params": True}


def _name_classes(graph: list[SpecNode]) -> int | None:
    """Makes the size of the last layer the param `num_classes`, and returns it."""
    layers = [node for node in _in_chain(graph) if node.kind in ("linear", "conv2d", "linear2d")]
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


def _in_chain(nodes: list[SpecNode]) -> Iterator[SpecNode]:
    """The nodes that are part of no branch."""
    for node in nodes:
        yield node
        if node.kind in ("sequential", "aux"):
            yield from _in_chain(node.parts["body"])
