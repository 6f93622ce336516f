"""The levels of a network as classes: their children by attribute, and their `forward`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnngraph.errors import CnngraphError
from cnngraph.export.constructs import Construct
from cnngraph.export.forward import ForwardWriter, Item, is_identity
from cnngraph.export.loops import Loop, find_loop
from cnngraph.export.shared import SharedCall, shared_calls
from cnngraph.graph import Graph, Node
from cnngraph.lowering.levels import Level, Levels, is_chain

_SHORT = {
    "max_pool2d": "max_pool",
    "avg_pool2d": "avg_pool",
    "global_avg_pool2d": "avg_pool",
    "adaptive_avg_pool2d": "avg_pool",
}


@dataclass
class Unit:
    """A level as a class.

    Attributes:
        level: the level.
        base: the class it is derived from.
        children: what makes each child, by name; a loop makes several.
        lines: its `forward`.
        sequential: the call of `nn.Sequential` that makes it, if it is a chain without names.
    """

    level: Level
    base: str
    children: dict[str, Construct | Loop]
    lines: list[str]
    sequential: Construct | None = None

    @property
    def structure(self) -> Any:
        """A key that is equal for levels that one class can stand for."""
        if self.sequential is not None:
            return self.sequential.structure
        children = tuple(
            (name, child.construct.structure if isinstance(child, Loop) else child.structure)
            for name, child in self.children.items()
        )
        return self.base, tuple(self.lines), children


class Units:
    """Makes the units of a graph, inner levels first.

    Args:
        graph: the network.
        constructs: the call that makes each module, by path; those of levels come along.
    """

    def __init__(self, graph: Graph, constructs: Mapping[str, Construct]) -> None:
        self.levels = Levels(graph)
        self._graph = graph
        for level in self.levels.values():
            level.outputs = tuple(sorted(level.outputs, key=self._place))
            if level.path:
                level.inputs = tuple(sorted(level.inputs, key=self._place))
        self._constructs = constructs
        self._calls = shared_calls(graph, self.levels)

    def _place(self, path: str) -> int:
        """The place of a value in the order of execution; -1 for the network's inputs."""
        return self._graph.index.get(path, -1)

    def has_state(self, node: Node) -> bool:
        """Whether a node has parameters or buffers, of its own or shared."""
        shapes = self._graph.input_shapes(node)
        return bool(node.op.parameters(*shapes) or node.op.buffers(*shapes))

    def unit(self, level: Level) -> Unit:
        """The unit of a level whose own levels have constructs already."""
        items = self._items(level)
        if is_chain(self._graph, level):
            sequential = self._sequential(level, items)
            if sequential is not None:
                return Unit(level, "nn.Sequential", {}, [], sequential)
        names = self._names(level, items)
        children = self._children(level, items, names)
        base = _base(children)
        attributes = {
            path: _attribute(name, base, children, self._callee(path))
            for path, name in names.items()
        }
        lines = ForwardWriter(self._graph, level, items, lambda path: attributes[path]).lines()
        by_name = {name: attributes[path] for path, name in names.items()}
        loop = find_loop(children, lines, by_name) if by_name.keys() == children.keys() else None
        if loop is not None:
            return Unit(level, base, {"*": loop[0]}, loop[1])
        return Unit(level, base, dict(children), lines)

    def _items(self, level: Level) -> list[Item]:
        """The level's ops and levels, and the calls of shared levels, in execution order."""
        index = self._graph.index
        calls = {
            call.path: call
            for call in self._calls
            if any(call.contains(node.path) for node in level.nodes)
        }
        last = {
            path: max(index[node.path] for node in self._graph.nodes if call.contains(node.path))
            for path, call in calls.items()
        }

        def is_outside(path: str) -> bool:
            return not any(call.contains(path) for call in calls.values())

        placed: list[tuple[int, Item]] = [
            *((index[node.path], node) for node in level.nodes if is_outside(node.path)),
            *((child.last, child) for child in level.levels if is_outside(child.path)),
            *((last[path], call) for path, call in calls.items()),
        ]
        return [item for _, item in sorted(placed, key=lambda pair: pair[0])]

    def _sequential(self, level: Level, items: list[Item]) -> Construct | None:
        """`nn.Sequential` for a chain whose children have numbers for names, or no identifiers."""
        while len(items) > 1 and isinstance(items[-1], Node) and is_identity(items[-1]):
            items = items[:-1]
        keys = tuple(level.name_of(item.path) for item in items)
        constructs = tuple(self._constructs[item.path] for item in items)
        numbered = keys == tuple(map(str, range(len(keys))))
        if any(key.isidentifier() for key in keys):
            return None
        return Construct("nn.Sequential", {}, constructs, () if numbered else keys)

    def _callee(self, path: str) -> str:
        construct = self._constructs.get(path)
        return construct.callee if construct is not None else ""

    def _is_own(self, item: Item) -> bool:
        if isinstance(item, SharedCall):
            return False
        return isinstance(item, Level) or not (item.shared and self.has_state(item))

    def _names(self, level: Level, items: list[Item]) -> dict[str, str]:
        """The attribute of each child that is a module; equal ones without weights share it."""
        names: dict[str, str] = {}
        unnamed: list[Node] = []
        for item in items:
            if isinstance(item, SharedCall):
                names[item.path] = level.name_of(item.module)
            elif isinstance(item, Level):
                names[item.path] = level.name_of(item.path)
            elif item.op.has_module and not is_identity(item):
                name = level.name_of(item.path)
                if self.has_state(item):
                    names[item.path] = level.name_of(item.module)
                elif name.isidentifier() and not item.shared:
                    names[item.path] = name
                else:
                    unnamed.append(item)
        same: dict[str, str] = {}
        taken = set(names.values())
        for node in unnamed:
            key = repr(self._constructs[node.path])
            if key not in same:
                stem = _SHORT.get(node.op.kind, node.op.kind)
                name, count = stem, 1
                while name in taken:
                    count += 1
                    name = f"{stem}{count}"
                same[key] = name
                taken.add(name)
            names[node.path] = same[key]
        return names

    def _children(
        self, level: Level, items: list[Item], names: Mapping[str, str]
    ) -> dict[str, Construct]:
        """The children by attribute; those with dots in their names are put into containers."""
        tree: dict[str, Any] = {}
        for item in items:
            if isinstance(item, Level) or (isinstance(item, Node) and item.op.has_module):
                # The order of the containers is that of all modules, also those left out here.
                _container_of(level.name_of(item.path), tree)
            if item.path in names and self._is_own(item):
                name = names[item.path]
                made = self._constructs[item.path]
                _container_of(name, tree).setdefault(name.rpartition(".")[2], made)
        return self._ordered(level.path, tree)

    def _ordered(self, path: str, tree: Mapping[str, Any]) -> dict[str, Construct]:
        first = self._graph.order.get(path, ())
        ordered = {name: tree[name] for name in first if name in tree} | dict(tree)
        children: dict[str, Construct] = {}
        for name, child in ordered.items():
            whole = f"{path}.{name}" if path else name
            if isinstance(child, Construct):
                children[name] = child
            elif inside := self._ordered(whole, child):
                children[name] = _container(whole, inside)
        return children


