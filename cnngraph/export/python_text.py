"""The text of constructor calls, and long lines broken as formatters do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cnngraph.export.constructs import POSITIONAL, Affine, Construct
from cnngraph.importer.holes import Expression

_WIDTH = 88
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def call_text(construct: Construct) -> str:
    """`nn.Conv2d(3, 64, kernel_size=7)`; equal modules in a row are written as a loop."""
    if construct.callee == "nn.Parameter":
        shape, value = construct.args["shape"], construct.args["value"]
        return f"nn.Parameter(torch.full({_value(shape)}, {_value(value)}))"
    parts: list[str] = []
    positional = True
    for name, value in construct.args.items():
        if name in construct.defaults and construct.defaults[name] == value:
            continue
        positional = positional and name in POSITIONAL
        parts.append(_value(value) if positional else f"{name}={_value(value)}")
    if construct.callee.endswith("Dict"):
        pairs = zip(construct.keys, construct.items, strict=True)
        listed = ", ".join(f'"{key}": {call_text(item)}' for key, item in pairs)
        return f"{construct.callee}({{{listed}}})"
    if construct.keys:
        pairs = zip(construct.keys, construct.items, strict=True)
        return f"{construct.callee}(OrderedDict([{', '.join(_pairs([*pairs]))}]))"
    if construct.callee.endswith("List"):
        return f"{construct.callee}({list_text(construct.items)})"
    parts += _items(construct.items)
    return f"{construct.callee}({', '.join(parts)})"


def loop_text(construct: Construct, count: Any) -> str:
    """Modules made in a loop, with the index `i`."""
    text = call_text(construct)
    index = "i" if re.search(r"\bi\b", text) else "_"
    return f"{text} for {index} in range({_value(count)})"


def list_text(items: Sequence[Construct]) -> str:
    """The argument of `nn.ModuleList`."""
    parts = _items(items)
    if len(parts) == 1 and parts[0].startswith("*("):
        return parts[0][2:-1]
    return f"[{', '.join(parts)}]"


def _items(items: Sequence[Construct]) -> list[str]:
    parts: list[str] = []
    for start, end in _runs(items):
        text, count = call_text(items[start]), end - start
        if count > 2 or (count == 2 and "nn." not in items[start].callee):
            parts.append(f"*({text} for _ in range({count}))")
        else:
            parts += [text] * count
    return parts


def _pairs(pairs: list[tuple[str, Construct]]) -> list[str]:
    parts: list[str] = []
    for start, end in _runs([item for _, item in pairs]):
        text = call_text(pairs[start][1])
        keys = [key for key, _ in pairs[start:end]]
        stem = keys[0].rstrip("0123456789")
        numbers = [key.removeprefix(stem) for key in keys]
        first = int(numbers[0]) if numbers[0] else 0
        if end - start > 2 and numbers == [str(first + i) for i in range(len(keys))]:
            counter = f"range({first}, {first + len(keys)})"
            parts.append(f'*((f"{stem}{{i}}", {text}) for i in {counter})')
        else:
            parts += [f'("{key}", {text})' for key in keys]
    return parts


def _runs(items: Sequence[Construct]) -> list[tuple[int, int]]:
    """Where runs of equal items start and end."""
    runs: list[tuple[int, int]] = []
    start = 0
    for end in range(1, len(items) + 1):
        if end == len(items) or items[end] != items[start]:
            runs.append((start, end))
            start = end
    return runs


def _value(value: Any) -> str:
    match value:
        case Expression(text):
            return text
        case Affine(start, step):
            step = _value(step)
            return f"{_value(start)} + {step} * i"
        case tuple():
            inside = ", ".join(map(_value, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        case str():
            return f'"{value}"'
        case _:
            return repr(value)


def wrapped(line: str) -> str:
    """A line of at most 88 characters, or several: what is in brackets is put below, indented."""
    found = _outermost(line) if len(line) > _WIDTH else None
    if found is None:
        return line
    start, end = found
    inside = line[start + 1 : end]
    indent = " " * (len(line) - len(line.lstrip()))
    below = f"{indent}    {inside}"
    element, *clause = _split(inside, " for ")
    items = _split(inside, ",")
    if len(below) <= _WIDTH:
        lines = [below]
    elif clause:
        lines = [wrapped(f"{indent}    {element}"), f"{indent}    for {' for '.join(clause)}"]
    elif len(items) == 1:
        lines = [wrapped(below)]
    else:
        lines = [wrapped(f"{indent}    {item.strip()},") for item in items]
    return "\n".join([line[: start + 1], *lines, f"{indent}{line[end:]}"])


def _outermost(line: str) -> tuple[int, int] | None:
    """The last pair of outer brackets with something in it; the first one of a function."""
    depth, start, found = 0, 0, None
    for index, character in enumerate(line):
        if character in _PAIRS:
            if depth == 0:
                start = index
            depth += 1
        elif character in _PAIRS.values():
            depth -= 1
            if depth == 0 and index > start + 1:
                found = start, index
                if line.lstrip().startswith("def "):
                    break
    return found


def _split(text: str, separator: str) -> list[str]:
    """The parts between the separators that are outside of brackets."""
    items, depth, start = list[str](), 0, 0
    for index, character in enumerate(text):
        if character in _PAIRS:
            depth += 1
        elif character in _PAIRS.values():
            depth -= 1
        elif depth == 0 and text.startswith(separator, index):
            items.append(text[start:index])
            start = index + len(separator)
    rest = text[start:]
    return [*items, rest] if rest.strip() else items
