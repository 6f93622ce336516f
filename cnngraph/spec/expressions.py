"""`${...}`: a small, bounded interpreter over Python's expression syntax.

Values are numbers, text, booleans, `none` and lists, and only the functions below can be called: a
spec is data, and must be safe to read from a stranger. Length, depth, magnitudes and the sizes of
lists are limited, and so are the steps of all expressions of a spec together.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from math import prod
from typing import Any, TypeGuard

from cnngraph.errors import Notes, did_you_mean, is_list, show

MAX_LENGTH = 500
MAX_STEPS = 500_000
MAX_DEPTH = 40
MAX_MAGNITUDE = 10**15
MAX_ITEMS = 10_000
MAX_DIGITS = 15
_MAX_EXPONENT = 64
_ITEMS_A_STEP = 8
"""Items of a list, or characters of a text, that count as one step."""

_STEPS_A_CHARACTER = 2
"""Steps of parsing a character of an expression; equal expressions are parsed once."""

CONSTANTS = {"true": True, "false": False, "none": None}


class ExpressionError(Exception):
    """A wrong expression; `offset` counts characters from the start of its string."""

    def __init__(self, message: str, offset: int = 0, notes: Callable[[], Notes] = tuple) -> None:
        super().__init__(message)
        self.offset = offset
        self.notes = notes


class OverBudgetError(Exception):
    """The expressions of a spec have used up all their steps."""


class UnknownValueError(Exception):
    """The expression depends on a value that is unknown because of an earlier, reported mistake."""


class _ArgumentError(Exception):
    """A function of the language does not accept its arguments."""


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
"""In a scope: a value that cannot be known. Its use raises `UnknownValueError`."""


class Budget:
    """The steps that the expressions of one spec may still take, and those parsed so far."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps
        self.parsed: dict[str, list[_Piece]] = {}

    def spend(self, steps: int) -> None:
        """Takes some of the steps. Raises `OverBudgetError` if there are not enough."""
        self.left -= steps
        if self.left < 0:
            raise OverBudgetError


def is_expression(text: Any) -> TypeGuard[str]:
    """Whether a value is text that contains `${`."""
    return isinstance(text, str) and "${" in text


def evaluate(text: str, scope: Mapping[str, Any], budget: Budget | None = None) -> Any:
    """The value of a text with `${...}`.

    A text that is a single expression has the value and type of the expression; otherwise the
    values are inserted into the text.

    Raises:
        ExpressionError: an expression is wrong.
        OverBudgetError: the budget is used up.
        UnknownValueError: a value in `scope` is unknown.
    """
    budget = budget or Budget()
    pieces = budget.parsed.get(text)
    if pieces is None:
        budget.spend(_STEPS_A_CHARACTER * len(text))
        pieces = _split_cached(text) if len(text) <= MAX_LENGTH else _split(text)
        budget.parsed[text] = pieces
    values = [
        literal if tree is None else _Evaluation(scope, offset, budget).value(tree)
        for offset, tree, literal in pieces
    ]
    if len(values) == 1:
        return values[0]
    length = 0
    for index, (value, (offset, _, _)) in enumerate(zip(values, pieces, strict=True)):
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ExpressionError(f"cannot insert {show(value)} into text", offset)
        values[index] = str(value)
        length += len(values[index])
        if length > MAX_ITEMS:
            raise ExpressionError(f"the text has more than {MAX_ITEMS:,} characters", offset)
    budget.spend(len(values) + length // _ITEMS_A_STEP)
    return "".join(values)


@lru_cache(maxsize=4096)
def names_in(text: str) -> frozenset[str]:
    """The names that the expressions in a valid text can read."""
    trees = [tree for _, tree, _ in _split_cached(text) if tree is not None]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))


def extent(value: Any, limit: int = MAX_ITEMS) -> int:
    """The number of items of a list, nested lists included, or of characters of a text.

    It is `limit + 1` if there are more than `limit`, or if lists are nested too deeply.
    """
    return _extent(value, limit, 0)


