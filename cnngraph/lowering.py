"""Graph -> modules at the spec's paths, and the straight-line `fx.Graph` that calls them.

Side heads become GraphModules of their own, which the network calls in training only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from types import FunctionType

from torch import fx, nn

from cnngraph.graph import INPUT, Graph, Node, TensorShape
from cnngraph.nn import in_training, with_aux


def modules_of(graph: Graph) -> nn.Module:
    """A tree of newly initialised modules: every leaf op's module at its node's path."""
    shapes: dict[str, TensorShape] = {INPUT: graph.input}
    root = nn.Module()
    for leaf in graph.leaves():
        shapes[leaf.path] = leaf.shape
        if leaf.op.has_module:
            module = leaf.op.module(*(shapes[path] for path in leaf.inputs))
            _place(root, leaf.path, module)
    return root


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)


def put_in_order(network: nn.Module, graph: Graph) -> None:
    """Orders the children of modules whose weights are not kept in the order they run in."""
    for path, names in graph.order.items():
        children = network.get_submodule(path)._modules
        behind = {name: child for name, child in children.items() if name not in names}
        first = {name: children[name] for name in names if name in children}
        children.clear()
        children.update(first | behind)


def code_graph(graph: Graph, root: nn.Module) -> fx.Graph:
    """The calls of a network's `forward`. Side heads in `root` are replaced by GraphModules of their own."""
    network = fx.Graph()
    values = {INPUT: network.placeholder("x")}
    heads: dict[str, fx.Node] = {}
    for aux, run in groupby(graph.nodes, key=lambda node: node.aux):
        nodes = list(run)
        if aux:
            heads[aux] = _side_head(graph, aux, nodes, root, network, values)
        else:
            _emit(nodes, network, values)
    if graph.features:
        network.output({name: values[path] for name, path in graph.features.items()})
    elif heads:
        network.output(network.call_function(with_aux, (values[graph.output], heads)))
    else:
        network.output(values[graph.output])
    _keep_calls(network)
    return network


def straight_line(graph: Graph, output: str) -> fx.Graph:
    """The calls that lead to one value."""
    code = fx.Graph()
    values = {INPUT: code.placeholder("x")}
    _emit(graph.nodes, code, values)
    code.output(values[output])
    return code


def _emit(nodes: Sequence[Node], graph: fx.Graph, values: dict[str, fx.Node], prefix: str = "") -> None:
    for node in nodes:
        modules = [part.path.removeprefix(prefix) for part in node.parts or (node,) if part.op.has_module]
        value = node.op.emit(graph, modules, [values[path] for path in node.inputs])
        value._rename(_variable(node.path))
        values[node.path] = value


def _side_head(
    graph: Graph, aux: str, nodes: Sequence[Node], root: nn.Module, network: fx.Graph, values: Mapping[str, fx.Node]
) -> fx.Node:
    """Puts a side head's own GraphModule at its path, and calls it from the network."""
    own = {node.path for node in nodes}
    outside = list(dict.fromkeys(path for node in nodes for path in node.inputs if path not in own))
    head = fx.Graph()
    inner = {path: head.placeholder(f"x{index or ''}") for index, path in enumerate(outside)}
    _emit(nodes, head, inner, prefix=f"{aux}.")
    head.output(inner[graph.aux[aux]])
    _keep_calls(head)
    module = fx.GraphModule(root.get_submodule(aux), head, class_name=class_name(aux))
    parent, _, name = aux.rpartition(".")
    root.get_submodule(parent).add_module(name, module)
    inputs = [values[path] for path in outside]
    return network.call_function(in_training, (network.get_attr(aux), *inputs))


def _keep_calls(graph: fx.Graph) -> None:
    """Unpickling traces the generated code anew: Python functions must stay calls then, not be traced into."""
    for node in graph.nodes:
        if isinstance(node.target, FunctionType) and node.target.__module__.partition(".")[0] != "torch":
            node.meta["is_wrapped"] = True


def _variable(path: str) -> str:
    """The name of a node's value in `net.code`."""
    name = re.sub(r"\W+", "_", path).strip("_")
    return f"_{name}" if name[0].isdigit() else name


def class_name(name: str) -> str:
    return re.sub(r"\W", "_", name) or "network"
