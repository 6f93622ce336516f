"""Evaluates the syntax trees of expressions, within a budget of steps."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

from cnngraph.errors import Notes, did_you_mean, show
from cnngraph.spec.expressions.functions import (
    CONSTANTS,
    FUNCTIONS,
    MAX_DEPTH,
    MAX_ITEMS,
    TAKES,
    ArgumentError,
    extent,
    similar_functions,
)
from cnngraph.spec.expressions.operators import (
    BINARY,
    COMPARE,
    UNARY,
    UNSUPPORTED,
    describe,
    infix,
    kind_of,
    length_of,
)
from cnngraph.spec.expressions.syntax import ExpressionError, Piece, split

MAX_STEPS = 500_000
MAX_MAGNITUDE = 10**15
_MAX_EXPONENT = 64
_ITEMS_A_STEP = 8
"""Items of a list, or characters of a text, that count as one step."""
_STEPS_A_CHARACTER = 2
"""Steps of parsing a character of an expression; equal expressions are parsed once."""


class OverBudgetError(Exception):
    """The expressions of a spec have used up all their steps."""


class UnknownValueError(Exception):
    """The expression depends on a value that is unknown because of an earlier, reported mistake."""


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
"""In a scope: a value that cannot be known. Its use raises `UnknownValueError`."""


class Budget:
    """The steps that the expressions of one spec may still take, and those parsed so far."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps
        self.parsed: dict[str, list[Piece]] = {}

    def spend(self, steps: int) -> None:
        """Takes some of the steps. Raises `OverBudgetError` if there are not enough."""
        self.left -= steps
        if self.left < 0:
            raise OverBudgetError


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
        pieces = split(text)
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
            raise self.error(node, f"expressions do not support {describe(node)}")
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
        raise self.error(node, f"expressions do not support {describe(node)}")

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
        if type(node.op) not in BINARY:
            sign, help = UNSUPPORTED.get(type(node.op), ("this operator", ""))
            notes = (("help", help),) if help else ()
            raise self.error(node, f"expressions do not support {sign}", notes=lambda: notes)
        symbol, function = BINARY[type(node.op)]
        left, right = self.value(node.left), self.value(node.right)
        small = isinstance(right, int | float) and abs(right) <= _MAX_EXPONENT
        if symbol == "**" and not small:
            raise self.error(node, f"an exponent must be a number of at most {_MAX_EXPONENT}")
        if symbol == "%" and isinstance(left, str):
            raise self.error(node, f"cannot apply `%` to text and {kind_of(right)}")
        if symbol == "*" and {type(left), type(right)} & {str, tuple}:
            lengths = [length_of(side) for side in (left, right)]
            if all(isinstance(length, int) for length in lengths) and prod(lengths) > MAX_ITEMS:
                raise self.error(node, f"a list has at most {MAX_ITEMS:,} items")
        return self.operate(node, left, symbol, right, function)

    def unary(self, node: ast.UnaryOp) -> Any:
        operand = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not operand
        if not isinstance(operand, int | float) or isinstance(node.op, ast.Invert):
            raise self.error(node, f"cannot apply `{UNARY[type(node.op)]}` to {kind_of(operand)}")
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
            if type(op) not in COMPARE:
                raise self.error(node, "expressions do not support `is`; use `==`")
            right = self.value(item)
            symbol, function = COMPARE[type(op)]
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
            raise self.error(node, f"division by zero: {infix(left, symbol, right)}") from None
        except TypeError:
            kinds = f"{kind_of(left)} and {kind_of(right)}: {infix(left, symbol, right)}"
            raise self.error(node, f"cannot apply `{symbol}` to {kinds}") from None
        except OverflowError:
            raise self.error(node, "the number is too large") from None
        if isinstance(result, complex):
            raise self.error(node, f"{infix(left, symbol, right)} is not a real number")
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
            called = f"the function `{name}`" if name else describe(node.func)
            notes = partial(similar_functions, name or "")
            raise self.error(node, f"expressions do not support {called}", notes=notes)
        if node.keywords:
            raise self.error(node, f"`{name}` takes positional arguments only")
        arguments = tuple(map(self.value, node.args))
        self.read(*arguments)
        try:
            result = FUNCTIONS[name](*arguments)
        except (ArithmeticError, TypeError, ValueError, ArgumentError) as error:
            why = error if isinstance(error, ArgumentError) else f"`{name}` takes {TAKES[name]}"
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
