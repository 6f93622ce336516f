"""The graph and modules of a network for evaluation, with batch norms folded into weights."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import nn

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph, Node
from cnngraph.nn.folded import fold
from cnngraph.ops.fused import Folded
from cnngraph.passes.fold_batch_norm import fold_batch_norm

Modules = dict[str, nn.Module | nn.Parameter]


def folded(graph: Graph, network: nn.Module) -> tuple[Graph, Modules]:
    """The graph of a network for evaluation, and its modules.

    A layer and the batch norm and activation after it become one module. Modules that have hooks,
    or cannot be folded, are copied.

    Raises `CnngraphError` if a module of the spec is missing from `network`.
    """
    graph = replace(graph, nodes=tuple(node for node in graph.nodes if not node.aux), aux={})
    nodes: list[Node] = []
    modules: Modules = {}
    copies: dict[object, Any] = {}  # modules that several nodes share stay shared
    paths: dict[str, str] = {}
    for node in fold_batch_norm(graph).nodes:
        chain = node.leaves
        if isinstance(node.op, Folded):
            parts: list[Any] = [_module(network, leaf) for leaf in chain if leaf.op.has_module]
            key = tuple(map(id, parts))
            made = copies[key] = copies[key] if key in copies else fold(*parts)
            if made is not None:
                path = paths[node.path] = chain[0].path
                nodes.append(replace(node, path=path, parts=()))
                modules[path] = made
                continue
        nodes += chain
        held = [leaf for leaf in chain if leaf.op.has_module]
        for leaf in held:
            if leaf.module not in copies:
                copies[leaf.module] = deepcopy(_module(network, leaf))
            modules[leaf.path] = copies[leaf.module]
    return _renamed(graph, nodes, paths), modules


def _module(network: nn.Module, leaf: Node) -> nn.Module | nn.Parameter:
    parent, _, name = leaf.module.rpartition(".")
    try:
        part = getattr(network.get_submodule(parent), name)
    except AttributeError:
        raise CnngraphError(
            f"`{leaf.path}` is no longer in this network: for_inference needs the levels of the "
            "spec"
        ) from None
    return part


def _renamed(graph: Graph, nodes: list[Node], paths: dict[str, str]) -> Graph:
    """The graph of these nodes, with its values renamed by `paths`."""

    def of(path: str) -> str:
        return paths.get(path, path)

    known = {node.path for node in nodes}
    used = [replace(node, inputs=tuple(map(of, node.inputs)), shared="") for node in nodes]
    scopes = {
        path: replace(scope, output=of(scope.output))
        for path, scope in graph.scopes.items()
        if of(scope.output) in known
    }
    features = {name: of(path) for name, path in graph.features.items()}
    return replace(
        graph, nodes=tuple(used), output=of(graph.output), scopes=scopes, features=features
    )
