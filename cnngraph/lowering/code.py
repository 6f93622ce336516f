"""The code of a level: Python source that calls its children and the functions of `cnngraph.nn`.

Ops describe their calls as nodes of a `torch.fx.Graph`, which are printed here like handwritten
code. A variable is reused after its value's last use, so that no tensor lives longer than needed.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import fx

from cnngraph import nn as functions
from cnngraph.graph import INPUT, Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.lowering.levels import Level, Levels
from cnngraph.nn.level import Code
from cnngraph.ops import Op
from cnngraph.ops.conv import Conv2d

_WIDTH = 96
_INFIX: dict[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
}
_RESERVED = {"self", "torch", "getattr", "part", *functions.__all__}


class LevelCode:
    """Writes the code of the levels of a graph; levels of the same structure share it.

    Args:
        graph: the network as written in the spec.
        levels: the levels of `graph`.
        names: the names of the children of each level's module, in order.
        optimized: the same network after the passes.
        optimize: runs the passes.
        cut: paths of levels whose calls are skipped even if no fused node spans them.
    """

    def __init__(
        self,
        graph: Graph,
        levels: Levels,
        names: Mapping[str, tuple[str, ...]],
        optimized: Graph,
        optimize: Callable[[Graph], Graph],
        cut: Collection[str] = (),
    ) -> None:
        self._graph = graph
        self._levels = levels
        self._names = names
        self._index = graph.index
        self._known: dict[object, Code] = {}
        self._same: dict[str, str] = {}
        self._flat, crossed = self._nodes_by_level(optimized)
        self._inlined = {*crossed, *cut}
        self._whole = self._flat
        if self._inlined:
            # No pass fuses past an output. If the inputs and outputs of all levels are outputs,
            # no node crosses a level's border.
            borders = {
                path for level in levels.values() for path in (*level.inputs, *level.outputs)
            }
            features = {path: path for path in sorted(borders - graph.inputs.keys())}
            self._whole, _ = self._nodes_by_level(optimize(replace(graph, features=features)))

    def _nodes_by_level(self, optimized: Graph) -> tuple[dict[str, list[Node]], set[str]]:
        """The nodes by the path of their level, and the levels whose borders a node crosses."""
        nodes: dict[str, list[Node]] = {path: [] for path in self._levels}
        crossed: set[str] = set()
        for node in optimized.nodes:
            if node.path not in self._index:  # inserted by a pass
                self._same[node.path] = node.inputs[0]
            home = self._levels.home_of(node)
            nodes[home.path].append(node)
            for leaf in node.leaves:
                for level in self._levels.around(leaf.path):
                    if level is home:
                        break
                    crossed.add(level.path)
        return nodes, crossed

    def of(self, level: Level) -> Code:
        """The code of a level. If it skips calls of inner levels, `forward_by_level` makes them."""
        crossed = level.path in self._inlined  # then an outer level computes some of its nodes
        flat = self._statements(level, flat=not crossed)
        inner = [] if crossed else [child for child in level.levels if child.path in self._inlined]
        inlined = tuple((level.name_of(child.path), self.of(child)) for child in inner)
        whole = self._statements(level, flat=False) if inlined else []
        key = (
            tuple(self._key(level, item) for item in flat),
            tuple(self._key(level, item) for item in whole),
            len(level.inputs),
            tuple(map(level.name_of, level.outputs)),
            self._names[level.path],
            inlined,
        )
        if not level.path or key not in self._known:
            texts = [self._text(level, flat, "forward")]
            if inlined:
                texts.append(self._text(level, whole, "forward_by_level"))
            used = {name: function for _, names in texts for name, function in names.items()}
            source = "\n\n".join(text for text, _ in texts)
            title = f"{self._graph.name}.{level.path}" if level.path else self._graph.name
            self._known[key] = Code(title, source, self._names[level.path], inlined, used)
        return self._known[key]

    def _statements(self, level: Level, *, flat: bool) -> list[Node | Level]:
        """The nodes and levels that a level computes, in order.

        With `flat`, inlined levels are replaced by their nodes.
        """
        found: list[tuple[int, Node | Level]] = []
        self._collect(level, flat, found)
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def _collect(self, level: Level, flat: bool, found: list[tuple[int, Node | Level]]) -> None:
        for node in (self._flat if flat else self._whole)[level.path]:
            place = self._index.get(node.path, -1)
            found.append((max(self._index.get(leaf.path, place) for leaf in node.leaves), node))
        for child in level.levels:
            if flat and child.path in self._inlined:
                self._collect(child, flat, found)
            else:
                found.append((child.last, child))

    def _key(self, level: Level, item: Node | Level) -> object:
        """A key that is equal for items with equal statements."""

        def relative(path: str) -> object:
            path = self._same.get(path, path)
            return level.inputs.index(path) if path in level.inputs else level.name_of(path)

        inputs = tuple(map(relative, item.inputs))
        name = level.name_of(item.path)
        if isinstance(item, Level):
            return (
                name,
                inputs,
                tuple(map(level.name_of, item.outputs)),
                item.path in self._graph.aux,
            )
        op: object = item.op
        if isinstance(item.op, Recomputed) or not _is_hashable(item.op):
            op = id(item.op)
        return name, inputs, op, tuple(level.name_of(leaf.module) for leaf in item.leaves)

    def _text(
        self, level: Level, items: Sequence[Node | Level], name: str
    ) -> tuple[str, dict[str, Callable[..., Any]]]:
        writer = _Writer(self._graph, self._same, level.prefix)
        named = not level.path and INPUT not in level.inputs
        writer.begin(name, level.inputs, of_self=True, named=named)
        writer.write(items, level.outputs)
        writer.end(level.outputs, self._graph if not level.path else None)
        return "\n".join(writer.lines) + "\n", writer.functions


@dataclass(frozen=True)
class _Group:
    """An expression in brackets, which may be broken into lines."""

    before: str
    items: tuple[_Expression, ...]
    after: str


_Expression = str | _Group


def _is_hashable(op: Op) -> bool:
    """Whether an op can be hashed: an op of a plugin may have fields that are lists or dicts."""
    try:
        hash(op)
    except TypeError:
        return False
    return True


def _flat(expression: _Expression) -> str:
    if isinstance(expression, str):
        return expression
    inside = ", ".join(map(_flat, expression.items))
    comma = "," if expression.before == "(" and len(expression.items) == 1 else ""
    return f"{expression.before}{inside}{comma}{expression.after}"


def _broken(expression: _Expression, indent: str, start: int) -> str:
    flat = _flat(expression)
    if isinstance(expression, str) or start + len(flat) <= _WIDTH or not expression.items:
        return flat
    deeper = f"{indent}    "
    lines = [f"{deeper}{_broken(item, deeper, len(deeper) + 1)}," for item in expression.items]
    return "\n".join([expression.before, *lines, f"{indent}{expression.after}"])


class _Writer:
    """Writes one function: `begin`, `write`, `end`.

    Attributes:
        lines: the lines of the text.
        functions: the functions that the text calls, by the names that it uses.
    """

    def __init__(
        self, graph: Graph, same: Mapping[str, str], prefix: str, indent: str = ""
    ) -> None:
        self.lines: list[str] = []
        self.functions: dict[str, Callable[..., Any]] = {}
        self._graph = graph
        self._same = same
        self._prefix = prefix
        self._indent = indent
        self._variables: dict[str, str] = {}
        """The variable of each value that is alive, by the value's path."""
        self._values: dict[fx.Node, str] = {}

    def begin(
        self, name: str, inputs: Sequence[str], *, of_self: bool, named: bool = False
    ) -> None:
        """Writes the first line.

        Args:
            name: the function's name.
            inputs: paths of the values that it takes.
            of_self: whether it also takes `self`.
            named: whether the inputs keep their names, which are those of the spec.
        """
        names = [f"x{index or ''}" for index in range(len(inputs))]
        if named:
            names = [self._unique(path, []) for path in inputs]
        arguments = ["self", *names] if of_self else names
        self.lines.append(f"{self._indent}def {name}({', '.join(arguments)}):")
        self._indent += "    "
        self._variables = dict(zip(inputs, names, strict=True))

    def write(self, items: Sequence[Node | Level], results: Sequence[str]) -> None:
        """Writes one statement per item; `results` are paths of the values that are returned."""
        last_use = dict.fromkeys(results, len(items))
        for index, item in reversed([*enumerate(items)]):
            for path in item.inputs:
                last_use.setdefault(self._same.get(path, path), index)
        for index, item in enumerate(items):
            if isinstance(item, Level):
                target = self._attribute(item.path)
                reads = tuple(self._variables[path] for path in item.inputs)
                if item.path in self._graph.aux:
                    call = _Group(
                        f"{self._function(functions.in_training)}(", (target, *reads), ")"
                    )
                else:
                    call = _Group(f"{target}(", reads, ")")
                outputs = item.outputs
            elif isinstance(item.op, Recomputed):
                call, outputs = self._part(item, item.op), (item.path,)
            else:
                call, outputs = self._call(item), (item.path,)
            read = {self._same.get(path, path) for path in item.inputs}
            freed = [self._variables.pop(path) for path in read if last_use[path] == index]
            assigned: list[str] = []
            for path in outputs:
                path = self._same.get(path, path)
                name = self._variables.get(path) or self._new_name(path, item, freed, assigned)
                assigned.append(name)
            for path, name in zip(outputs, assigned, strict=True):
                path = self._same.get(path, path)
                if path in last_use:
                    self._variables[path] = name
            start = f"{self._indent}{', '.join(assigned)} = " if assigned else self._indent
            self.lines.append(f"{start}{_broken(call, self._indent, len(start))}")
            unused = sorted(set(freed) - set(self._variables.values()) - set(assigned))
            if unused and index < len(items) - 1:
                self.lines.append(f"{self._indent}del {', '.join(unused)}")

    def end(self, outputs: Sequence[str], whole: Graph | None = None) -> None:
        """Writes the return statement; `whole` is the graph if this is the network's forward."""
        returned: _Expression = ", ".join(self._variables[path] for path in outputs)
        if whole is not None and whole.features:
            returned = self._mapping(whole.features)
        elif whole is not None and whole.aux:
            returned = self._variables[whole.output]
        if whole is not None and whole.aux:
            function = self._function(functions.with_aux)
            returned = _Group(f"{function}(", (returned, self._mapping(whole.aux)), ")")
        start = f"{self._indent}return "
        self.lines.append(f"{start}{_broken(returned, self._indent, len(start))}".rstrip())

    def _mapping(self, values: Mapping[str, str]) -> _Expression:
        """A dict of the values at these paths, by name."""
        pairs = (f"{_literal(name)}: {self._variables[path]}" for name, path in values.items())
        return _Group("{", tuple(pairs), "}")

    def _call(self, node: Node) -> _Expression:
        calls = fx.Graph()
        inputs = [calls.placeholder(f"input_{index}") for index in range(len(node.inputs))]
        names = [self._variables[self._same.get(path, path)] for path in node.inputs]
        self._values = dict(zip(inputs, names, strict=True))
        modules = [
            leaf.module.removeprefix(self._prefix) for leaf in node.leaves if leaf.op.has_module
        ]
        result = node.op.emit(calls, modules, inputs)
        for item in calls.nodes:
            if item.op.startswith("call") and item is not result and len(item.users) > 1:
                name = self._unique(item.name, [])
                self.lines.append(f"{self._indent}{name} = {_flat(self._expression(item))}")
                self._values[item] = name
        return self._expression(result)

    def _part(self, node: Node, op: Recomputed) -> _Expression:
        """Writes a function for the part that backward recomputes, and returns its call."""
        inner = _Writer(self._graph, self._same, self._prefix, self._indent)
        inner.functions = self.functions
        reads = [self._same.get(path, path) for path in op.reads]
        inner.begin("part", reads, of_self=False)
        inner.write(op.nodes, [node.path])
        inner.end([node.path])
        self.lines += inner.lines
        leaves = [leaf for part in op.nodes for leaf in part.leaves]
        modules = _Group(
            "(", tuple(self._attribute(leaf.module) for leaf in leaves if leaf.op.has_module), ")"
        )
        has_plugins = any(
            leaf.op.runs_code or not type(leaf.op).__module__.startswith("cnngraph.")
            for leaf in leaves
        )
        options = (
            f"has_plugins={has_plugins}",
            f"early_stop={isinstance(op.nodes[-1].op, Conv2d)}",
        )
        arguments = ("part", modules, *(self._variables[path] for path in reads), *options)
        return _Group(f"{self._function(functions.recomputed)}(", arguments, ")")

    def _expression(self, value: Any) -> _Expression:
        if isinstance(value, tuple | list):
            brackets = "()" if isinstance(value, tuple) else "[]"
            return _Group(brackets[0], tuple(map(self._expression, value)), brackets[1])
        if not isinstance(value, fx.Node):
            return _literal(value)
        if value in self._values:
            return self._values[value]
        if value.op == "get_attr":
            return self._attribute(f"{self._prefix}{value.target}")
        arguments = [self._expression(item) for item in value.args]
        named = [f"{name}={_flat(self._expression(item))}" for name, item in value.kwargs.items()]
        infix = _INFIX.get(value.target)
        if infix is not None and len(arguments) == 2 and not named:
            left, right = map(_flat, arguments)
            if " " in right:
                right = f"({right})"
            return f"{left} {infix} {right}"
        if value.op == "call_module":
            called = self._attribute(f"{self._prefix}{value.target}")
        elif value.op == "call_method":
            called = f"{_flat(arguments.pop(0))}.{value.target}"
        else:
            called = self._function(value.target)
        return _Group(f"{called}(", (*arguments, *named), ")")

    def _attribute(self, path: str) -> str:
        def of(owner: str, name: str) -> str:
            plain = name.isidentifier() and not keyword.iskeyword(name)
            return f"{owner}.{name}" if plain else f'getattr({owner}, "{name}")'

        return reduce(of, path.removeprefix(self._prefix).split("."), "self")

    def _function(self, function: Any) -> str:
        """The name of a function in the text: `torch.cat`, `batch_norm_act`, or module and name."""
        module, name = function.__module__ or "torch", function.__name__
        if module.partition(".")[0] in ("torch", "torch._C"):
            for owner in ("torch", "torch.nn.functional"):
                if getattr(reduce(getattr, owner.split(".")[1:], torch), name, None) is function:
                    return f"{owner}.{name}"
        if getattr(functions, name, None) is not function:
            name = re.sub(r"\W", "_", f"{module.strip('_')}_{name}")
        self.functions[name] = function
        return name

    def _new_name(
        self, path: str, item: Node | Level, freed: Sequence[str], taken: Sequence[str]
    ) -> str:
        for name in ("x", *freed):
            if name not in self._variables.values() and name not in taken:
                return name
        names = (path if isinstance(item, Node) else item.path).split(".")
        name = names[-1]
        if name.isdigit():
            name = item.op.kind if isinstance(item, Node) else "_".join(names[-2:])
        return self._unique(name, taken)

    def _unique(self, name: str, taken: Sequence[str]) -> str:
        name = re.sub(r"\W+", "_", name).strip("_")
        name = f"_{name}" if not name[:1].isalpha() else name
        found, count = name, 1
        used = {
            *self._variables.values(),
            *taken,
            *self._values.values(),
            *self.functions,
            *_RESERVED,
        }
        while found in used or keyword.iskeyword(found):
            count += 1
            found = f"{name}_{count}"
        return found


def _literal(value: Any) -> str:
    return (
        f'"{value}"'
        if isinstance(value, str) and '"' not in value and "\\" not in value
        else repr(value)
    )
