"""Tensor shapes, and the error of a shape rule."""

from __future__ import annotations

from math import prod


class TensorShape(tuple[int, ...]):
    """A shape without its batch dimension: `(channels, height, width)`, or `(features,)`."""

    @property
    def channels(self) -> int:
        return self[0]

    @property
    def spatial(self) -> tuple[int, ...]:
        return tuple(self[1:])

    @property
    def elements(self) -> int:
        return prod(self)

    def with_channels(self, channels: int) -> TensorShape:
        return TensorShape((channels, *self[1:]))

    def __str__(self) -> str:
        return "x".join(map(str, self))

    def __repr__(self) -> str:
        return f"TensorShape({self})"


class ShapeError(Exception):
    """A shape rule that does not hold; `code` is the diagnostic it becomes, `help` a way out."""

    def __init__(self, message: str, *, code: str = "E201", help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.help = help
