"""Graph -> modules at the spec's paths, and the straight-line `fx.Graph` that calls them.

Side heads become GraphModules of their own, which the network calls in training only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import TypeVar

from torch import fx, nn

from cnngraph.graph import INPUT, Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.nn import in_training, recomputed, with_aux
from cnngraph.ops.conv import Conv2d
from cnngraph.shape import TensorShape

Kind = TypeVar("Kind", bound=fx.GraphModule)


def modules_of(graph: Graph) -> nn.Module:
    """A tree of newly initialised modules: every leaf op's module at its node's path, in the order of the graph."""
    shapes: dict[str, TensorShape] = {INPUT: graph.input}
    root = nn.Module()
    containers = {"": root}
    for leaf in graph.leaves():
        shapes[leaf.path] = leaf.shape
        if leaf.op.has_module:
            parent, _, name = leaf.path.rpartition(".")
            # A module, or the one parameter of an op that holds it at its own path.
            setattr(_container(containers, parent), name, leaf.op.module(*(shapes[path] for path in leaf.inputs)))
    for head in graph.aux:
        _container(containers, head)  # it becomes a module even where it holds none
    for path, names in graph.order.items():
        if path in containers:
            _put_first(containers[path], names)
    return root


def _container(containers: dict[str, nn.Module], path: str) -> nn.Module:
    if path not in containers:
        parent, _, name = path.rpartition(".")
        containers[path] = nn.Module()
        _container(containers, parent).add_module(name, containers[path])
    return containers[path]


def network_of(graph: Graph, root: nn.Module, kind: type[Kind]) -> Kind:
    """The network that calls the modules of `root` as the graph says; its children stand in the order of `root`'s."""
    order = {path: list(module._modules) for path, module in root.named_modules() if type(module) is nn.Module}
    network = kind(root, _calls(graph, root), class_name=_class_name(graph.name))
    for path, names in order.items():
        _put_first(network.get_submodule(path), names)
    return network


def _put_first(module: nn.Module, names: Sequence[str]) -> None:
    children = dict(module._modules)
    module._modules.clear()
    module._modules.update({name: children[name] for name in names if name in children} | children)


def _calls(graph: Graph, root: nn.Module) -> fx.Graph:
    """The code of a network's `forward`. Side heads in `root` are replaced by GraphModules of their own."""
    network = fx.Graph()
    values = {INPUT: network.placeholder("x")}
    members: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        members[node.aux].append(node)
    heads: dict[str, fx.Node] = {}
    for node in graph.nodes:
        if not node.aux:
            if isinstance(node.op, Recomputed):
                _recomputed(node, node.op, root, network, values)
            else:
                _emit([node], network, values)
        elif node is members[node.aux][-1]:
            heads[node.aux] = _side_head(graph, node.aux, members[node.aux], root, network, values)
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
        modules = [part.path.removeprefix(prefix) for part in node.leaves if part.op.has_module]
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


def _recomputed(node: Node, op: Recomputed, root: nn.Module, network: fx.Graph, values: dict[str, fx.Node]) -> None:
    """Gives the network a GraphModule for the part, and calls it with the modules that it uses.

    The GraphModule holds none of them, so every module stays where the spec has it.
    """
    part = fx.Graph()
    inner = {path: part.placeholder("x" if path == INPUT else _variable(path)) for path in op.reads}
    _emit(op.nodes, part, inner)
    part.output(inner[node.path])
    held = _as_arguments(part)
    _keep_calls(part)
    name = f"_recomputed_{_variable(node.path)}"
    while hasattr(root, name):
        name += "_"
    root.add_module(name, fx.GraphModule(nn.Module(), part, class_name=_class_name(name)))
    arguments = [values[path] for path in op.reads]
    leaves = (leaf for inner in op.nodes for leaf in inner.leaves)
    of_plugins = any(not type(leaf.op).__module__.startswith("cnngraph.") for leaf in leaves)
    value = network.call_function(
        recomputed,
        (network.get_attr(name), [*map(network.get_attr, held)], *arguments),
        {"unknown": of_plugins, "stops_early": isinstance(op.nodes[-1].op, Conv2d)},
    )
    value._rename(_variable(node.path))
    values[node.path] = value


def _as_arguments(part: fx.Graph) -> list[str]:
    """Makes the modules and parameters that a graph uses its first arguments, and returns their targets."""
    first = next(iter(part.nodes))
    arguments: dict[str, fx.Node] = {}
    for node in list(part.nodes):
        if node.op not in ("get_attr", "call_module"):
            continue
        if node.target not in arguments:
            with part.inserting_before(first):
                arguments[node.target] = part.placeholder(_variable(node.target))
        value, name = arguments[node.target], node.name
        if node.op == "call_module":
            with part.inserting_before(node):
                value = part.call_method("__call__", (value, *node.args))
        node.replace_all_uses_with(value)
        part.erase_node(node)
        if value.op == "call_method":
            value._rename(name)
    for argument in arguments.values():
        argument.target = argument.name
    return list(arguments)


def _keep_calls(graph: fx.Graph) -> None:
    """Unpickling traces the generated code anew: Python functions must stay calls then, not be traced into."""
    for node in graph.nodes:
        if isinstance(node.target, FunctionType) and node.target.__module__.partition(".")[0] != "torch":
            node.meta["is_wrapped"] = True


def _variable(path: str) -> str:
    """The name of a node's value in `net.code`."""
    name = re.sub(r"\W+", "_", path).strip("_")
    return f"_{name}" if name[0].isdigit() or name == "self" else name


def _class_name(name: str) -> str:
    return re.sub(r"\W", "_", name) or "network"