def _extent(value: Any, limit: int, depth: int) -> int:
    if isinstance(value, str):
        return min(len(value), limit + 1)
    if not is_list(value):
        return 0
    count = len(value)
    for item in value:
        if count > limit or depth > MAX_DEPTH:
            return limit + 1
        if isinstance(item, tuple | str):
            count += _extent(item, limit - count, depth + 1)
    return count


def divisible(value: float, divisor: int) -> int:
    """`value` rounded to a multiple of `divisor`, but down by at most 10%.

    This is how MobileNet rounds its channels (Sandler et al., MobileNetV2).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def rounded(value: float, digits: int | None = None) -> float:
    """`round`, with at most `MAX_DIGITS` digits."""
    if isinstance(digits, int) and abs(digits) > MAX_DIGITS:
        raise _ArgumentError(f"`round` takes at most {MAX_DIGITS} digits")
    return round(value, digits)


def _range(*bounds: int) -> tuple[int, ...]:
    numbers = range(*bounds)
    if len(numbers) > MAX_ITEMS:
        raise _ArgumentError(f"a list has at most {MAX_ITEMS:,} items")
    return tuple(numbers)


def _sum(items: Any) -> float:
    if not is_list(items) or not all(type(item) in (int, float) for item in items):
        raise TypeError
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
_TAKES = {
    "min": "numbers, or a list of at least one number",
    "max": "numbers, or a list of at least one number",
    "round": "a number and, optionally, a number of digits",
    "len": "a list or text",
    "sum": "a list of numbers",
    "range": "one to three whole numbers, the third not 0",
    "divisible": "a number and a divisor",
}

_OTHER_FUNCTIONS = {
    "abs": "write `max(x, -x)`",
    "ceil": "write `-(-a // b)` to divide and round up",
    "float": "leave it out: a whole number is accepted where a number is expected",
    "floor": "use `//` to divide into a whole number",
    "int": "use `//` to divide into a whole number, or `round(...)`",
    "make_divisible": "write `divisible(value, divisor)`",
    "pow": "write a power as `**`",
    "sqrt": "write `x ** 0.5`",
    "str": "write text with values in it: `conv${i}`",
}
"""Functions of Python and of other libraries -> what to write here."""

SHAPE_VARIABLES = ("in_channels", "in_length", "in_depth", "in_height", "in_width")
"""Names for the shape of a node's input."""

RESERVED = frozenset([*FUNCTIONS, *CONSTANTS, *SHAPE_VARIABLES])
"""Names that a parameter or loop variable cannot have."""


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


_split_cached = lru_cache(maxsize=4096)(_split)


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


