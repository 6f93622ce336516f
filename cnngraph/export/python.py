"""A network as the source of a PyTorch module that does not need cnngraph."""

from __future__ import annotations

import inspect
import re
from collections import Counter, defaultdict
from typing import Any

import torch
from torch import nn

from cnngraph.export.classifiers import Classifiers, with_classes
from cnngraph.export.constructs import (
    Construct,
    Parameters,
    classes_of,
    construct_of,
    generalize,
)
from cnngraph.export.loops import Loop
from cnngraph.export.python_text import call_text, list_text, loop_text, wrapped
from cnngraph.export.units import Unit, Units
from cnngraph.graph import Graph, Node
from cnngraph.importer.holes import Expression
from cnngraph.lowering.levels import Level
from cnngraph.lowering.network import Network

_COMPOSITES = {"sequential", "parallel", "residual", "branch", "repeat", "dense", "project", "aux"}
_IMPORTED = ("Any", "Callable", "OrderedDict", "Sequence", "Tensor")


def python_source(network: Network) -> str:
    """The source of a module with the same `state_dict`, and the same results.

    Blocks are classes, and repeats loops. It imports torch only.

    Raises `CnngraphError` if an op of a plugin cannot be written as plain PyTorch.
    """
    return _Emitter(network).source()


class _Emitter:
    def __init__(self, network: Network) -> None:
        self._spec = network.compilation.spec
        self._graph: Graph = network.compilation.graph
        self._constructs: dict[str, Construct] = {}
        """The call that makes the module of each op and level, by path."""
        self._classes: list[str] = []
        self._callees: set[str] = set()
        for node in self._graph.nodes:
            if node.op.has_module:
                self._constructs[node.path] = self._leaf(node)
        self._helpers = classes_of(self._callees)
        self._names = Counter([*_IMPORTED, *(kind.__name__ for kind in self._helpers)])
        self._units = Units(self._graph, self._constructs)
        self._classifiers = Classifiers(self._graph)

    def _leaf(self, node: Node) -> Construct:
        with torch.device("meta"):
            module = node.op.module(*self._graph.input_shapes(node))
        if isinstance(module, nn.Parameter):
            shape, value = tuple(module.shape), getattr(node.op, "init_value", 0.0)
            return Construct("nn.Parameter", {"shape": shape, "value": value})
        found = construct_of(module)
        self._callees.add(found.callee)
        return found

    def source(self) -> str:
        heights: dict[int, list[Level]] = defaultdict(list)
        self._height(self._units.levels[""], heights)
        for height in sorted(heights):
            groups: dict[Any, list[Unit]] = defaultdict(list)
            for level in heights[height]:
                unit = self._units.unit(level)
                groups[self._kind(level), unit.structure].append(unit)
            for units in groups.values():
                self._define(units)
        body = "\n\n\n".join([*map(_source, self._helpers), *self._classes])
        return f"{self._header(body)}\n\n\n{body}\n"

    def _height(self, level: Level, heights: dict[int, list[Level]]) -> int:
        height = 1 + max((self._height(child, heights) for child in level.levels), default=-1)
        heights[height].append(level)
        return height

    def _kind(self, level: Level) -> str:
        scope = self._graph.scopes.get(level.path)
        return scope.kind if scope is not None and scope.kind not in _COMPOSITES else ""

    def _define(self, units: list[Unit]) -> None:
        """One class for units of the same structure, and the calls that make them."""
        first = units[0]
        root = not first.level.path
        if first.sequential is not None and not root and not self._is_block(units):
            for unit in units:
                assert unit.sequential is not None
                self._constructs[unit.level.path] = unit.sequential
            return
        parameters = Parameters()
        classifiers = self._classifiers.claim([unit.level for unit in units], self._constructs)
        lines = self._init(units, parameters, classifiers)
        arguments = [f"{key}: {_type(values)}" for key, values in parameters.values.items()]
        size = self._classifiers.size
        if classifiers:
            arguments.append(f"num_classes: int = {size}" if root else "num_classes: int")
        signature = ", ".join(["self", *arguments])
        name = self._class_name(units)
        text = [f"class {name}({first.base}):"]
        if root:
            text += [f'    """{self._spec.name}, for inputs of {self._graph.input}."""', ""]
        text += [f"    def __init__({signature}) -> None:"]
        text += [f"        {line}" for line in lines]
        if first.lines:
            text += ["", *(f"    {line}" for line in first.lines)]
        self._classes.append("\n".join(wrapped(line) for line in text))
        for index, unit in enumerate(units):
            given = {key: values[index] for key, values in parameters.values.items()}
            if classifiers:
                given["num_classes"] = size
            self._constructs[unit.level.path] = Construct(name, given)

    def _is_block(self, units: list[Unit]) -> bool:
        return len(units) > 1 and bool(self._kind(units[0].level))

    def _init(
        self, units: list[Unit], parameters: Parameters, classifiers: frozenset[str]
    ) -> list[str]:
        """The lines of `__init__`; `classifiers` are the children with `num_classes` outputs."""
        first = units[0]
        if first.sequential is not None:
            whole = [unit.sequential for unit in units if unit.sequential is not None]
            template = generalize(whole, parameters)
            if classifiers:
                template = with_classes(template)
            return [call_text(template).replace(template.callee, "super().__init__", 1)]
        children: dict[str, Construct | Loop] = {}
        for name in first.children:
            copies = [unit.children[name] for unit in units]
            children[name] = _generalized(copies, parameters, name)
            if name in classifiers:
                children[name] = with_classes(children[name])
        if first.base == "nn.ModuleList":
            return [f"super().__init__({_listed([*children.values()])})"]
        lines = ["super().__init__()"]
        for name, child in children.items():
            lines += _assignment(name, child)
        return lines

    def _class_name(self, units: list[Unit]) -> str:
        level = units[0].level
        words = [part for part in level.path.split(".") if not part.isdigit()]
        last = level.path.rpartition(".")[2]
        if not level.path:
            stem = self._graph.name
        elif len(units) == 1 and last.isidentifier() and self._is_several(self._kind(level)):
            stem = last
        else:
            stem = self._kind(level) or (words[-1] if words else "block")
        name = "".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", stem))
        name = f"Net{name}" if name[:1].isdigit() else name
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}{self._names[name]}"

    def _is_several(self, kind: str) -> bool:
        """Whether several levels are calls of one block."""
        return len([scope for scope in self._graph.scopes.values() if scope.kind == kind]) > 1

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
        if re.search(r"\bAny\b", body):
            imports.append("from typing import Any")
        imports += [""] if imports[-1] else []
        if re.search(r"(?<!`)\btorch\.", body):
            imports.append("import torch")
        imports.append(
            "from torch import Tensor, nn" if "Tensor" in body else "from torch import nn"
        )
        if re.search(r"\bfunctional\.", body):
            imports.append("from torch.nn import functional")
        return "\n".join([*lines, "", *imports])


