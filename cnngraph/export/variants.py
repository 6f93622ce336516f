"""One class for the levels of a block that differ in one step, such as a shortcut's convolution."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cnngraph.export.constructs import Construct, Parameter, Parameters, generalize
from cnngraph.export.loops import Loop
from cnngraph.export.units import Unit

_RESIDUAL = "residual"


@dataclass(frozen=True)
class Difference:
    """What only some units of a class have.

    Attributes:
        name: the argument of the class that switches it on.
        is_child: whether it is a child of this name; otherwise it is the sum with the input.
        lines: the `forward` with both cases.
    """

    name: str
    is_child: bool
    lines: list[str]


def difference(units: Sequence[Unit]) -> Difference | None:
    """What only some units have; None if they have the same statements, or differ in more."""
    whole = max(units, key=lambda unit: len(unit.lines))
    part = min(units, key=lambda unit: len(unit.lines))
    if len(whole.lines) != len(part.lines) + 1 or {whole.base, part.base} != {"nn.Module"}:
        return None
    return _child(whole, part) or _sum(whole, part)


def _child(whole: Unit, part: Unit) -> Difference | None:
    """A child that replaces a value by its result for it, as a shortcut's convolution does."""
    names = [name for name in whole.children if name not in part.children]
    if len(names) != 1:
        return None
    (name,) = names
    step = re.compile(rf"    (\w+) = self\.{name}\(\1\)")
    others = {key: child for key, child in whole.children.items() if key != name}
    same = [line for line in whole.lines if not step.fullmatch(line)]
    if same != part.lines or _structures(others) != _structures(part.children):
        return None
    lines: list[str] = []
    for line in whole.lines:
        only_here = step.fullmatch(line) is not None
        lines += [f"    if self.{name} is not None:", f"    {line}"] if only_here else [line]
    return Difference(name, True, lines)


def _sum(whole: Unit, part: Unit) -> Difference | None:
    """The sum with the input."""
    *steps, last = whole.lines
    alike = [re.sub(r"\bout\b", "x", step) for step in steps]
    alike[-1] = alike[-1].replace("x =", "return", 1)
    if last != "    return out + x" or alike != part.lines or _RESIDUAL in whole.children:
        return None
    if _structures(whole.children) != _structures(part.children):
        return None
    both = [f"    if self.{_RESIDUAL}:", "        out = out + x", "    return out"]
    return Difference(_RESIDUAL, False, [*steps, *both])


def _structures(children: Mapping[str, Construct | Loop]) -> list[object]:
    return [
        (name, child.construct.structure if isinstance(child, Loop) else child.structure)
        for name, child in children.items()
    ]


def merged(groups: Iterable[list[Unit]]) -> list[list[Unit]]:
    """Groups of equal units of one block, with those joined that differ in one step."""
    found: list[list[Unit]] = []
    for group in groups:
        for index, other in enumerate(found):
            if _fit(other, group):
                found[index] = sorted([*other, *group], key=lambda unit: unit.level.last)
                break
        else:
            found.append(group)
    return found


def _fit(first: list[Unit], second: list[Unit]) -> bool:
    units = [*first, *second]
    if difference(first) or difference(second) or not difference(units):
        return False
    return generalize_children(units, Parameters([0] * len(units))) is not None


def generalize_children(
    units: Sequence[Unit], parameters: Parameters
) -> dict[str, Construct | Loop] | None:
    """One call for each child of the units, with the parameters that they need.

    None if a child that only some have needs a parameter of its own.
    """
    whole = max(units, key=lambda unit: len(unit.lines))
    found: dict[str, Construct | Loop] = {}
    differs = difference(units)
    optional = differs.name if differs is not None and differs.is_child else ""
    for name in whole.children:
        if name != optional:
            copies = [unit.children[name] for unit in units]
            found[name] = _generalized(copies, parameters, name)
    if differs is None:
        return found
    has = [len(unit.lines) == len(whole.lines) for unit in units]
    if optional:
        having = [index for index, present in enumerate(has) if present]
        known = parameters.of(having)
        copies = [units[index].children[optional] for index in having]
        found[optional] = _generalized(copies, known, optional)
        if known.found.keys() != parameters.found.keys():
            return None
    parameters.found[differs.name] = Parameter(differs.name, [*has], default=False)
    return {name: found[name] for name in whole.children}


def _generalized(
    copies: Sequence[Construct | Loop], parameters: Parameters, name: str
) -> Construct | Loop:
    loops = [copy for copy in copies if isinstance(copy, Loop)]
    if not loops:
        calls = [copy for copy in copies if isinstance(copy, Construct)]
        return generalize(calls, parameters, name)
    counts = [loop.count for loop in loops]
    same = len(set(counts)) == 1
    count = counts[0] if same else parameters.explain("num_layers", counts)
    construct = generalize([loop.construct for loop in loops], parameters)
    return Loop(loops[0].name, loops[0].start, count, construct)
