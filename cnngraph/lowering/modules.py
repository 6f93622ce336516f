"""Graph -> modules: one module for each leaf and each level of the spec, at its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cnngraph.graph import Graph
from cnngraph.lowering.code import LevelCode
from cnngraph.lowering.initial import initialise, zero_last_norms
from cnngraph.lowering.levels import Level, Levels, is_chain, parent_of
from cnngraph.nn import level as kinds
from cnngraph.shape import TensorShape
from cnngraph.spec.initial import Rules


def modules_of(graph: Graph, init: Rules | None = None) -> dict[str, nn.Module | nn.Parameter]:
    """A newly initialised module for every leaf op that has one, by path, in the graph's order.

    `init` are the rules of a spec. The random numbers do not depend on the backend.

    An op whose only state is a parameter at its own path gets that parameter in the place of a
    module.
    """
    shapes: dict[str, TensorShape] = dict(graph.inputs)
    modules: dict[str, nn.Module | nn.Parameter] = {}
    for leaf in graph.leaves():
        shapes[leaf.path] = leaf.shape
        if leaf.op.has_module and not leaf.shared:
            module = leaf.op.module(*(shapes[path] for path in leaf.inputs))
            initialise(module, leaf, init or {})
            modules[leaf.path] = module
    zero_last_norms(graph, modules, init or {})
    return modules


@dataclass(frozen=True)
class Roots:
    """The classes of a whole network: `sequential` if its children form a chain, else `other`."""

    sequential: type[Any]
    other: type[Any]


def lower(
    graph: Graph,
    optimized: Graph,
    optimize: Callable[[Graph], Graph],
    modules: Mapping[str, nn.Module | nn.Parameter],
    roots: Roots,
) -> Any:
    """The network that computes `optimized`, with `modules` at the paths of `graph`.

    Args:
        graph: the network as written in the spec.
        optimized: the same network after the passes.
        optimize: runs the passes; it is called for a copy of `graph` with more outputs.
        modules: a module or parameter for each leaf that has one, by path.
        roots: the classes of the network.
    """
    levels = Levels(graph)
    built: dict[str, nn.Module] = {
        "": (roots.sequential if is_chain(graph, levels[""]) else roots.other)()
    }

    def build(path: str) -> nn.Module:
        if path not in built:
            parent = build(parent_of(path))
            built[path] = _module_of(graph, levels[path]) if path in levels else nn.Module()
            parent.add_module(path.rpartition(".")[2], built[path])
        return built[path]

    for path, module in modules.items():
        # A module, or the parameter of an op without a module.
        setattr(build(parent_of(path)), path.rpartition(".")[2], module)
    for path in levels:
        build(path)
    for path, names in graph.order.items():
        if path in built:
            _put_first(built[path], names)
    names = {path: tuple(module._modules) for path, module in built.items()}
    code = LevelCode(graph, levels, names, optimized, optimize)
    for path, module in built.items():
        if path in levels:
            module._code = code.of(levels[path])  # pyright: ignore[reportArgumentType]
    return built[""]


def _module_of(graph: Graph, level: Level) -> nn.Module:
    if is_chain(graph, level):
        return kinds.Sequential()
    module = kinds.Level() if len(level.inputs) == 1 else kinds.JoinLevel()
    scope = graph.scopes.get(level.path)
    if scope is not None:
        module._kind = scope.kind
    return module


def _put_first(module: nn.Module, names: tuple[str, ...]) -> None:
    children = dict(module._modules)
    module._modules.clear()
    module._modules.update({name: children[name] for name in names if name in children} | children)
