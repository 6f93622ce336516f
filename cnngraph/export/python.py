"""A network as the source of a PyTorch module that does not need cnngraph."""

from __future__ import annotations

import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cnngraph.errors import CnngraphError
from cnngraph.export.constructs import (
    Affine,
    Construct,
    Parameters,
    classes_of,
    construct_of,
    generalize,
)
from cnngraph.export.forward import ForwardWriter
from cnngraph.export.python_text import call_text, wrapped
from cnngraph.graph import Graph
from cnngraph.importer.holes import Expression
from cnngraph.lowering.levels import Level, Levels, is_chain
from cnngraph.lowering.network import Network

_COMPOSITES = {"sequential", "parallel", "residual", "branch", "repeat", "dense", "project", "aux"}


@dataclass
class _Loop:
    """Children of one kind, called one after another by the same statement."""

    name: str
    start: int
    count: Any
    construct: Construct


@dataclass
class _Unit:
    """A level as a class: its children by attribute, and the lines of its `forward`."""

    level: Level
    children: dict[str, Construct | _Loop]
    lines: list[str]
    sequential: Construct | None = None


def python_source(network: Network) -> str:
    """The source of a module with the same `state_dict`, and the same results.

    Blocks are classes, and repeats loops. It imports torch only.

    Raises `CnngraphError` if an op of a plugin cannot be written as plain PyTorch, or if the
    network shares weights or has names with dots.
    """
    graph = network.compilation.graph
    shared = next((node.path for node in graph.nodes if node.shared), None)
    if shared is not None:
        raise CnngraphError(f"`{shared}` shares its weights, which `--python` cannot write yet")
    if graph.containers:
        name = min(graph.containers)
        message = f"nodes are named `{name}.NAME` with a dot, which `--python` cannot write yet"
        raise CnngraphError(f"{message}: give `{name}` its nodes in a `sequential`")
    return _Emitter(network).source()


