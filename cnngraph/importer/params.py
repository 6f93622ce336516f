"""The parameters of a block: what differs between its calls, under names of the field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from cnngraph.importer.holes import (
    ABSENT,
    Choice,
    Expression,
    agree,
    by_channels,
    by_factor,
    default_of,
    most_common,
    renaming,
)
from cnngraph.importer.nodes import NO_LEVEL, SpecNode
from cnngraph.ops import OPS
from cnngraph.shape import TensorShape
from cnngraph.spec.expressions import RESERVED

_CHANNELS = ("out_channels", "out_features")


class Params:
    """The parameters of a block while the values that differ are explained.

    Attributes:
        values: the values in each call, by name.
        defaults: the defaults by name; an `Expression` for one that no call states.
    """

    def __init__(
        self,
        inputs: Sequence[TensorShape],
        results: Sequence[TensorShape],
        known: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.values: dict[str, list[Any]] = {}
        self.defaults: dict[str, Any] = {}
        self._inputs = [shape.channels for shape in inputs]
        self._results = [shape.channels for shape in results]
        self._keeps_shape = [one == other for one, other in zip(inputs, results, strict=True)]
        self._known_defaults = known
        self._arguments: dict[str, str] = {}
        self._nodes: dict[str, str] = {}
        self._optional: list[str] = []

    def given(self, index: int) -> dict[str, Any]:
        """The arguments of the call with this index."""
        return {
            name: values[index]
            for name, values in self.values.items()
            if not isinstance(self.defaults[name], Expression)
        }

    def explain(
        self, argument: str, node: SpecNode, values: Sequence[Any], channels: Sequence[int]
    ) -> Any:
        """An expression for values that differ between the calls of a block; see `Explain`."""
        by_input = by_channels(values, channels)
        follows = node.kind == "module" or argument in ("groups", "num_parameters")
        if follows and by_input is not None:
            return by_input
        if (known := self._known(values, argument)) is not None:
            return Expression(known)
        if argument == "padding":
            for name, sizes in self.values.items():
                if self._arguments[name] == "kernel_size" and agree(map(_half, sizes), values):
                    return Expression(f"{name} // 2")
        if argument.endswith(("channels", "features", "width")):
            for name, known_values in self.values.items():
                if self._arguments[name] in (*_CHANNELS, "end"):
                    found = by_factor(values, known_values, name)
                    if found is not None:
                        return found
            if by_input is not None:
                return by_input
            if agree(self._inputs, values):
                return self._derived("channels", "in_channels")
        name = self._free(argument, node)
        self._add(name, argument, node, values)
        if argument in (*_CHANNELS, "channels"):
            return Expression(name)
        default = default_of(node.kind, argument)
        if node.kind in self._known_defaults:
            default = self._known_defaults[node.kind].get(argument)
        usual, times = most_common(values)
        if default in values or (times > 1 and argument in ("stride", "bias")):
            self.defaults[name] = default if default in values else usual
        elif default is not None and usual is not None and times > len(values) // 2:
            self.defaults[name] = usual
        types = {type(value) for value in values if value is not ABSENT}
        types.add(type(self.defaults[name]))
        if len(types - {type(None)}) > 1 or (self.defaults[name] is not None and None in values):
            self.defaults[name] = None
        return Expression(name)

    def decide(self, body: Sequence[SpecNode]) -> None:
        """Writes the expressions of the tests and kinds in a template."""
        for name in self._optional:
            if ABSENT not in self.values[name]:
                self.defaults[name] = None
        self._decide(body, is_shortcut=False)

    def _decide(self, body: Sequence[SpecNode], *, is_shortcut: bool) -> None:
        for node in body:
            for argument, value in node.args.items():
                if isinstance(value, Choice):
                    node.args[argument] = self._decided(node, value, is_shortcut)
            for key, part in node.parts.items():
                is_sum = node.args.get("merge") == "add"
                self._decide(part, is_shortcut=is_sum or key == "shortcut")

    def _decided(self, node: SpecNode, choice: Choice, is_shortcut: bool) -> Expression:
        if node.kind == "when":
            (inner,) = node.parts["body"]
            test = self._condition(choice.values, choice.channels) if is_shortcut else None
            return Expression(test or self._flag(inner, choice.values, choice.channels))
        if not node.parts:
            known = self._known(choice.values, "act")
            return Expression(known or self._usual("act", choice.values))
        is_residual = [value if value is ABSENT else value == "residual" for value in choice.values]
        test = self._condition(is_residual, self._inputs)
        if test is None:
            name = self._known(is_residual) or self._usual("shortcut", is_residual)
        else:
            name = self._derived("shortcut", test, is_residual).text
        return Expression(f"'residual' if {name} else 'sequential'")

    def _flag(self, node: SpecNode, values: Sequence[Any], channels: Sequence[int]) -> str:
        """The test of a node that only some calls have."""
        if (known := self._known(values)) is not None:
            return known
        if (known := self._known([v if v is ABSENT else not v for v in values])) is not None:
            return f"not {known}"
        match node.args.get("out_channels"):
            case Expression(text) if text in self.values:
                pairs = zip(channels, self.values[text], strict=True)
                if agree([own != value for own, value in pairs], values):
                    return f"in_channels != {text}"
            case Expression(text) if text.endswith("* in_channels"):
                return self._usual("expand", values)
            case _:
                pass
        for name, known in self.values.items():
            missing = [value is ABSENT for value in known]
            is_width = self._arguments[name].endswith(("channels", "width"))
            if is_width and missing == [value is False for value in values]:
                self.defaults[name] = 0
                self.values[name] = [0 if value is ABSENT else value for value in known]
                return f"{name} > 0"
        if node.name in ("", NO_LEVEL) and agree(self._keeps_shape, values):
            return self._usual("keeps_shape", values)
        named = re.fullmatch(r"[a-zA-Z]\w*", node.name)
        return self._usual(node.name if named else node.kind, values)

    def _condition(self, values: Sequence[Any], channels: Sequence[int]) -> str | None:
        """A test of a stride and of channels that has these values."""
        strides = [
            name
            for name, known in self.values.items()
            if self._arguments[name] == "stride" and all(type(value) is int for value in known)
        ]
        widths = [name for name in self.values if self._arguments[name] in _CHANNELS]
        tests: dict[str, list[bool]] = {}
        for name in strides:
            tests[f"{name} == 1"] = [value == 1 for value in self.values[name]]
        for name in widths:
            pairs = zip(channels, self.values[name], strict=True)
            tests[f"in_channels == {name}"] = [own == value for own, value in pairs]
        for one, other in [(one, other) for one in strides for other in widths]:
            first, second = f"{one} == 1", f"in_channels == {other}"
            both = zip(tests[first], tests[second], strict=True)
            tests[f"{first} and {second}"] = [all(pair) for pair in both]
        for test, found in reversed(tests.items()):
            if agree(found, values):
                return test
            if agree([not each for each in found], values):
                return _negated(test)
        return None

    def _known(self, values: Sequence[Any], argument: str = "") -> str | None:
        """The parameter that has these values, or that can have them where it is not used."""
        for name, known in self.values.items():
            if agree(known, values):
                return name
            if self._arguments[name] == argument and agree(known, values, both=True):
                pairs = zip(known, values, strict=True)
                self.values[name] = [value if own is ABSENT else own for own, value in pairs]
                return name
        return None

    def _derived(self, name: str, text: str, values: Sequence[Any] | None = None) -> Expression:
        """A parameter whose default is computed, so that no call states it."""
        self.values[name] = self._inputs if values is None else [*values]
        self.defaults[name] = Expression(text)
        self._arguments[name] = name
        self._nodes[name] = ""
        return Expression(name)

    def _usual(self, name: str, values: Sequence[Any]) -> str:
        """A parameter whose default is its most common value."""
        name = self._free(re.sub(r"\W", "_", name), SpecNode(""))
        self._add(name, name, SpecNode(""), values)
        self.defaults[name] = most_common(values)[0]
        return name

    def _add(self, name: str, argument: str, node: SpecNode, values: Sequence[Any]) -> None:
        usual = most_common(values)[0]
        self.values[name] = [*values]
        self.defaults[name] = None
        if ABSENT in values:
            self._optional.append(name)
            zero = 0.0 if argument == "p" else 0
            is_width = argument in (*_CHANNELS, "width", "p")
            self.defaults[name] = zero if is_width else usual
        self._arguments[name] = argument
        stem = re.sub(r"\W", "_", node.name)
        self._nodes[name] = stem if stem and not stem[0].isdigit() else ""

    def _free(self, argument: str, node: SpecNode) -> str:
        argument = "skip" if argument in ("with", "from", "value") else argument
        stem = re.sub(r"\W", "_", node.name)
        stem = "" if stem[:1].isdigit() else stem
        if argument == "width":
            return _free_name([f"{stem or node.kind}_width"], {*self.values})
        options = [argument, f"{stem}_{argument}" if stem else argument]
        return _free_name(options, {*self.values, *RESERVED, "name", *OPS})

    def rename(self, body: Sequence[SpecNode]) -> None:
        """Calls channels `out_channels` only if the block's result has them.

        Args:
            body: the template, whose expressions are changed.
        """
        widths = [name for name in self.values if self._arguments[name] in (*_CHANNELS, "width")]
        found = [name for name in widths if self.values[name] == self._results]
        final = found[-1] if found else None
        inner = [name for name in widths if name != final]
        taken = {*self.values, *RESERVED, "name", *OPS} - {*widths}
        texts = {} if final is None else {final: self._arguments[final]}
        stems = {name: self._nodes[name] for name in inner}
        nodes = {*stems.values()}
        if (
            "" not in nodes
            and 1 < len(nodes) < len(inner)
            and not nodes & (taken | {*texts.values()})
        ):
            texts |= self._as_lists(stems)
        else:
            taken |= {*texts.values()}
            alone = sum(self._arguments[name] in _CHANNELS for name in inner) == 1
            for name in inner:
                stem = "" if alone or len(inner) == 1 else stems[name]
                wanted = f"{stem}_channels" if stem else "width"
                if len(inner) > 1 and self._arguments[name] == "width":
                    wanted = name
                texts[name] = _free_name([wanted], taken)
                taken.add(texts[name])
        renamed = renaming(texts)
        self.values = {texts.get(name, name): known for name, known in self.values.items()}
        self.defaults = {
            texts.get(name, name): renamed(value) for name, value in self.defaults.items()
        }
        for top in body:
            for node in top.walk():
                node.args = {name: renamed(value) for name, value in node.args.items()}

    def _as_lists(self, stems: Mapping[str, str]) -> dict[str, str]:
        """One parameter for all channels in a node, such as a branch: name -> expression."""
        texts: dict[str, str] = {}
        for stem in dict.fromkeys(stems.values()):
            names = [name for name in stems if stems[name] == stem]
            each = [self.values.pop(name) for name in names]
            for index, name in enumerate(names):
                texts[name] = f"{stem}[{index}]" if len(names) > 1 else stem
                del self.defaults[name]
            lists = [list(values) for values in zip(*each, strict=True)]
            self.values[stem] = lists if len(names) > 1 else each[0]
            self.defaults[stem] = None
        return texts


def _free_name(options: Sequence[str], taken: set[str]) -> str:
    for option in options:
        if option not in taken:
            return option
    numbered = (f"{options[-1]}_{number}" for number in count(2))
    return next(name for name in numbered if name not in taken)


def _negated(test: str) -> str:
    return test.replace(" == 1", " > 1").replace(" == ", " != ").replace(" and ", " or ")


def _half(value: Any) -> Any:
    return value // 2 if type(value) is int else value
