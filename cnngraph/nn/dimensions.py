"""The dimensions of a value in another order."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Permute(nn.Module):
    """The dimensions in the order `dims`, as `torch.permute`; dimension 0 is the batch."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(self.dims)

    def extra_repr(self) -> str:
        return f"dims={self.dims}"


class Transpose(nn.Module):
    """Two dimensions exchanged, as `torch.transpose`; dimension 0 is the batch."""

    def __init__(self, dim0: int, dim1: int) -> None:
        super().__init__()
        self.dim0 = dim0
        self.dim1 = dim1

    def forward(self, input: Tensor) -> Tensor:
        return input.transpose(self.dim0, self.dim1)

    def extra_repr(self) -> str:
        return f"dim0={self.dim0}, dim1={self.dim1}"
