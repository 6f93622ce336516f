"""`${...}`: a small, bounded interpreter over Python's expression syntax.

It knows numbers, strings, booleans, `none` and lists, and calls nothing but the functions below: a spec is data, and
reading one from a stranger must be safe. Length, depth, magnitudes and list sizes are limited, and so are the steps of
all expressions of a spec together.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

from cnngraph.errors import Notes, did_you_mean, show

MAX_LENGTH = 500
MAX_STEPS = 500_000
MAX_DEPTH = 40
MAX_MAGNITUDE = 10**15
MAX_ITEMS = 10_000
MAX_DIGITS = 15

CONSTANTS = {"true": True, "false": False, "none": None}


class ExpressionError(Exception):
    """An expression that cannot be evaluated; `offset` counts characters from the start of the string it stands in."""

    def __init__(self, message: str, offset: int = 0, notes: Callable[[], Notes] = tuple):
        super().__init__(message)
        self.offset = offset
        self.notes = notes


class OverBudgetError(Exception):
    """The expressions of a spec have taken all the steps they may take together."""


class UnknownValueError(Exception):
    """The expression needs a shape that an earlier, already reported mistake left unknown."""


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
"""Stands in a scope for a value that cannot be known; using it raises `UnknownValueError`."""


class Budget:
    """What the expressions of one spec may cost together, and those that were read already."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps
        self.read: dict[str, list[_Piece]] = {}

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise OverBudgetError


def is_expression(text: Any) -> bool:
    return isinstance(text, str) and "${" in text


