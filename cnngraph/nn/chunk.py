"""A slice of the channels."""

from __future__ import annotations

from torch import Tensor, nn


class Chunk(nn.Module):
    """One of `chunks` equal slices of the channels: `(N, C, ...)` to `(N, C / chunks, ...)`.

    Raises `RuntimeError` if the channels cannot be divided by `chunks`.
    """

    def __init__(self, chunks: int, index: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.index = index

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(1, (self.chunks, -1)).select(1, self.index)

    def extra_repr(self) -> str:
        return f"chunks={self.chunks}, index={self.index}"
