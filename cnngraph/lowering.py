"""Graph -> `torch.fx.GraphModule`: modules at the spec's paths, and a straight-line `forward` that calls them.

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


def lower(graph: Graph) -> fx.GraphModule:
    """The network as a module, with newly initialised weights. Every leaf op's module sits at its node's path."""
    root = _modules(graph)
    network = fx.Graph()
    values = {INPUT: network.placeholder("x")}
    heads: dict[str, fx.Node] = {}
    for aux, run in groupby(graph.nodes, key=lambda node: node.aux):
        nodes = list(run)
        if aux:
            heads[aux] = _side_head(graph, aux, nodes, root, network, values)
        else:
            _emit(nodes, network, values)
    result = values[graph.output]
    if heads:
        result = network.call_function(with_aux, (result, heads))
    network.output(result)
    _keep_calls(network)
    module = fx.GraphModule(root, network, class_name=_class_name(graph.name))
    for path, names in graph.order.items():
        _put_first(module.get_submodule(path), names)
    return module


def _modules(graph: Graph) -> nn.Module:
    """A tree of modules, in the order of the graph's leaves."""
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
    module = fx.GraphModule(root.get_submodule(aux), head, class_name=_class_name(aux))
    parent, _, name = aux.rpartition(".")
    root.get_submodule(parent).add_module(name, module)
    inputs = [values[path] for path in outside]
    return network.call_function(in_training, (network.get_attr(aux), *inputs))


def _keep_calls(graph: fx.Graph) -> None:
    """Unpickling traces the generated code anew: Python functions must stay calls then, not be traced into."""
    for node in graph.nodes:
        if isinstance(node.target, FunctionType) and node.target.__module__.partition(".")[0] != "torch":
            node.meta["is_wrapped"] = True


def _put_first(module: nn.Module, names: Sequence[str]) -> None:
    """Orders a module's children, which decides the order of the `state_dict`."""
    children = dict(module._modules)
    module._modules.clear()
    module._modules.update({name: children[name] for name in names if name in children})
    module._modules.update(children)


def _variable(path: str) -> str:
    """The name of a node's value in `net.code`."""
    name = re.sub(r"\W+", "_", path).strip("_")
    return f"_{name}" if name[0].isdigit() else name


def _class_name(name: str) -> str:
    return re.sub(r"\W", "_", name) or "network"
