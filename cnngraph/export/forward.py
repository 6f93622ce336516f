"""The `forward` of an emitted class: one statement for each op and module of a level."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph, Node
from cnngraph.lowering.levels import Level

Item = Node | Level

_INFIX: dict[Any, str] = {operator.add: "+", operator.mul: "*", operator.sub: "-"}
_FIRST = ("x", "out")


class ForwardWriter:
    """Writes the statements of one level.

    Args:
        graph: the network.
        level: the level.
        attribute: the expression for the module or parameter of a child, such as `self.conv1`.
    """

    def __init__(self, graph: Graph, level: Level, attribute: Callable[[str], str]) -> None:
        self._graph = graph
        self._level = level
        self._attribute = attribute
        self._variables: dict[str, str] = {}

    def items(self) -> list[Item]:
        """The level's ops and levels in execution order."""
        index = self._graph.index
        placed: list[tuple[int, Item]] = [
            *((index[node.path], node) for node in self._level.nodes),
            *((child.last, child) for child in self._level.levels),
        ]
        return [item for _, item in sorted(placed, key=lambda pair: pair[0])]

    def lines(self) -> list[str]:
        """The function, without indentation of its own."""
        level, items = self._level, self.items()
        names = ["x"] if len(level.inputs) == 1 else [f"x{i}" for i in range(1, 9)]
        names = names[: len(level.inputs)]
        self._variables = dict(zip(level.inputs, names, strict=True))
        last_use = {path: len(items) for path in level.outputs}
        for index, item in reversed([*enumerate(items)]):
            for path in item.inputs:
                last_use.setdefault(path, index)
        arguments = ", ".join(f"{name}: torch.Tensor" for name in names)
        result = "torch.Tensor" if len(level.outputs) == 1 else "tuple[torch.Tensor, ...]"
        heads = self._graph.aux if not level.path else {}
        values = self._graph.features if not level.path else {}
        if heads or values:
            result = "dict[str, torch.Tensor]"
            result = result if values else f"torch.Tensor | {result}"
        lines = [f"def forward(self, {arguments}) -> {result}:"]
        for index, item in enumerate(items):
            expression = self._expression(item)
            outputs = item.outputs if isinstance(item, Level) else (item.path,)
            for path in set(item.inputs):
                if last_use[path] == index:
                    del self._variables[path]
            targets = [self._target(item, path) for path in outputs]
            line = f"    {', '.join(targets)} = {expression}"
            if isinstance(item, Level) and item.path in self._graph.aux:
                line = f"    {targets[0]} = {expression} if self.training else None"
            lines.append(line)
        if not heads and not values and len(level.outputs) == 1 and len(lines) > 1:
            return [*lines[:-1], f"    return {lines[-1].partition(' = ')[2]}"]
        return [*lines, *self._returned(heads, values)]

    def _returned(self, heads: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
        found = [self._variables[path] for path in self._level.outputs]
        result = self._dict(values) if values else ", ".join(found)
        if heads:
            main = values or {"logits": self._graph.output}
            results = self._dict({**main, **heads})
            result = result if values else self._variables[self._graph.output]
            return ["    if self.training:", f"        return {results}", f"    return {result}"]
        return [f"    return {result}"]

    def _dict(self, paths: Mapping[str, str]) -> str:
        pairs = [f'"{name}": {self._variables[path]}' for name, path in paths.items()]
        return f"{{{', '.join(pairs)}}}"

    def _target(self, item: Item, path: str) -> str:
        taken = set(self._variables.values())
        names = [*_FIRST]
        own = item.path.rpartition(".")[2]
        if own.isidentifier() and own not in ("self", "torch", "nn"):
            names.append(own)
        names += [f"branch{i}" for i in range(1, 100)]
        name = next(name for name in names if name not in taken)
        self._variables[path] = name
        return name

    def _expression(self, item: Item) -> str:
        reads = [self._variables[path] for path in item.inputs]
        if isinstance(item, Level):
            return f"{self._attribute(item.path)}({', '.join(reads)})"
        calls = fx.Graph()
        inputs = [calls.placeholder(f"input_{i}") for i in range(len(reads))]
        known = dict(zip(inputs, reads, strict=True))
        modules = [item.path] if item.op.has_module else []
        return self._text(item.op.emit(calls, modules, inputs), known)

    def _text(self, value: Any, known: dict[fx.Node, str]) -> str:
        if isinstance(value, tuple | list):
            inside = ", ".join(self._text(item, known) for item in value)
            return f"[{inside}]"
        if not isinstance(value, fx.Node):
            return repr(value)
        if value in known:
            return known[value]
        if value.op == "get_attr":
            return self._attribute(str(value.target))
        args = [self._text(item, known) for item in value.args]
        if value.op == "call_module":
            return f"{self._attribute(str(value.target))}({', '.join(args)})"
        if value.op == "call_method":
            return f"{args[0]}.{value.target}({', '.join(args[1:])})"
        if value.target is torch.cat:
            return f"torch.cat({args[0]}, dim={args[1]})"
        if value.target in _INFIX:
            return f" {_INFIX[value.target]} ".join(args)
        name = getattr(value.target, "__name__", "")
        if getattr(torch, name, None) is value.target:
            return f"torch.{name}({', '.join(args)})"
        raise CnngraphError(f"`{name}` cannot be written as plain PyTorch")
