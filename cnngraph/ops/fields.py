"""Types of op arguments. Each rejects an invalid value in one sentence.

A number or a pair is always stored as a pair, (height, width).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Annotated, Any, cast

from annotated_types import Ge
from pydantic import PlainValidator, WithJsonSchema


def _items(value: Any, count: int) -> tuple[Any, ...]:
    """The items of a list, or `count` times a single value."""
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,) * count


def _pair(value: Any, least: int, what: str) -> tuple[int, int]:
    items = _items(value, 2)
    if len(items) != 2 or not all(type(item) is int and item >= least for item in items):
        raise ValueError(f"must be {what} or a list of two, [height, width]")
    return items[0], items[1]


def _schema(item: dict[str, Any], count: int = 2) -> dict[str, Any]:
    """One `item`, or a list of `count` of them."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": count, "maxItems": count}]}


def _whole(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


def positive_pair(value: Any) -> tuple[int, int]:
    """A pair of integers of at least 1. Raises `ValueError` for anything else."""
    return _pair(value, 1, "a whole number of at least 1")


def padding_pair(value: Any) -> tuple[int, int]:
    """A pair of integers of at least 0. Raises `ValueError` for anything else."""
    return _pair(value, 0, "a whole number of at least 0")


def _output_size(value: Any) -> tuple[int | None, int | None]:
    items = _items(value, 2)
    valid = all(item is None or (type(item) is int and item >= 1) for item in items)
    if value is None or len(items) != 2 or not valid:
        raise ValueError(
            "must be a whole number of at least 1 or a list of two, [height, width], "
            "in which null keeps the input's"
        )
    return items[0], items[1]


def _sides(value: Any) -> tuple[int, int, int, int]:
    items = _items(value, 4)
    if len(items) != 4 or not all(type(item) is int for item in items):
        raise ValueError("must be a whole number or a list of four, [left, right, top, bottom]")
    return items[0], items[1], items[2], items[3]


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _scale_pair(value: Any) -> tuple[float, float]:
    items = _items(value, 2)
    if len(items) != 2 or not all(_is_number(item) and item > 0 for item in items):
        raise ValueError("must be a number greater than 0 or a list of two, [height, width]")
    return float(items[0]), float(items[1])


def _number(what: str, holds: Callable[[float], bool]) -> Callable[[Any], float]:
    def number(value: Any) -> float:
        if not _is_number(value) or not holds(value):
            raise ValueError(f"must be {what}")
        return float(value)

    return number


Count = Annotated[int, Ge(1)]

Pair = Annotated[tuple[int, int], PlainValidator(positive_pair), WithJsonSchema(_schema(_whole(1)))]
"""`3` or `[3, 5]`: height and width, at least 1 each."""

PaddingPair = Annotated[
    tuple[int, int], PlainValidator(padding_pair), WithJsonSchema(_schema(_whole(0)))
]
"""`1` or `[0, 1]`: padding of height and width, at least 0 each."""

OutputSize = Annotated[
    tuple[int | None, int | None],
    PlainValidator(_output_size),
    WithJsonSchema(
        {
            "anyOf": [
                _whole(1),
                {
                    "type": "array",
                    "items": {"anyOf": [_whole(1), {"type": "null"}]},
                    "minItems": 2,
                    "maxItems": 2,
                },
            ]
        }
    ),
]
"""`7` or `[7, null]`: height and width of a result; null keeps the input's."""

Sides = Annotated[
    tuple[int, int, int, int],
    PlainValidator(_sides),
    WithJsonSchema(_schema({"type": "integer"}, count=4)),
]
"""`1` or `[0, 1, 0, 1]`: left, right, top and bottom, in the order of `torch.nn.functional.pad`."""

ScalePair = Annotated[
    tuple[float, float],
    PlainValidator(_scale_pair),
    WithJsonSchema(_schema({"type": "number", "exclusiveMinimum": 0})),
]
"""`2` or `[1.5, 2]`: factors of height and width."""

Number = Annotated[
    float,
    PlainValidator(_number("a finite number", lambda value: True)),
    WithJsonSchema({"type": "number"}),
]

PositiveNumber = Annotated[
    float,
    PlainValidator(_number("a number greater than 0", lambda value: value > 0)),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]

Fraction = Annotated[
    float,
    PlainValidator(_number("a number from 0 to 1", lambda value: 0 <= value <= 1)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
"""A probability or a momentum."""
