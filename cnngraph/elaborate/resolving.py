"""Expressions where they stand: the plain values of arguments, and the work that may go into them."""

from __future__ import annotations

from collections import ChainMap
from typing import Any

from cnngraph.elaborate.place import Place
from cnngraph.elaborate.reporting import Reporting
from cnngraph.errors import Position
from cnngraph.shape import TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.expressions import (
    MAX_ITEMS,
    MAX_STEPS,
    UNKNOWN,
    Budget,
    ExpressionError,
    OverBudgetError,
    UnknownValueError,
    evaluate,
    extent,
    is_expression,
)
from cnngraph.spec.yaml import Located

NOWHERE = TensorShape(())
"""The shape to evaluate expressions with where there is no current value."""


class Resolving(Reporting):
    """Evaluates expressions, within one budget for all of a spec."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget()

    def spend(self, steps: int, place: Place, position: Position) -> None:
        """Counts work that a spec can ask for much of, in steps of expressions."""
        try:
            self.budget.spend(steps)
        except OverBudgetError:
            message = f"the expressions, lists and arguments of this spec take more than {MAX_STEPS:,} steps in all"
            self.stop(place, message, position)

    def resolve(self, located: Located, place: Place, shape: TensorShape | None) -> Any:
        """The plain value of an argument, its expressions evaluated where `shape` is the current value's."""
        value = located.value
        if isinstance(value, dict | list):
            return self.resolve_all(located, place, shape)
        if not isinstance(value, str) or not is_expression(value):
            return value
        scope = ChainMap(_shape_variables(shape), place.variables)
        try:
            return evaluate(value, scope, self.budget)
        except UnknownValueError:
            raise InvalidError from None
        except OverBudgetError:
            self.spend(1, place, located.position)
            raise InvalidError from None
        except ExpressionError as error:
            position = located.position
            if position.width >= len(value):
                position = position.shifted(error.offset + (position.width > len(value)))
            self.fail(place, "E105", str(error), position, notes=error.notes)

    def resolve_all(self, located: Located, place: Place, shape: TensorShape | None) -> Any:
        self.spend(located.size // 4, place, located.position)
        if isinstance(located.value, dict):
            return {key: self.resolve(item, place, shape) for key, item in located.value.items()}
        result = tuple(self.resolve(item, place, shape) for item in located.value)
        if extent(result) > MAX_ITEMS:
            message = f"a list has at most {MAX_ITEMS:,} items, those of the lists in it included"
            self.fail(place, "E110", message, located.position)
        return result


def has_expressions(located: Located) -> bool:
    value = located.value
    if isinstance(value, dict | list):
        return any(map(has_expressions, value.values() if isinstance(value, dict) else value))
    return is_expression(value)


def _shape_variables(shape: TensorShape | None) -> dict[str, Any]:
    names = ("in_channels", "in_height", "in_width")
    if shape is None:
        return dict.fromkeys(names, UNKNOWN)
    return dict(zip(names, shape, strict=False))