def _source(helper: type[nn.Module]) -> str:
    lines = inspect.getsource(helper).strip().splitlines()
    return "\n".join(wrapped(line) if line.endswith((":", ")")) else line for line in lines)


def _generalized(copies: list[Any], parameters: Parameters, name: str) -> Construct | Loop:
    first = copies[0]
    if not isinstance(first, Loop):
        return generalize(copies, parameters, name)
    counts = [copy.count for copy in copies]
    same = len(set(counts)) == 1
    count = counts[0] if same else parameters.explain("num_layers", counts, "")
    construct = generalize([copy.construct for copy in copies], parameters)
    return Loop(first.name, first.start, count, construct)


def _listed(children: list[Any]) -> str:
    """The argument of `nn.ModuleList`."""
    first = children[0]
    if isinstance(first, Loop):
        return loop_text(first.construct, first.count)
    return list_text(children)


def _assignment(name: str, child: Construct | Loop) -> list[str]:
    """The lines that make a child."""
    if isinstance(child, Loop):
        counter = f"i + {child.start}" if child.start else "i"
        count = child.count.text if isinstance(child.count, Expression) else child.count
        return [
            f"for i in range({count}):",
            f'    self.add_module(f"{child.name}{{{counter}}}", {call_text(child.construct)})',
        ]
    text = call_text(child)
    if name.isidentifier():
        return [f"self.{name} = {text}"]
    if child.callee == "nn.Parameter":
        return [f'self.register_parameter("{name}", {text})']
    return [f'self["{name}"] = {text}']


def _type(values: list[Any]) -> str:
    kinds = {type(value).__name__ for value in values}
    return " | ".join(sorted(kinds)).replace("NoneType", "None")
