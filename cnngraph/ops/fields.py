"""Types of op arguments. Each rejects an invalid value in one sentence.

Sizes are always stored as a tuple: (length,), (height, width), or (depth, height, width).
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


_LISTS = {
    1: "",
    2: " or a list of two, [height, width]",
    3: " or a list of three, [depth, height, width]",
}


MOST = 2**29
"""The largest of these sizes: oneDNN crashes if the extent of a window overflows 32 bits."""


def sizes(count: int, least: int) -> Callable[[Any], tuple[int, ...]]:
    """A validator: `count` integers from `least` to `MOST`, or one in their place.

    It raises `ValueError` for anything else.
    """

    def validated(value: Any) -> tuple[int, ...]:
        items = _items(value, count)
        if len(items) != count or not all(type(item) is int and item >= least for item in items):
            raise ValueError(f"must be a whole number of at least {least}{_LISTS[count]}")
        if max(items) > MOST:
            raise ValueError(f"must be at most {MOST}")
        return items

    return validated


def _schema(item: dict[str, Any], count: int = 2) -> dict[str, Any]:
    """One `item`, or a list of `count` of them."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": count, "maxItems": count}]}


def _whole(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


def sizes_schema(count: int, least: int) -> dict[str, Any]:
    """The JSON Schema of what `sizes` accepts."""
    return _schema({**_whole(least), "maximum": MOST}, count)


def _output_sizes(count: int) -> Callable[[Any], tuple[int | None, ...]]:
    def validated(value: Any) -> tuple[int | None, ...]:
        items = _items(value, count)
        valid = all(item is None or (type(item) is int and item >= 1) for item in items)
        if value is None or len(items) != count or not valid:
            rule = f"must be a whole number of at least 1{_LISTS[count]}"
            raise ValueError(rule + ", in which null keeps the input's" * (count > 1))
        return items

    return validated


def _output_schema(count: int) -> dict[str, Any]:
    item = {"anyOf": [_whole(1), {"type": "null"}]}
    many = {"type": "array", "items": item, "minItems": count, "maxItems": count}
    return {"anyOf": [_whole(1), many]}


def _sides(value: Any) -> tuple[int, int, int, int]:
    items = _items(value, 4)
    if len(items) != 4 or not all(type(item) is int for item in items):
        raise ValueError("must be a whole number or a list of four, [left, right, top, bottom]")
    return items[0], items[1], items[2], items[3]


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number; booleans are not."""
    try:
        return type(value) in (int, float) and isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _scale_pair(value: Any) -> tuple[float, float]:
    items = _items(value, 2)
    if len(items) != 2 or not all(is_number(item) and item > 0 for item in items):
        raise ValueError("must be a number greater than 0 or a list of two, [height, width]")
    return float(items[0]), float(items[1])


def _number(what: str, holds: Callable[[float], bool]) -> Callable[[Any], float]:
    def number(value: Any) -> float:
        if not is_number(value) or not holds(value):
            raise ValueError(f"must be {what}")
        return float(value)

    return number


Count = Annotated[int, Ge(1)]

Sizes = tuple[int, ...]

Single = Annotated[Sizes, PlainValidator(sizes(1, 1)), WithJsonSchema(sizes_schema(1, 1))]
"""`3`: a length, at least 1."""

Pair = Annotated[Sizes, PlainValidator(sizes(2, 1)), WithJsonSchema(sizes_schema(2, 1))]
"""`3` or `[3, 5]`: height and width, at least 1 each."""

Triple = Annotated[Sizes, PlainValidator(sizes(3, 1)), WithJsonSchema(sizes_schema(3, 1))]
"""`3` or `[1, 3, 3]`: depth, height and width, at least 1 each."""

PaddingSingle = Annotated[Sizes, PlainValidator(sizes(1, 0)), WithJsonSchema(sizes_schema(1, 0))]
"""`1`: padding of the length, at least 0."""

PaddingPair = Annotated[Sizes, PlainValidator(sizes(2, 0)), WithJsonSchema(sizes_schema(2, 0))]
"""`1` or `[0, 1]`: padding of height and width, at least 0 each."""

PaddingTriple = Annotated[Sizes, PlainValidator(sizes(3, 0)), WithJsonSchema(sizes_schema(3, 0))]
"""`1` or `[0, 1, 1]`: padding of depth, height and width, at least 0 each."""

OutputSingle = Annotated[
    tuple[int | None, ...], PlainValidator(_output_sizes(1)), WithJsonSchema(_output_schema(1))
]
"""`7`: the length of a result."""

OutputSize = Annotated[
    tuple[int | None, ...], PlainValidator(_output_sizes(2)), WithJsonSchema(_output_schema(2))
]
"""`7` or `[7, null]`: height and width of a result; null keeps the input's."""

OutputTriple = Annotated[
    tuple[int | None, ...], PlainValidator(_output_sizes(3)), WithJsonSchema(_output_schema(3))
]
"""`7` or `[1, 7, null]`: depth, height and width of a result; null keeps the input's."""

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
