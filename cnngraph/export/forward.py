"""The `forward` of an emitted class: one statement for each op and module of a level."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from cnngraph.errors import CnngraphError
from cnngraph.export.shared import SharedCall
from cnngraph.graph import Graph, Node
from cnngraph.lowering.levels import Level

Item = Node | Level | SharedCall

_INFIX: dict[Any, str] = {operator.add: "+", operator.mul: "*", operator.sub: "-"}
_FIRST = ("x", "out")
_RESERVED = {"self", "torch", "nn", "layer"}


def is_identity(node: Node) -> bool:
    """Whether a node's result is its input."""
    return node.op.kind == "identity"


class ForwardWriter:
    """Writes the statements of one level.

    Args:
        graph: the network.
        level: the level.
        items: its children in execution order.
        attribute: the expression for the module or parameter at a path, such as `self.conv1`.
    """

    def __init__(
        self, graph: Graph, level: Level, items: list[Item], attribute: Callable[[str], str]
    ) -> None:
        self._graph = graph
        self._level = level
        self._same: dict[str, str] = {}
        for item in items:
            if isinstance(item, Node) and is_identity(item):
                self._same[item.path] = self._value(item.inputs[0])
        self._items = [item for item in items if item.path not in self._same]
        self._attribute = attribute
        self._variables: dict[str, str] = {}
        self._last_use: dict[str, int] = {}
        self._reads: Counter[str] = Counter()

    def lines(self) -> list[str]:
        """The function, without indentation of its own."""
        level, items = self._level, self._items
        names = ["x"] if len(level.inputs) == 1 else [f"x{i + 1}" for i in range(len(level.inputs))]
        if not level.path and len(level.inputs) > 1 and not _RESERVED.intersection(level.inputs):
            names = [*level.inputs]
        self._variables = dict(zip(level.inputs, names, strict=True))
        self._last_use = {self._value(path): len(items) for path in level.outputs}
        for index, item in reversed([*enumerate(items)]):
            for path in map(self._value, item.inputs):
                self._last_use.setdefault(path, index)
                self._reads[path] += 1
        arguments = ", ".join(f"{name}: Tensor" for name in names)
        result = "Tensor" if len(level.outputs) == 1 else "tuple[Tensor, ...]"
        heads = self._graph.aux if not level.path else {}
        values = self._graph.features if not level.path else {}
        if heads or values:
            result = "dict[str, Tensor]" if values else "Tensor | dict[str, Tensor]"
        lines = [f"def forward(self, {arguments}) -> {result}:"]
        outputs: tuple[str, ...] = ()
        for index, item in enumerate(items):
            expression = self._expression(item)
            outputs = (item.path,) if isinstance(item, Node) else item.outputs
            for path in set(map(self._value, item.inputs)):
                if self._last_use[path] == index:
                    del self._variables[path]
            targets = [self._target(item, index, path) for path in outputs]
            if isinstance(item, Level) and item.path in self._graph.aux:
                expression = f"{expression} if self.training else None"
            lines.append(f"    {', '.join(targets)} = {expression}")
        results = [*map(self._value, level.outputs)]
        computed_last = results == [*map(self._value, outputs)]
        if not heads and not values and computed_last:
            return [*lines[:-1], f"    return {lines[-1].partition(' = ')[2]}"]
        return [*lines, *self._returned(heads, values)]

    def _value(self, path: str) -> str:
        """The value itself for the result of an identity."""
        return self._same.get(path, path)

    def _variable(self, path: str) -> str:
        return self._variables[self._value(path)]

    def _returned(self, heads: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
        found = [self._variable(path) for path in self._level.outputs]
        result = self._dict(values) if values else ", ".join(found)
        if heads:
            main = values or {"logits": self._graph.output}
            results = self._dict({**main, **heads})
            result = result if values else self._variable(self._graph.output)
            return ["    if self.training:", f"        return {results}", f"    return {result}"]
        return [f"    return {result}"]

    def _dict(self, paths: Mapping[str, str]) -> str:
        pairs = [f'"{name}": {self._variable(path)}' for name, path in paths.items()]
        return f"{{{', '.join(pairs)}}}"

    def _target(self, item: Item, index: int, path: str) -> str:
        """A variable for a value: `x` or `out`, or the module's name for one that is used later."""
        if path not in self._last_use:
            return "_"
        taken = set(self._variables.values())
        outputs = (path,) if isinstance(item, Node) else item.outputs
        own = item.path.rpartition(".")[2]
        has_name = own.isidentifier() and own not in _RESERVED and len(outputs) == 1
        is_module = not isinstance(item, Node) or item.op.has_module
        names = [*_FIRST]
        if len(outputs) > 1:
            names = [f"x{i}" for i in range(1, len(outputs) + 1)]
        elif has_name:
            kept = self._is_kept(path, index) and not self._continues(item, path)
            names.insert(0 if is_module and kept else len(names), own)
        names += [f"branch{i}" for i in range(1, 100)]
        name = next(name for name in names if name not in taken)
        self._variables[path] = name
        return name

    def _is_kept(self, path: str, index: int) -> bool:
        """Whether a value is read by more than the next statement, or joined with two others."""
        reads = self._last_use[path]
        if reads != index + 1:
            return True
        reader = self._items[reads] if reads < len(self._items) else None
        return isinstance(reader, Node) and len(reader.inputs) > 2

    def _continues(self, item: Item, path: str) -> bool:
        """Whether a value takes the place of the one that a layer reads: it is read once, too."""
        is_read_once = self._reads[path] == 1 and self._last_use[path] < len(self._items)
        return is_read_once and isinstance(item, Node) and self._is_replaced(item)

    def _is_replaced(self, node: Node) -> bool:
        """Whether no one reads the input of a layer after it."""
        return len(node.inputs) == 1 and self._value(node.inputs[0]) not in self._variables

    def _expression(self, item: Item) -> str:
        reads = [self._variable(path) for path in item.inputs]
        if not isinstance(item, Node):
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
