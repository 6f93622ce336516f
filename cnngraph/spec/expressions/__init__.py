"""`${...}`: a small, bounded interpreter over Python's expression syntax.

Values are numbers, text, booleans, `none` and lists, and only the functions in `functions.py` can
be called: a spec is data, and must be safe to read from a stranger. Length, depth, magnitudes and
the sizes of lists are limited, and so are the steps of all expressions of a spec together.
"""

from cnngraph.spec.expressions.evaluation import (
    MAX_MAGNITUDE,
    MAX_STEPS,
    UNKNOWN,
    Budget,
    OverBudgetError,
    UnknownValueError,
    evaluate,
)
from cnngraph.spec.expressions.functions import (
    CONSTANTS,
    FUNCTIONS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_ITEMS,
    RESERVED,
    SHAPE_VARIABLES,
    divisible,
    extent,
)
from cnngraph.spec.expressions.syntax import (
    MAX_LENGTH,
    ExpressionError,
    is_expression,
    names_in,
)

__all__ = [
    "CONSTANTS", "FUNCTIONS", "MAX_DEPTH", "MAX_DIGITS", "MAX_ITEMS", "MAX_LENGTH",
    "MAX_MAGNITUDE", "MAX_STEPS", "RESERVED", "SHAPE_VARIABLES", "UNKNOWN", "Budget",
    "ExpressionError", "OverBudgetError", "UnknownValueError", "divisible", "evaluate", "extent",
    "is_expression", "names_in",
]  # fmt: skip
