"""The functions, constants and reserved names of expressions, and the sizes of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnngraph.errors import Notes, did_you_mean, is_list

MAX_DEPTH = 40
MAX_ITEMS = 10_000
MAX_DIGITS = 15

CONSTANTS = {"true": True, "false": False, "none": None}


class ArgumentError(Exception):
    """A function of the language does not accept its arguments."""


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
        raise ArgumentError(f"`round` takes at most {MAX_DIGITS} digits")
    return round(value, digits)


def _range(*bounds: int) -> tuple[int, ...]:
    numbers = range(*bounds)
    if len(numbers) > MAX_ITEMS:
        raise ArgumentError(f"a list has at most {MAX_ITEMS:,} items")
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
TAKES = {
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


def similar_functions(name: str) -> Notes:
    """What to write in place of an unknown function."""
    if name in _OTHER_FUNCTIONS:
        return (("help", _OTHER_FUNCTIONS[name]),)
    names = ", ".join(sorted(FUNCTIONS))
    return did_you_mean(name, FUNCTIONS) or (("note", f"the functions are: {names}"),)
