"""The text of constructor calls, and long lines broken as formatters do."""

from __future__ import annotations

from typing import Any

from cnngraph.export.constructs import Affine, Construct
from cnngraph.importer.holes import Expression

_WIDTH = 88
_POSITIONAL = {
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "channels",
    "normalized_shape", "p", "output_size",
}  # fmt: skip
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def call_text(construct: Construct) -> str:
    """`nn.Conv2d(3, 64, kernel_size=7)`; equal modules in a row are written as a loop."""
    if construct.callee == "nn.Parameter":
        shape, value = construct.args["shape"], construct.args["value"]
        return f"nn.Parameter(torch.full({_value(shape)}, {_value(value)}))"
    parts: list[str] = []
    positional = True
    for name, value in construct.args.items():
        positional = positional and name in _POSITIONAL
        parts.append(_value(value) if positional else f"{name}={_value(value)}")
    if construct.keys:
        pairs = zip(construct.keys, construct.items, strict=True)
        listed = ", ".join(f'("{key}", {call_text(item)})' for key, item in pairs)
        return f"{construct.callee}(OrderedDict([{listed}]))"
    parts += _items(construct.items)
    return f"{construct.callee}({', '.join(parts)})"


def _items(items: tuple[Construct, ...]) -> list[str]:
    parts: list[str] = []
    at = 0
    while at < len(items):
        end = at
        while end < len(items) and items[end] == items[at]:
            end += 1
        text = call_text(items[at])
        if end - at > 2 or (end - at == 2 and "nn." not in items[at].callee):
            parts.append(f"*({text} for _ in range({end - at}))")
        else:
            parts += [text] * (end - at)
        at = end
    return parts


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
    if len(line) <= _WIDTH:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    found = _outermost(line)
    if found is None:
        return line
    start, end = found
    inside = line[start + 1 : end]
    below = f"{indent}    {inside}"
    items = _split(inside)
    element, loops, count = inside.partition(" for _ in range(")
    if len(items) == 1 and loops:
        lines = [below]
        if len(below) > _WIDTH:
            lines = [wrapped(f"{indent}    {element}"), f"{indent}    for _ in range({count}"]
    elif len(below) <= _WIDTH and (len(items) > 1 or line.lstrip().startswith("def ")):
        lines = [below]
    else:
        lines = [wrapped(f"{indent}    {item},") for item in items]
    return "\n".join([line[: start + 1], *lines, f"{indent}{line[end:]}"])


def _outermost(line: str) -> tuple[int, int] | None:
    """The last pair of outer brackets with something in it."""
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
    return found


def _split(text: str) -> list[str]:
    """The items between the outer commas."""
    items, depth, current = list[str](), 0, ""
    for character in text:
        if character in _PAIRS:
            depth += 1
        elif character in _PAIRS.values():
            depth -= 1
        if character == "," and depth == 0:
            items.append(current.strip())
            current = ""
        else:
            current += character
    return [*items, current.strip()] if current.strip() else items