class _Emitter:
    def __init__(self, network: Network) -> None:
        self._spec = network.compilation.spec
        self._graph: Graph = network.compilation.graph
        self._levels = Levels(self._graph)
        self._constructs: dict[str, Construct] = {}
        """The call that makes the module of each op and level, by path."""
        self._classes: list[str] = []
        self._names: Counter[str] = Counter()
        self._callees: set[str] = set()
        for node in self._graph.nodes:
            if node.op.has_module:
                self._constructs[node.path] = self._leaf(node)

    def _leaf(self, node: Any) -> Construct:
        with torch.device("meta"):
            module = node.op.module(*self._graph.input_shapes(node))
        if isinstance(module, nn.Parameter):
            shape, value = tuple(module.shape), node.op.init_value
            return Construct("nn.Parameter", {"shape": shape, "value": value})
        found = construct_of(module)
        self._callees.add(found.callee)
        return found

    def source(self) -> str:
        heights: dict[int, list[Level]] = defaultdict(list)
        self._height(self._levels[""], heights)
        for height in sorted(heights):
            groups: dict[Any, list[_Unit]] = defaultdict(list)
            for level in heights[height]:
                unit = self._unit(level)
                groups[self._key(unit)].append(unit)
            for units in groups.values():
                self._define(units)
        helpers = [inspect.getsource(kind) for kind in classes_of(self._callees)]
        body = "\n\n\n".join([*(text.strip() for text in helpers), *self._classes])
        return f"{self._header(body)}\n\n\n{body}\n"

    def _height(self, level: Level, heights: dict[int, list[Level]]) -> int:
        height = 1 + max((self._height(child, heights) for child in level.levels), default=-1)
        heights[height].append(level)
        return height

    # --- one level ----------------------------------------------------------------------------

    def _unit(self, level: Level) -> _Unit:
        names = self._attributes(level)
        writer = ForwardWriter(self._graph, level, lambda path: _attribute(names[path]))
        items = writer.items()
        if is_chain(self._graph, level):
            keys = tuple(level.name_of(item.path) for item in items)
            constructs = tuple(self._constructs[item.path] for item in items)
            numbered = keys == tuple(map(str, range(len(keys))))
            if numbered or all(key.isdigit() for key in keys):
                inline = Construct("nn.Sequential", {}, constructs, () if numbered else keys)
                return _Unit(level, {}, [], inline)
        children: dict[str, Construct | _Loop] = {}
        for item in items:
            if item.path in names:
                children.setdefault(names[item.path], self._constructs[item.path])
        lines = writer.lines()
        loop = _loop(children, lines)
        if loop is not None:
            lines = _loop_lines(children, lines)
            children = {"*": loop}
        first = self._graph.order.get(level.path, ())
        ordered = {name: children[name] for name in first if name in children} | children
        return _Unit(level, ordered, lines)

    def _attributes(self, level: Level) -> dict[str, str]:
        """The attribute of each child that is a module; equal ones without weights share it."""
        names: dict[str, str] = {}
        for child in level.levels:
            names[child.path] = level.name_of(child.path)
        shared: dict[str, str] = {}
        taken = set(names.values())
        unnamed: list[Any] = []
        for node in level.nodes:
            name = level.name_of(node.path)
            if node.op.has_module and (self._has_state(node) or not name.isdigit()):
                names[node.path] = name
                taken.add(name)
            elif node.op.has_module:
                unnamed.append(node)
        for node in unnamed:
            construct = self._constructs[node.path]
            key = repr(construct)
            if key not in shared:
                kind: str = node.op.kind
                stem = _SHORT.get(kind, kind)
                name, count = stem, 1
                while name in taken:
                    count += 1
                    name = f"{stem}{count}"
                shared[key] = str(name)
                taken.add(shared[key])
            names[node.path] = shared[key]
        return names

    def _has_state(self, node: Any) -> bool:
        shapes = self._graph.input_shapes(node)
        return bool(node.op.parameters(*shapes) or node.op.buffers(*shapes))

    def _key(self, unit: _Unit) -> Any:
        kind = self._kind(unit.level)
        if unit.sequential is not None:
            return kind, unit.sequential.structure
        children = tuple(
            (name, child.construct.structure if isinstance(child, _Loop) else child.structure)
            for name, child in unit.children.items()
        )
        return kind, tuple(unit.lines), children

    def _kind(self, level: Level) -> str:
        scope = self._graph.scopes.get(level.path)
        return scope.kind if scope is not None and scope.kind not in _COMPOSITES else ""

    # --- classes --------------------------------------------------------------------------------

    def _define(self, units: list[_Unit]) -> None:
        """One class for units of the same structure, and the calls that make them."""
        first = units[0]
        named = (len(units) > 1 and self._kind(first.level)) or not first.level.path
        if first.sequential is not None and not named:
            for unit in units:
                assert unit.sequential is not None
                self._constructs[unit.level.path] = unit.sequential
            return
        parameters = Parameters()
        if first.sequential is not None:
            whole = [unit.sequential for unit in units if unit.sequential is not None]
            template = generalize(whole, parameters)
            if self._classes_param(first, ""):
                template = _with_classes(template)
            items = [call_text(item) for item in template.items]
            lines = [f"super().__init__({', '.join(items)})"]
            base, forward = "nn.Sequential", []
            if template.keys:
                pairs = [
                    f'("{key}", {item})' for key, item in zip(template.keys, items, strict=True)
                ]
                lines = [f"super().__init__(OrderedDict([{', '.join(pairs)}]))"]
        else:
            lines, base, forward = ["super().__init__()"], "nn.Module", first.lines
            for name in first.children:
                children = [unit.children[name] for unit in units]
                lines += _assignment(name, children, parameters, self._classes_param(first, name))
        name = self._class_name(units)
        root = not first.level.path
        arguments = [f"{key}: {_type(values)}" for key, values in parameters.values.items()]
        if root and (classes := self._num_classes()):
            arguments.append(f"num_classes: int = {classes}")
        signature = ", ".join(["self", *arguments])
        text = [f"class {name}({base}):"]
        if root:
            text += [f'    """{self._title()}"""', ""]
        text += [f"    def __init__({signature}) -> None:"]
        text += [f"        {line}" for line in lines]
        if forward:
            text += ["", *(f"    {line}" for line in forward)]
        self._classes.append("\n".join(wrapped(line) for line in text))
        for index, unit in enumerate(units):
            given = {key: values[index] for key, values in parameters.values.items()}
            self._constructs[unit.level.path] = Construct(name, given)

    def _classes_param(self, unit: _Unit, name: str) -> bool:
        """Whether a child of the network is the layer whose size is `num_classes`."""
        last = [node for node in self._graph.nodes if self._has_state(node)][-1:]
        whole = not unit.level.path and bool(self._num_classes())
        own = last[0].path.partition(".")[0] if last else None
        return whole and name in ("", own)

    def _num_classes(self) -> int | None:
        """The size of the last layer, if the network's own class makes it."""
        last = [node for node in self._graph.nodes if self._has_state(node)][-1:]
        if not last or last[0].op.kind not in ("linear", "conv2d"):
            return None
        path = last[0].path
        construct = self._constructs.get(path.partition(".")[0])
        nested = construct is not None and construct.callee == "nn.Sequential"
        return last[0].shape.channels if "." not in path or nested else None

    def _class_name(self, units: list[_Unit]) -> str:
        level = units[0].level
        if not level.path:
            stem = self._graph.name
        else:
            words = [part for part in level.path.split(".") if not part.isdigit()]
            stem = self._kind(level) or (words[-1] if words else "block")
        name = "".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", stem))
        name = f"Net{name}" if name[:1].isdigit() else name
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}{self._names[name]}"

    def _title(self) -> str:
        name = self._spec.name
        return f"{name}, for inputs of {self._graph.input}."

    def _header(self, body: str) -> str:
        spec, of = self._spec, self._spec.reference
        about = [str(part) for part in (of.paper, of.year) if part]
        lines = [f'"""{spec.name}: {", ".join(about)}.' if about else f'"""{spec.name}.']
        if of.source:
            lines += ["", f"Source: {of.source}", '"""']
        else:
            lines[-1] += '"""'
        imports = ["from __future__ import annotations", ""]
        if "OrderedDict(" in body:
            imports.append("from collections import OrderedDict")
        typed = [name for name in ("Callable", "Sequence") if re.search(rf"\b{name}\b", body)]
        if typed:
            imports.append(f"from collections.abc import {', '.join(typed)}")
        if "Any" in body:
            imports.append("from typing import Any")
        imports += ["", "import torch"] if imports[-1] else ["import torch"]
        names = ["Tensor"] * bool(re.search(r"(?<!\.)\bTensor\b", body)) + ["nn"]
        imports.append(f"from torch import {', '.join(names)}")
        if re.search(r"\bfunctional\.", body):
            imports.append("from torch.nn import functional")
        return "\n".join([*lines, "", *imports])


