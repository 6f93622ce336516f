"""A network as the source of a PyTorch module that does not need cnngraph."""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cnngraph.export.classifiers import Classifiers, with_classes
from cnngraph.export.constructs import (
    Construct,
    Parameters,
    class_of,
    construct_of,
    generalize,
)
from cnngraph.export.definitions import definitions, source_of
from cnngraph.export.loops import Loop
from cnngraph.export.python_text import call_text, list_text, loop_text, wrapped
from cnngraph.export.units import Unit, Units
from cnngraph.export.variants import difference, generalize_children, merged
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
        classes = filter(None, map(class_of, sorted(self._callees)))
        self._helpers = definitions(classes)
        self._names = Counter([*_IMPORTED, *(kind.__name__ for kind in self._helpers)])
        self._units = Units(self._graph, self._constructs)
        self._classifiers = Classifiers(self._graph)

    def _leaf(self, node: Node) -> Construct:
        with torch.device("meta"):
            module = node.op.module(*self._graph.input_shapes(node))
        if isinstance(module, nn.Parameter):
            shape, value = tuple(module.shape), getattr(node.op, "init_value", 0.0)
            return Construct("nn.Parameter", {"shape": shape, "value": value})
        found = construct_of(module, node.op)
        self._callees.add(found.callee)
        return found

    def source(self) -> str:
        heights = self._by_height()
        for height in sorted(heights):
            for units in self._groups(heights[height]):
                self._define(units)
        body = "\n\n\n".join([*map(source_of, self._helpers), *self._classes])
        return f"{self._header(body)}\n\n\n{body}\n"

    def _by_height(self) -> dict[int, list[Level]]:
        """The levels by the depth of what is below them; those of one block are put together."""
        levels = self._units.levels
        inside = _inside(levels[""], self._kind)
        heights: dict[str, int] = {}
        before: dict[str, int] | None = None
        while heights != before:
            before = dict(heights)
            highest: dict[str, int] = defaultdict(int)
            for path, level in reversed(levels.items()):
                below = max((heights[child.path] for child in level.levels), default=-1)
                heights[path] = max(below + 1, heights.get(path, 0))
                kind = self._kind(level)
                highest[kind] = max(highest[kind], heights[path])
            for path, level in levels.items():
                kind = self._kind(level)
                if kind and kind not in inside[kind]:
                    heights[path] = highest[kind]
        found: dict[int, list[Level]] = defaultdict(list)
        for path in sorted(levels, key=lambda path: levels[path].last):
            found[heights[path]].append(levels[path])
        return found

    def _groups(self, levels: list[Level]) -> list[list[Unit]]:
        """Units that one class can stand for."""
        kinds: dict[str, dict[Any, list[Unit]]] = defaultdict(lambda: defaultdict(list))
        for level in levels:
            unit = self._units.unit(level)
            kinds[self._kind(level)][unit.structure].append(unit)
        found: list[list[Unit]] = []
        for kind, groups in kinds.items():
            found += merged(groups.values()) if kind else groups.values()
        return found

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
        parameters = self._parameters(units)
        classifiers = self._classifiers.claim([unit.level for unit in units], self._constructs)
        lines = self._init(units, parameters, classifiers)
        found = parameters.in_order()
        arguments = [f"{key}: {_type(each.values)}" for key, each in found.items()]
        defaults = {key: each.default for key, each in found.items() if each.default is not None}
        required = len(arguments) - len(defaults)
        arguments[required:] = [
            f"{text} = {default!r}"
            for text, default in zip(arguments[required:], defaults.values(), strict=True)
        ]
        size = self._classifiers.size
        if classifiers:
            text = f"num_classes: int = {size}" if root else "num_classes: int"
            arguments.insert(required, text)
        signature = ", ".join(["self", *arguments])
        name = self._class_name(units)
        text = [f"class {name}({first.base}):"]
        if root:
            text += [f'    """{self._spec.name}, for inputs of {self._graph.input}."""', ""]
        text += [f"    def __init__({signature}) -> None:"]
        text += [f"        {line}" for line in lines]
        if first.lines:
            differs = difference(units)
            forward = first.lines if differs is None else differs.lines
            text += ["", *(f"    {line}" for line in forward)]
        self._classes.append("\n".join(wrapped(line) for line in text))
        for index, unit in enumerate(units):
            given = {key: each.values[index] for key, each in found.items()}
            if classifiers:
                given["num_classes"] = size
            self._constructs[unit.level.path] = Construct(name, given, defaults=defaults)

    def _parameters(self, units: list[Unit]) -> Parameters:
        """No parameters yet, but how they are named."""
        results = [self._graph.shape_of(unit.level.outputs[-1]).channels for unit in units]
        trial = Parameters(results)
        self._init(units, trial, frozenset())
        return Parameters(results, by_child=len(trial.hidden) > 1)

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
        children = generalize_children(units, parameters)
        assert children is not None
        for name in classifiers:
            children[name] = with_classes(children[name])
        if first.base == "nn.ModuleList":
            return [f"super().__init__({_listed([*children.values()])})"]
        lines = ["super().__init__()"]
        differs = difference(units)
        if differs is not None and not differs.is_child:
            lines.append(f"self.{differs.name} = {differs.name}")
        for name, child in children.items():
            if differs is not None and name == differs.name:
                made = [f"    {line}" for line in _assignment(name, child)]
                lines += [f"self.{name}: nn.Module | None = None", f"if {name}:", *made]
            else:
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
        title = f"{spec.name}: {', '.join(about)}." if about else f"{spec.name}."
        lines = textwrap.wrap(f'"""{title}', 88, break_long_words=False)
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


def _inside(level: Level, kind_of: Callable[[Level], str]) -> dict[str, set[str]]:
    """For each block, the blocks in it, also in blocks in it."""
    inside: dict[str, set[str]] = defaultdict(set)

    def visit(level: Level, around: frozenset[str]) -> None:
        kind = kind_of(level)
        for outer in around if kind else ():
            inside[outer].add(kind)
        for child in level.levels:
            visit(child, around | {kind} if kind else around)

    visit(level, frozenset())
    for _ in range(len(inside)):
        for kinds in inside.values():
            kinds.update(*(inside[kind] for kind in [*kinds] if kind in inside))
    return inside


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
