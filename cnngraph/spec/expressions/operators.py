"""The operators of expressions, and the words for syntax and values in messages."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from cnngraph.errors import show

BINARY: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", lambda a, b: a / b),
    ast.FloorDiv: ("//", lambda a, b: a // b),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", lambda a, b: a**b),
}
"""Operator -> its sign, and the function that computes it; likewise the comparisons."""
COMPARE: dict[type[ast.AST], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
UNARY: dict[type[ast.AST], str] = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~"}
UNSUPPORTED: dict[type[ast.AST], tuple[str, str]] = {
    ast.BitXor: ("`^`", "write a power as `**`"),
    ast.BitAnd: ("`&`", "write `and`"),
    ast.BitOr: ("`|`", "write `or`"),
    ast.LShift: ("`<<`", "multiply by a power of 2: `* 2**n`"),
    ast.RShift: ("`>>`", "divide by a power of 2: `// 2**n`"),
    ast.MatMult: ("`@`", ""),
}
"""Operator that is not supported -> its sign, and what to write in its place."""


def infix(left: Any, symbol: str, right: Any) -> str:
    """An operation as written, with its values."""
    return f"{show(left)} {symbol} {show(right)}"


def length_of(value: Any) -> Any:
    """The length of a list or text; any other value itself."""
    return len(value) if type(value) in (str, tuple) else value


def kind_of(value: Any) -> str:
    """What a value is."""
    if value is None or isinstance(value, bool):
        return show(value)
    return (
        "text" if isinstance(value, str) else "a list" if isinstance(value, tuple) else "a number"
    )


def describe(node: ast.AST) -> str:
    """What a piece of Python's syntax is called."""
    words: dict[type[ast.AST], str] = {
        ast.Attribute: "attributes (`.name`)",
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
    return words.get(type(node), "this syntax")
