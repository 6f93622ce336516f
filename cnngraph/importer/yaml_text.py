"""Plain data -> YAML that a person would write: short mappings on one line, long ones below."""

from __future__ import annotations

import json
import re
from typing import Any

_WIDTH = 100
_SHORT = 8
"""Numbers that need no more characters than this are written without the error of rounding."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "~"}


def yaml_text(data: dict[str, Any]) -> str:
    """A document; an empty line stands before each of its longer parts."""
    parts: list[str] = []
    for key, value in data.items():
        lines = _entry(f"{key}:", value, 0)
        long = isinstance(value, list | dict) and key in ("blocks", "graph", "expect")
        parts += ["", *lines] if long else lines
    return "\n".join(parts) + "\n"


def _entry(start: str, value: Any, indent: int) -> list[str]:
    """`key: value` on one line if it fits, else the value in the lines below."""
    flow = f"{' ' * indent}{start} {_flow(value)}"
    nested = isinstance(value, dict | list) and bool(value)
    if not nested or (len(flow) <= _WIDTH and not _is_deep(value)):
        if isinstance(value, str) and "${" in value:
            return [f"{' ' * indent}{start} {_block_text(value)}"]
        return [flow]
    return [f"{' ' * indent}{start}", *_block(value, indent + 2)]


def _block(value: Any, indent: int) -> list[str]:
    pad = " " * indent
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            start = _block_text(key) if isinstance(key, str) and "${" in key else _key(key)
            lines += _entry(f"{start}:", item, indent)
        return lines
    for item in value:
        flow = f"{pad}- {_node_flow(item)}"
        if len(flow) <= _WIDTH and not _is_deep(item):
            lines.append(flow)
        else:
            first, *rest = _block(item, indent + 2)
            lines += [f"{pad}- {first.lstrip()}", *rest]
    return lines


def _node_flow(value: Any) -> str:
    """A node in a list: its outer mapping needs no braces."""
    if isinstance(value, str) and "${" in value:
        return _block_text(value)
    if isinstance(value, dict) and len(value) == 1:
        ((key, item),) = value.items()
        if isinstance(item, str) and item.startswith("${"):
            return f"{_key(key)}: {_block_text(item)}"
        return f"{_key(key)}: {_flow(item)}"
    return _flow(value)


def _is_deep(value: Any) -> bool:
    """Whether a value contains nodes that contain nodes, so that one line is hard to read."""
    if isinstance(value, dict):
        return any(_has_nodes(item) or _is_deep(item) for item in value.values())
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _has_nodes(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, dict) or _has_nodes(item) for item in value)
    return isinstance(value, dict) and any(isinstance(item, dict) for item in value.values())


def _flow(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_key(k)}: {_flow(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case _:
            return _scalar(value)


def _key(key: Any) -> str:
    return _scalar(key)


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "~"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}" if abs(value) >= 100_000 else str(value)
        case float():
            return _number(value)
        case str():
            plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
            return value if plain else json.dumps(value, ensure_ascii=False)
        case _:
            raise TypeError(f"{value!r} has no form in YAML")


def _number(value: float) -> str:
    text = repr(value)
    short = f"{value:.12g}"
    if len(short) <= _SHORT and "." in short:  # 0.075 for 0.07500000000000001
        value, text = float(short), short
    mantissa, _, exponent = text.partition("e")
    if exponent:
        return f"{mantissa}e{int(exponent)}"
    if text.startswith("0.0000") or (text.startswith("0.000") and len(text) <= 7):
        digits = f"{value:e}"
        short = re.sub(r"\.?0+e", "e", digits)
        mantissa, _, exponent = short.partition("e")
        if float(short) == value:
            return f"{mantissa}e{int(exponent)}"
    return text


def _block_text(value: str) -> str:
    """An expression on a line of its own, which needs no quotes unless it contains ` #` or `: `."""
    return json.dumps(value) if re.search(r": | #|\\", value) else value
