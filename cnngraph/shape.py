"""Tensor shapes, and the error of shape rules."""

from __future__ import annotations

from math import prod


class TensorShape(tuple[int, ...]):
    """A shape without the batch dimension: `(channels, height, width)` or `(features,)`."""

    @property
    def channels(self) -> int:
        """The number of channels, or of features."""
        return self[0]

    @property
    def spatial(self) -> tuple[int, ...]:
        """`(height, width)`; empty for features."""
        return tuple(self[1:])

    @property
    def elements(self) -> int:
        """The number of values."""
        return prod(self)

    def with_channels(self, channels: int) -> TensorShape:
        """The same shape with another number of channels."""
        return TensorShape((channels, *self[1:]))

    def __str__(self) -> str:
        return "x".join(map(str, self))

    def __repr__(self) -> str:
        return f"TensorShape({self})"


class ShapeError(Exception):
    """A broken shape rule.

    Attributes:
        code: the code of the diagnostic to report.
        help: how to fix it, or "".
    """

    def __init__(self, message: str, *, code: str = "E201", help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.help = help