_SHORT = {
    "max_pool2d": "max_pool",
    "avg_pool2d": "avg_pool",
    "global_avg_pool2d": "avg_pool",
    "adaptive_avg_pool2d": "avg_pool",
}


def _attribute(name: str) -> str:
    return f"self.{name}" if name.isidentifier() else f'self.get_submodule("{name}")'


def _assignment(
    name: str, children: list[Any], parameters: Parameters, is_classifier: bool
) -> list[str]:
    """The lines that make a child."""
    first = children[0]
    if isinstance(first, _Loop):
        counts = [child.count for child in children]
        same = len(set(counts)) == 1
        count = counts[0] if same else parameters.explain("num_layers", counts, "")
        construct = generalize([child.construct for child in children], parameters)
        counter = f"i + {first.start}" if first.start else "i"
        text = count.text if isinstance(count, Expression) else count
        return [
            f"for i in range({text}):",
            f'    self.add_module(f"{first.name}{{{counter}}}", {call_text(construct)})',
        ]
    construct = generalize(children, parameters, name)
    if is_classifier:
        construct = _with_classes(construct)
    if name.isidentifier():
        return [f"self.{name} = {call_text(construct)}"]
    return [f'self.add_module("{name}", {call_text(construct)})']


def _with_classes(construct: Construct) -> Construct:
    """The call with `num_classes` as the size of its last layer."""
    items = list(construct.items)
    for index in reversed(range(len(items))):
        if "out_features" in items[index].args or "out_channels" in items[index].args:
            items[index] = _with_classes(items[index])
            return Construct(construct.callee, construct.args, tuple(items), construct.keys)
    args = dict(construct.args)
    for name in ("out_features", "out_channels"):
        if name in args:
            args[name] = Expression("num_classes")
    return Construct(construct.callee, args, construct.items, construct.keys)


def _type(values: list[Any]) -> str:
    kinds = {type(value).__name__ for value in values}
    return " | ".join(sorted(kinds)).replace("NoneType", "None")


def _loop(children: dict[str, Any], lines: list[str]) -> _Loop | None:
    """The loop of a level that calls numbered children one after another in the same way."""
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in children]
    found = [(part[1], int(part[2])) for part in parts if part]
    if len(found) < max(2, len(children)) or len({stem for stem, _ in found}) > 1:
        return None
    stem, start = found[0]
    if [number for _, number in found] != list(range(start, start + len(found))):
        return None
    if len(set(_steps(children, lines))) > 1:
        return None
    calls: list[Construct] = list(children.values())
    if len({call.structure for call in calls}) > 1:
        return None
    construct = _by_index(calls)
    return construct and _Loop(stem, start, len(calls), construct)


def _by_index(calls: Sequence[Construct]) -> Construct | None:
    """One call for copies whose arguments are equal, or grow by the same step."""
    args: dict[str, Any] = {}
    for name in calls[0].args:
        values: list[Any] = [call.args.get(name) for call in calls]
        if all(value == values[0] for value in values):
            args[name] = values[0]
            continue
        if not all(type(value) is int for value in values):
            return None
        step: int = values[1] - values[0]
        if values != [values[0] + step * index for index in range(len(values))]:
            return None
        args[name] = Affine(values[0], step)
    items: list[Construct] = []
    for group in zip(*(call.items for call in calls), strict=True):
        item = _by_index(group)
        if item is None:
            return None
        items.append(item)
    return replace(calls[0], args=args, items=tuple(items))


def _steps(children: dict[str, Any], lines: list[str]) -> list[tuple[str, ...]]:
    """The statements for each child, with the child called `layer`."""
    body = [*lines[1:-1], f"    x = {lines[-1].strip().removeprefix('return ')}"]
    size, rest = divmod(len(body), len(children))
    if rest:
        return [(), ("",)]
    return [
        tuple(
            line.replace(f"{_attribute(name)}(", "layer(")
            for line in body[index * size : (index + 1) * size]
        )
        for index, name in enumerate(children)
    ]


def _loop_lines(children: dict[str, Any], lines: list[str]) -> list[str]:
    """`forward` with the statements of one child in a loop."""
    step = _steps(children, lines)[0]
    body = [f"    {line}" for line in step]
    return [lines[0], "    for layer in self.children():", *body, "    return x"]
