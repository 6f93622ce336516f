"""Evaluates the expressions in arguments, within one budget for the whole spec."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable
from typing import Any

from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.place import Place
from cnngraph.errors import Position
from cnngraph.shape import TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.expressions import (
    MAX_ITEMS,
    MAX_LENGTH,
    MAX_STEPS,
    RESERVED,
    SHAPE_VARIABLES,
    UNKNOWN,
    Budget,
    ExpressionError,
    OverBudgetError,
    UnknownValueError,
    evaluate,
    extent,
    is_expression,
    names_in,
)
from cnngraph.spec.yaml import Located

NO_SHAPE = TensorShape(())
"""The current shape where no value flows: in params and in the network's `input`."""
_SIZES = {1: ("in_length",), 3: ("in_depth", "in_height", "in_width")}
"""Number of spatial dimensions -> the variables with their sizes; maps have the usual two."""

STEPS_A_NODE = 12
"""Steps of walking a node, of opening a level, and of inferring a shape that no equal node had."""
STEPS_AN_ARGUMENT = 2
"""Validating a node, or one of its arguments, is so many steps; copies are validated once."""

_KEPT = frozenset({int, str, bool, type(None)})
"""Types of variables for which results are kept: equal values of these types are the same."""


class Evaluator:
    """Turns located arguments into plain values. Mistakes are reported to `diagnostics`."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._budget = Budget()
        self._variables: dict[str, str] = {}
        self._names: dict[str, tuple[tuple[str, ...], bool]] = {}
        self._results: dict[Hashable, tuple[Any, int]] = {}

    def spend(self, steps: int, place: Place, position: Position) -> None:
        """Spends `steps` of the budget on other work that a short spec can ask a lot of."""
        self._budget.left -= steps
        if self._budget.left < 0:
            message = f"checking this spec takes more than {MAX_STEPS:,} steps"
            self._diagnostics.stop(place, message, position)

    def resolve(self, located: Located, place: Place, shape: TensorShape | None) -> Any:
        """The plain value of an argument. `shape` is the current value's, None if unknown.

        Raises `InvalidError` after reporting a mistake, or if the value depends on an unknown.
        """
        value = located.value
        if not isinstance(value, str):
            if isinstance(value, dict | list):
                return self._resolve_all(located, place, shape)
            return value
        if not is_expression(value):
            return value
        try:
            result = self._evaluate(value, place.variables, shape)
            if isinstance(result, str | tuple):
                self._budget.spend(extent(result) // 4)
            return result
        except UnknownValueError:
            raise InvalidError from None
        except OverBudgetError:
            self.spend(1, place, located.position)
            raise InvalidError from None
        except ExpressionError as error:
            position = located.position
            if position.width >= len(value):
                position = position.shifted(error.offset + (position.width > len(value)))
            self._diagnostics.fail(place, "E105", str(error), position, notes=error.notes)

    def _evaluate(self, text: str, variables: dict[str, Any], shape: TensorShape | None) -> Any:
        """The value of a text with expressions; kept for the next time in an equal scope."""
        variable = self._variables.get(text)
        if variable and (value := variables.get(variable, UNKNOWN)) is not UNKNOWN:
            self._budget.spend(1)
            return value
        key = None
        known = self._names.get(text)
        if known is not None:
            names, reads_shape = known
            values = [variables.get(name, UNKNOWN) for name in names]
            types = tuple(map(type, values))
            if _KEPT.issuperset(types):
                key = (text, shape if reads_shape else None, types, *values)
                if key in self._results:
                    result, steps = self._results[key]
                    self._budget.spend(steps)
                    return result
        if shape is None:
            scope: dict[str, Any] = dict.fromkeys(SHAPE_VARIABLES, UNKNOWN)
        else:
            sizes = _SIZES.get(len(shape) - 1, ("in_height", "in_width"))
            scope = dict(zip(("in_channels", *sizes), shape, strict=False))
        left = self._budget.left
        result = evaluate(text, ChainMap(scope, variables), self._budget)
        if key is not None:
            self._results[key] = result, left - self._budget.left
        elif known is None and len(text) <= MAX_LENGTH:
            names = names_in(text)
            own = tuple(names - RESERVED)
            self._names[text] = own, not names.isdisjoint(SHAPE_VARIABLES)
            if len(own) == 1 and text == f"${{{own[0]}}}":
                self._variables[text] = own[0]
        return result

    def _resolve_all(self, located: Located, place: Place, shape: TensorShape | None) -> Any:
        self.spend(located.size // 2, place, located.position)
        if isinstance(located.value, dict):
            return {key: self.resolve(item, place, shape) for key, item in located.value.items()}
        result = tuple(self.resolve(item, place, shape) for item in located.items)
        if extent(result) > MAX_ITEMS:
            message = f"a list has at most {MAX_ITEMS:,} items, nested lists included"
            self._diagnostics.fail(place, "E110", message, located.position)
        return result


def has_expressions(located: Located) -> bool:
    """Whether an argument contains an expression, however deeply nested."""
    value = located.value
    if isinstance(value, dict | list):
        return any(map(has_expressions, value.values() if isinstance(value, dict) else value))
    return is_expression(value)