def evaluate(text: str, scope: Mapping[str, Any], budget: Budget | None = None) -> Any:
    """The value of a string that holds `${...}`.

    A string that is one expression has that expression's value and type; otherwise the values are put into the text.
    Raises `OverBudgetError` where the budget ends.
    """
    budget = budget or Budget()
    pieces = budget.read.get(text)
    if pieces is None:
        budget.spend(len(text))
        pieces = budget.read[text] = _split(text)
    values = [
        literal if tree is None else _Evaluation(scope, offset, budget).value(tree)
        for offset, tree, literal in pieces
    ]
    if len(values) == 1:
        return values[0]
    length = 0
    for index, (value, (offset, _, _)) in enumerate(zip(values, pieces, strict=True)):
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ExpressionError(f"{show(value)} cannot be put into text", offset)
        values[index] = str(value)
        length += len(values[index])
        if length > MAX_ITEMS:
            raise ExpressionError(f"the text has more than {MAX_ITEMS:,} characters", offset)
    budget.spend(len(values) + length // _ITEMS_A_STEP)
    return "".join(values)


def extent(value: Any, limit: int = MAX_ITEMS) -> int:
    """How many items a list has, those of the lists in it included, and how many characters a text.

    Counting ends where it finds more than `limit`, or lists too deep in lists to be handled: it is then `limit + 1`.
    """
    return _extent(value, limit, 0)


def _extent(value: Any, limit: int, depth: int) -> int:
    if isinstance(value, str):
        return min(len(value), limit + 1)
    if not isinstance(value, tuple):
        return 0
    count = len(value)
    for item in value:
        if count > limit or depth > MAX_DEPTH:
            return limit + 1
        if isinstance(item, tuple | str):
            count += _extent(item, limit - count, depth + 1)
    return count


def divisible(value: float, divisor: int) -> int:
    """`value` rounded to a multiple of `divisor`, never down by more than 10% (MobileNet's channel rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def rounded(value: float, digits: int | None = None) -> float:
    """`round`, but a number of digits that takes long to round to is refused."""
    if digits is not None and (type(digits) is not int or abs(digits) > MAX_DIGITS):
        raise ValueError(f"it rounds to at most {MAX_DIGITS} digits")
    return round(value, digits)


def _range(*bounds: int) -> tuple[int, ...]:
    numbers = range(*bounds)
    if len(numbers) > MAX_ITEMS:
        raise ValueError(f"a list has at most {MAX_ITEMS:,} items")
    return tuple(numbers)


def _sum(items: tuple[float, ...]) -> float:
    if not isinstance(items, tuple) or not all(type(item) in (int, float) for item in items):
        raise ValueError("it adds up a list of numbers")
    return sum(items)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": rounded,
    "len": len,
    "sum": _sum,
    "range": _range,
    "divisible": divisible,
}

RESERVED = frozenset([*FUNCTIONS, *CONSTANTS, "in_channels", "in_height", "in_width"])
"""Names that a parameter or loop variable cannot take."""


_Piece = tuple[int, ast.expr | None, str]
"""Where a part of a string begins, and its expression, or else its text."""


def _split(text: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at:
            pieces.append((at, None, text[at:start]))
        end = _closing_brace(text, start + 2)
        pieces.append((start + 2, _parse(text[start + 2 : end], start + 2), ""))
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
_COMPARE: dict[type[ast.AST], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
_OTHER_SIGNS: dict[type[ast.AST], tuple[str, str]] = {
    ast.BitXor: ("`^`", "a power is written `**`"),
    ast.BitAnd: ("`&`", "write `and`"),
    ast.BitOr: ("`|`", "write `or`"),
    ast.LShift: ("`<<`", "multiply by a power of 2: `* 2**n`"),
    ast.RShift: ("`>>`", "divide by a power of 2: `// 2**n`"),
    ast.MatMult: ("`@`", ""),
}


_ITEMS_A_STEP = 8
"""How many items of a list, or characters of a text, are handled in the time of a step."""


class _Evaluation:
    def __init__(self, scope: Mapping[str, Any], offset: int, budget: Budget) -> None:
        self.scope = scope
        self.offset = offset
        self.budget = budget
        self.depth = 0

    def error(self, node: ast.AST, message: str, **details: Any) -> ExpressionError:
        return ExpressionError(message, self.offset + getattr(node, "col_offset", 0), **details)

    def value(self, node: ast.expr) -> Any:
        self.budget.spend(1)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(node, "the expression is too large")
        method = _METHODS.get(type(node))
        if method is None:
            raise self.error(node, f"{_describe(node)} is not part of the expression language")
        result = method(self, node)
        if type(result) in (int, float) and not abs(result) <= MAX_MAGNITUDE:
            raise self.error(node, "the number is too large")
        self.depth -= 1
        return result

    def made(self, node: ast.expr, result: Any) -> Any:
        """A list or text that an expression makes: it is bounded, all that is in it included."""
        if type(result) in (str, tuple):
            self.handle(result)
            if extent(result) > MAX_ITEMS:
                raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")
        return result

    def handle(self, *values: Any) -> None:
        """Spends what it takes to go through lists and texts."""
        for value in values:
            if type(value) in (str, tuple):
                self.budget.spend(1 + extent(value) // _ITEMS_A_STEP)

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is None or isinstance(node.value, bool | int | float | str):
            return node.value
        raise self.error(node, f"{_describe(node)} is not part of the expression language")

    def _name(self, node: ast.Name) -> Any:
        try:
            value = self.scope[node.id]
        except KeyError:
            pass
        else:
            if value is UNKNOWN:
                raise UnknownValueError
            return value
        if node.id in CONSTANTS:
            return CONSTANTS[node.id]
        if node.id in FUNCTIONS:
            raise self.error(node, f"`{node.id}` is a function; call it: `{node.id}(...)`")
        raise self.error(node, f"`{node.id}` is not known here", notes=partial(self.known, node.id))

    def known(self, name: str) -> Notes:
        names = sorted(set(self.scope) | set(CONSTANTS))
        return did_you_mean(name, names) or (("note", f"known here: {', '.join(names)}"),)

    def _list(self, node: ast.List | ast.Tuple) -> tuple[Any, ...]:
        return self.made(node, tuple(map(self.value, node.elts)))

    def _binop(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            sign, meant = _OTHER_SIGNS.get(type(node.op), ("this sign", ""))
            notes = (("help", meant),) if meant else ()
            raise self.error(
                node, f"{sign} is not part of the expression language", notes=lambda: notes
            )
        symbol, function = _BINARY[type(node.op)]
        left, right = self.value(node.left), self.value(node.right)
        if symbol == "**" and not (isinstance(right, int | float) and abs(right) <= 64):
            raise self.error(node, "an exponent is a number of at most 64")
        if symbol == "%" and isinstance(left, str):
            raise self.error(node, "`%` works on numbers")
        if symbol == "*" and any(isinstance(side, str | tuple) for side in (left, right)):
            length = prod(
                len(side) if isinstance(side, str | tuple) else side for side in (left, right)
            )
            if length > MAX_ITEMS:
                raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")
        self.handle(left, right)
        why = f"`{symbol}` does not work on {_kind(left)} and {_kind(right)}"
        what = partial(_infix, left, symbol, right)
        return self._apply(node, lambda: function(left, right), what, why)

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
            self.handle(left, right)
            symbol, function = _COMPARE[type(op)]
            why = f"`{symbol}` does not work on {_kind(left)} and {_kind(right)}"
            what = partial(_infix, left, symbol, right)
            if not self._apply(node, partial(function, left, right), what, why):
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
            raise self.error(
                node, f"index {index} is outside a list of {length}: {show(container)}"
            )
        what = "this slice" if isinstance(index, slice) else f"the index {show(index)}"
        why = "an index is a whole number"
        return self._apply(node, lambda: container[index], lambda: what, why)

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name not in FUNCTIONS:
            called = f"`{name}`" if name else _describe(node.func)
            notes = partial(_known_functions, name or "")
            raise self.error(node, f"{called} is not a function of the language", notes=notes)
        if node.keywords:
            raise self.error(node, f"`{name}` takes its arguments in order, without names")
        arguments = tuple(map(self.value, node.args))
        self.handle(*arguments)
        what = partial(_called, name, arguments)
        return self._apply(node, lambda: FUNCTIONS[name](*arguments), what)

    def _apply(
        self, node: ast.expr, function: Callable[[], Any], what: Callable[[], str], wrong: str = ""
    ) -> Any:
        """What `function` gives; `what` describes it, and `wrong` says why it does not take these types."""
        try:
            result = function()
        except ZeroDivisionError:
            raise self.error(node, f"division by zero: {what()}") from None
        except (TypeError, ValueError, OverflowError) as error:
            why = (
                wrong
                if wrong and isinstance(error, TypeError)
                else str(error).replace("tuple", "list")
            )
            raise self.error(node, f"{what()} has no value: {why}") from None
        if isinstance(result, complex):
            raise self.error(node, f"{what()} is not a real number")
        return self.made(node, result)


_METHODS: dict[type[ast.AST], Callable[[_Evaluation, Any], Any]] = {
    ast.Constant: _Evaluation._constant,
    ast.Name: _Evaluation._name,
    ast.List: _Evaluation._list,
    ast.Tuple: _Evaluation._list,
    ast.BinOp: _Evaluation._binop,
    ast.UnaryOp: _Evaluation._unaryop,
    ast.BoolOp: _Evaluation._boolop,
    ast.Compare: _Evaluation._compare,
    ast.IfExp: _Evaluation._ifexp,
    ast.Subscript: _Evaluation._subscript,
    ast.Call: _Evaluation._call,
}


def _known_functions(name: str) -> Notes:
    return did_you_mean(name, FUNCTIONS) or (
        ("note", f"the functions are: {', '.join(sorted(FUNCTIONS))}"),
    )


def _called(name: str, arguments: tuple[Any, ...]) -> str:
    return f"{name}({', '.join(map(show, arguments))})"


def _infix(left: Any, symbol: str, right: Any) -> str:
    return f"{show(left)} {symbol} {show(right)}"


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return show(value)
    return (
        "text" if isinstance(value, str) else "a list" if isinstance(value, tuple) else "a number"
    )


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