def _container_of(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    """The part of the tree for the modules beside one of this name; made if it is missing."""
    for part in name.split(".")[:-1]:
        tree = tree.setdefault(part, {})
    return tree


def _container(path: str, children: Mapping[str, Construct]) -> Construct:
    """The call that makes a container of modules or parameters."""
    kinds = {child.callee == "nn.Parameter" for child in children.values()}
    if len(kinds) > 1:
        raise CnngraphError(f"`{path}` has parameters beside modules, which no container takes")
    kind = "Parameter" if kinds == {True} else "Module"
    keys = tuple(children)
    numbered = keys == tuple(map(str, range(len(keys))))
    callee = f"nn.{kind}{'List' if numbered else 'Dict'}"
    return Construct(callee, {}, tuple(children.values()), () if numbered else keys)


def _base(children: Mapping[str, Construct]) -> str:
    """The base class of a level: a container if a module has a name that is no identifier."""
    modules = [name for name, child in children.items() if child.callee != "nn.Parameter"]
    if all(name.isidentifier() for name in modules):
        return "nn.Module"
    numbered = modules == [str(number) for number in range(len(modules))]
    return "nn.ModuleList" if numbered else "nn.ModuleDict"


def _attribute(name: str, base: str, children: Mapping[str, Construct], kind: str) -> str:
    """The expression for a child of `self`, or for a module in a child; `kind` is its class."""
    first, *parts = name.split(".")
    if first.isidentifier():
        text = f"self.{first}"
    elif kind == "nn.Parameter":
        return f'self.get_parameter("{name}")'
    else:
        text = f"self[{first}]" if base == "nn.ModuleList" else f'self["{first}"]'
    inside = children.get(first, Construct(""))
    for part in parts:
        if inside.callee in ("nn.ModuleDict", "nn.ParameterDict"):
            text += f'["{part}"]'
        elif part.isidentifier():
            text += f".{part}"
        elif inside.items and not inside.keys:
            text += f"[{part}]"
        else:
            method = "get_parameter" if kind == "nn.Parameter" else "get_submodule"
            return f'self.{method}("{name}")'
        keys = inside.keys or tuple(map(str, range(len(inside.items))))
        inside = dict(zip(keys, inside.items, strict=True)).get(part, Construct(""))
    return text