_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|(?<!\w)(?P<number>[0-9][\w.]*)""")
_NUMBER = re.compile(r"0[bBoOxX][0-9a-fA-F_]+|[0-9_]*\.?[0-9_]*([eE][0-9_]*)?[jJ]?")


def _warns(source: str) -> bool:
    """Whether Python warns of this text: of an unknown escape, or a number glued to a word.

    The warning cannot be hidden, because the filters of warnings belong to all threads.
    """
    if "\\" in source:
        return True
    numbers = (match["number"] for match in _TOKEN.finditer(source))
    return any(number and not _NUMBER.fullmatch(number) for number in numbers)


def _parse(source: str, offset: int) -> ast.expr:
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters", offset)
    stripped = source.strip()
    if not stripped:
        raise ExpressionError("the expression is empty", offset)
    if _warns(stripped):
        raise ExpressionError("this is not a valid expression", offset)
    try:
        return ast.parse(stripped, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError("this is not a valid expression", offset) from None


_BINARY: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", lambda a, b: a / b),
    ast.FloorDiv: ("//", lambda a, b: a // b),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", lambda a, b: a**b),
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
_UNARY: dict[type[ast.AST], str] = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~"}
_UNSUPPORTED: dict[type[ast.AST], tuple[str, str]] = {
    ast.BitXor: ("`^`", "write a power as `**`"),
    ast.BitAnd: ("`&`", "write `and`"),
    ast.BitOr: ("`|`", "write `or`"),
    ast.LShift: ("`<<`", "multiply by a power of 2: `* 2**n`"),
    ast.RShift: ("`>>`", "divide by a power of 2: `// 2**n`"),
    ast.MatMult: ("`@`", ""),
}


class _Evaluation:
    """Evaluates one expression; `offset` is where it begins in its string."""

    def __init__(self, scope: Mapping[str, Any], offset: int, budget: Budget) -> None:
        self.scope = scope
        self.offset = offset
        self.budget = budget
        self.depth = 0

    def error(self, node: ast.AST, message: str, **details: Any) -> ExpressionError:
        return ExpressionError(message, self.offset + getattr(node, "col_offset", 0), **details)

    def value(self, node: ast.expr) -> Any:
        self.budget.left -= 1
        if self.budget.left < 0:
            raise OverBudgetError
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(node, "the expression is nested too deeply")
        method = _METHODS.get(type(node))
        if method is None:
            raise self.error(node, f"expressions do not support {_describe(node)}")
        result = method(self, node)
        if type(result) in (int, float) and not abs(result) <= MAX_MAGNITUDE:
            raise self.error(node, "the number is too large")
        self.depth -= 1
        return result

    def made(self, node: ast.expr, result: Any) -> Any:
        """A value that an expression made; a list or text must be within the limits."""
        if type(result) in (str, tuple):
            self.read(result)
            if extent(result) > MAX_ITEMS:
                raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")
        return result

    def read(self, *values: Any) -> None:
        """Spends the steps of reading lists and texts."""
        for value in values:
            if type(value) in (str, tuple):
                self.budget.spend(1 + extent(value) // _ITEMS_A_STEP)

    def constant(self, node: ast.Constant) -> Any:
        if node.value is None or isinstance(node.value, bool | int | float | str):
            return node.value
        raise self.error(node, f"expressions do not support {_describe(node)}")

    def name(self, node: ast.Name) -> Any:
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
        raise self.error(
            node, f"`{node.id}` is not defined here", notes=partial(self._similar, node.id)
        )

    def _similar(self, name: str) -> Notes:
        names = sorted(set(self.scope) | set(CONSTANTS))
        return did_you_mean(name, names) or (("note", f"defined here: {', '.join(names)}"),)

    def list(self, node: ast.List | ast.Tuple) -> tuple[Any, ...]:
        return self.made(node, tuple(map(self.value, node.elts)))

    def binary(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            sign, help = _UNSUPPORTED.get(type(node.op), ("this operator", ""))
            notes = (("help", help),) if help else ()
            raise self.error(node, f"expressions do not support {sign}", notes=lambda: notes)
        symbol, function = _BINARY[type(node.op)]
        left, right = self.value(node.left), self.value(node.right)
        small = isinstance(right, int | float) and abs(right) <= _MAX_EXPONENT
        if symbol == "**" and not small:
            raise self.error(node, f"an exponent must be a number of at most {_MAX_EXPONENT}")
        if symbol == "%" and isinstance(left, str):
            raise self.error(node, f"cannot apply `%` to text and {_kind(right)}")
        if symbol == "*" and {type(left), type(right)} & {str, tuple}:
            lengths = [_length(side) for side in (left, right)]
            if all(isinstance(length, int) for length in lengths) and prod(lengths) > MAX_ITEMS:
                raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")
        return self.operate(node, left, symbol, right, function)

    def unary(self, node: ast.UnaryOp) -> Any:
        operand = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not operand
        if not isinstance(operand, int | float) or isinstance(node.op, ast.Invert):
            raise self.error(node, f"cannot apply `{_UNARY[type(node.op)]}` to {_kind(operand)}")
        return -operand if isinstance(node.op, ast.USub) else operand

    def boolean(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        result: Any = None
        for item in node.values:
            result = self.value(item)
            if bool(result) is stop:
                break
        return result

    def comparison(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, item in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _COMPARE:
                raise self.error(node, "expressions do not support `is`; use `==`")
            right = self.value(item)
            symbol, function = _COMPARE[type(op)]
            if not self.operate(node, left, symbol, right, function):
                return False
            left = right
        return True

    def operate(
        self, node: ast.expr, left: Any, symbol: str, right: Any, function: Callable[..., Any]
    ) -> Any:
        """The value of `left symbol right`, computed by `function(left, right)`."""
        self.read(left, right)
        try:
            result = function(left, right)
        except ZeroDivisionError:
            raise self.error(node, f"division by zero: {_infix(left, symbol, right)}") from None
        except TypeError:
            kinds = f"{_kind(left)} and {_kind(right)}: {_infix(left, symbol, right)}"
            raise self.error(node, f"cannot apply `{symbol}` to {kinds}") from None
        except OverflowError:
            raise self.error(node, "the number is too large") from None
        if isinstance(result, complex):
            raise self.error(node, f"{_infix(left, symbol, right)} is not a real number")
        return self.made(node, result)

    def conditional(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def subscript(self, node: ast.Subscript) -> Any:
        container: Any = self.value(node.value)
        if type(container) not in (tuple, str):
            raise self.error(node, f"{show(container)} is not a list")
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            index: Any = slice(*(None if part is None else self.value(part) for part in parts))
        else:
            index = self.value(node.slice)
        if isinstance(index, int) and not -len(container) <= index < len(container):
            length = len(container)
            message = f"index {index} is out of range for a list of {length}: {show(container)}"
            raise self.error(node, message)
        try:
            result = container[index]
        except (TypeError, ValueError):
            message = f"an index must be a whole number, not {show(index)}"
            if isinstance(index, slice):
                message = "the parts of a slice must be whole numbers, the third not 0"
            raise self.error(node, message) from None
        return self.made(node, result)

    def call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name not in FUNCTIONS:
            called = f"the function `{name}`" if name else _describe(node.func)
            notes = partial(_similar_functions, name or "")
            raise self.error(node, f"expressions do not support {called}", notes=notes)
        if node.keywords:
            raise self.error(node, f"`{name}` takes positional arguments only")
        arguments = tuple(map(self.value, node.args))
        self.read(*arguments)
        try:
            result = FUNCTIONS[name](*arguments)
        except (ArithmeticError, TypeError, ValueError, _ArgumentError) as error:
            why = error if isinstance(error, _ArgumentError) else f"`{name}` takes {_TAKES[name]}"
            shown = ", ".join(map(show, arguments))
            raise self.error(node, f"cannot evaluate {name}({shown}): {why}") from None
        return self.made(node, result)


_METHODS: dict[type[ast.AST], Callable[[_Evaluation, Any], Any]] = {
    ast.Constant: _Evaluation.constant,
    ast.Name: _Evaluation.name,
    ast.List: _Evaluation.list,
    ast.Tuple: _Evaluation.list,
    ast.BinOp: _Evaluation.binary,
    ast.UnaryOp: _Evaluation.unary,
    ast.BoolOp: _Evaluation.boolean,
    ast.Compare: _Evaluation.comparison,
    ast.IfExp: _Evaluation.conditional,
    ast.Subscript: _Evaluation.subscript,
    ast.Call: _Evaluation.call,
}


def _similar_functions(name: str) -> Notes:
    if name in _OTHER_FUNCTIONS:
        return (("help", _OTHER_FUNCTIONS[name]),)
    names = ", ".join(sorted(FUNCTIONS))
    return did_you_mean(name, FUNCTIONS) or (("note", f"the functions are: {names}"),)


def _infix(left: Any, symbol: str, right: Any) -> str:
    return f"{show(left)} {symbol} {show(right)}"


def _length(value: Any) -> Any:
    return len(value) if type(value) in (str, tuple) else value


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return show(value)
    return (
        "text" if isinstance(value, str) else "a list" if isinstance(value, tuple) else "a number"
    )


def _describe(node: ast.AST) -> str:
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
