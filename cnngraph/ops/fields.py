"""Types of op arguments that torch takes as a number or a pair: checked, and always stored as a pair."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from pydantic import PlainValidator, WithJsonSchema


def _pair(value: Any, least: int, what: str) -> tuple[int, int]:
    items = value if isinstance(value, tuple) else (value, value)
    if len(items) != 2 or not all(type(item) is int and item >= least for item in items):
        raise ValueError(f"must be {what} or a list of two, [height, width]")
    return items[0], items[1]


def _pair_schema(least: int) -> dict[str, Any]:
    number = {"type": "integer", "minimum": least}
    return {"anyOf": [number, {"type": "array", "items": number, "minItems": 2, "maxItems": 2}]}


def positive_pair(value: Any) -> tuple[int, int]:
    return _pair(value, 1, "a whole number of at least 1")


def padding_pair(value: Any) -> tuple[int, int]:
    return _pair(value, 0, "a whole number of at least 0")


Pair = Annotated[tuple[int, int], PlainValidator(positive_pair), WithJsonSchema(_pair_schema(1))]
"""`3` or `[3, 5]`: height and width, at least 1 each."""

PaddingPair = Annotated[
    tuple[int, int], PlainValidator(padding_pair), WithJsonSchema(_pair_schema(0))
]
"""`1` or `[0, 1]`: padding of height and width, at least 0 each."""

Count = Annotated[int, Ge(1)]
Fraction = Annotated[float, Ge(0.0), Lt(1.0)]
PositiveFloat = Annotated[float, Gt(0.0)]
