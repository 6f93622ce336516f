"""`${...}`: a small, bounded interpreter over Python's expression syntax.

It knows numbers, strings, booleans, `none` and lists, and calls nothing but the functions below: a spec is data, and
reading one from a stranger must be safe. Length, depth, steps, magnitudes and list sizes are limited.
"""

from __future__ import annotations

import ast
import json
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from typing import Any

from cnngraph.errors import did_you_mean

MAX_LENGTH = 500
MAX_STEPS = 10_000
MAX_DEPTH = 40
MAX_MAGNITUDE = 10**15
MAX_ITEMS = 10_000

CONSTANTS = {"true": True, "false": False, "none": None}


class ExpressionError(Exception):
    """An expression that cannot be evaluated; `offset` counts characters from the start of the string it stands in."""

    def __init__(self, message: str, offset: int = 0, notes: tuple[tuple[str, str], ...] = ()):
        super().__init__(message)
        self.offset = offset
        self.notes = notes


class UnknownValueError(Exception):
    """The expression needs a shape that an earlier, already reported mistake left unknown."""


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
"""Stands in a scope for a value that cannot be known; using it raises `UnknownValueError`."""


def is_expression(text: Any) -> bool:
    return isinstance(text, str) and "${" in text


def evaluate(text: str, scope: Mapping[str, Any]) -> Any:
    """The value of a string that holds `${...}`.

    A string that is one expression has that expression's value and type; otherwise the values are put into the text.
    """
    pieces = _split(text)
    values = [
        literal if source is None else _Evaluation(scope, offset).value(_parse(source, offset))
        for offset, source, literal in pieces
    ]
    if len(values) == 1:
        return values[0]
    for value, (offset, _, _) in zip(values, pieces, strict=True):
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ExpressionError(f"{show(value)} cannot be put into text", offset)
    return "".join(map(str, values))


def show(value: Any) -> str:
    """A value as the language writes it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(show, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def divisible(value: float, divisor: int) -> int:
    """`value` rounded to a multiple of `divisor`, never down by more than 10% (MobileNet's channel rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _range(*bounds: int) -> tuple[int, ...]:
    numbers = range(*bounds)
    if len(numbers) > MAX_ITEMS:
        raise ValueError(f"a list has at most {MAX_ITEMS:,} items")
    return tuple(numbers)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": round,
    "len": len,
    "range": _range,
    "divisible": divisible,
}

RESERVED = frozenset([*FUNCTIONS, *CONSTANTS, "in_channels", "in_height", "in_width"])
"""Names that a parameter or loop variable cannot take."""


def _split(text: str) -> list[tuple[int, str | None, str]]:
    """Cuts text into `(offset, expression or None, literal)` pieces."""
    pieces: list[tuple[int, str | None, str]] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at:
            pieces.append((at, None, text[at:start]))
        end = _closing_brace(text, start + 2)
        pieces.append((start + 2, text[start + 2 : end], ""))
        at = end + 1
    if at < len(text):
        pieces.append((at, None, text[at:]))
    return pieces


def _closing_brace(text: str, start: int) -> int:
    quote = ""
    for index in range(start, len(text)):
        character = text[index]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "}":
            return index
    raise ExpressionError("`${` is never closed by `}`", start - 2)


@lru_cache(maxsize=4096)
def _parse(source: str, offset: int) -> ast.expr:
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters", offset)
    stripped = source.strip()
    if not stripped:
        raise ExpressionError("the expression is empty", offset)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        message = error.msg or "invalid syntax"
        raise ExpressionError(f"cannot be read: {message}", offset) from None
    except (ValueError, MemoryError, RecursionError):
        raise ExpressionError("cannot be read", offset) from None


_BINARY: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class _Evaluation:
    def __init__(self, scope: Mapping[str, Any], offset: int) -> None:
        self.scope = scope
        self.offset = offset
        self.steps = 0
        self.depth = 0

    def error(self, node: ast.AST, message: str, **details: Any) -> ExpressionError:
        return ExpressionError(message, self.offset + getattr(node, "col_offset", 0), **details)

    def value(self, node: ast.expr) -> Any:
        self.steps += 1
        self.depth += 1
        if self.steps > MAX_STEPS or self.depth > MAX_DEPTH:
            raise self.error(node, "the expression is too large")
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise self.error(node, f"{_describe(node)} is not part of the expression language")
        result = method(node)
        self._bound(node, result)
        self.depth -= 1
        return result

    def _bound(self, node: ast.expr, result: Any) -> None:
        if isinstance(result, int | float) and not abs(result) <= MAX_MAGNITUDE:
            raise self.error(node, "the number is too large")
        if isinstance(result, str | tuple) and len(result) > MAX_ITEMS:
            raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is None or isinstance(node.value, bool | int | float | str):
            return node.value
        raise self.error(node, f"{_describe(node)} is not part of the expression language")

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.scope:
            value = self.scope[node.id]
            if value is UNKNOWN:
                raise UnknownValueError
            return value
        if node.id in CONSTANTS:
            return CONSTANTS[node.id]
        if node.id in FUNCTIONS:
            raise self.error(node, f"`{node.id}` is a function; call it: `{node.id}(...)`")
        names = sorted(set(self.scope) | set(CONSTANTS))
        notes = did_you_mean(node.id, names) or (("note", f"known here: {', '.join(names)}"),)
        raise self.error(node, f"`{node.id}` is not known here", notes=notes)

    def _list(self, node: ast.List) -> tuple[Any, ...]:
        return tuple(map(self.value, node.elts))

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(map(self.value, node.elts))

    def _binop(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            raise self.error(node, f"{_describe(node.op)} is not part of the expression language")
        symbol, function = _BINARY[type(node.op)]
        left, right = self.value(node.left), self.value(node.right)
        if symbol == "**" and not (isinstance(right, int | float) and abs(right) <= 64):
            raise self.error(node, "an exponent is a number of at most 64")
        if symbol == "%" and isinstance(left, str):
            raise self.error(node, "`%` works on numbers")
        if symbol == "*" and any(isinstance(side, str | tuple) for side in (left, right)):
            length = prod(len(side) if isinstance(side, str | tuple) else side for side in (left, right))
            if length > MAX_ITEMS:
                raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")
        return self._apply(node, lambda: function(left, right), f"{show(left)} {symbol} {show(right)}")

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        operand = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not operand
        if not isinstance(operand, int | float) or isinstance(node.op, ast.Invert):
            raise self.error(node, f"the sign of {show(operand)} has no meaning")
        return -operand if isinstance(node.op, ast.USub) else operand

    def _boolop(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        result: Any = None
        for item in node.values:
            result = self.value(item)
            if bool(result) is stop:
                break
        return result

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, item in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _COMPARE:
                raise self.error(node, "`is` is not part of the expression language; use `==`")
            right = self.value(item)
            compare = _COMPARE[type(op)]
            if not self._apply(node, lambda a=left, b=right, f=compare: f(a, b), f"{show(left)} and {show(right)}"):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        container = self.value(node.value)
        if not isinstance(container, tuple | str):
            raise self.error(node, f"{show(container)} is not a list")
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            index: Any = slice(*(None if part is None else self.value(part) for part in parts))
        else:
            index = self.value(node.slice)
        if isinstance(index, int) and not -len(container) <= index < len(container):
            length = len(container)
            raise self.error(node, f"index {index} is outside a list of {length}: {show(container)}")
        return self._apply(node, lambda: container[index], f"the index {index}")

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            notes = did_you_mean(name or "", FUNCTIONS) or (("note", f"the functions are: {known}"),)
            called = f"`{name}`" if name else _describe(node.func)
            raise self.error(node, f"{called} is not a function of the language", notes=notes)
        if node.keywords:
            raise self.error(node, f"`{name}` takes its arguments in order, without names")
        arguments = tuple(map(self.value, node.args))
        return self._apply(node, lambda: FUNCTIONS[name](*arguments), f"{name}({', '.join(map(show, arguments))})")

    def _apply(self, node: ast.AST, function: Callable[[], Any], what: str) -> Any:
        try:
            result = function()
        except ZeroDivisionError:
            raise self.error(node, f"division by zero: {what}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise self.error(node, f"{what} has no value: {error}") from None
        if isinstance(result, complex):
            raise self.error(node, f"{what} is not a real number")
        return result


def _describe(node: ast.AST) -> str:
    words = {
        ast.Attribute: "an attribute (`.name`)",
        ast.Lambda: "a lambda",
        ast.ListComp: "a comprehension",
        ast.GeneratorExp: "a comprehension",
        ast.SetComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.Dict: "a dictionary",
        ast.Set: "a set",
        ast.JoinedStr: "an f-string",
        ast.NamedExpr: "an assignment",
        ast.Starred: "unpacking (`*`)",
        ast.Constant: "this constant",
    }
    return words.get(type(node), f"`{type(node).__name__}`")
