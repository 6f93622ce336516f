"""Maps resized, cropped or padded to a size, or to the size of another map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class UpsampleLike(nn.Module):
    """`input`, `(N, C, H, W)`, resized to the height and width of `like`.

    Args:
        mode, align_corners: as of `torch.nn.functional.interpolate`.
    """

    def __init__(self, mode: str = "nearest", align_corners: bool | None = None) -> None:
        super().__init__()
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, input: Tensor, like: Tensor) -> Tensor:
        size: Any = like.shape[2:]
        return functional.interpolate(input, size, None, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


def center_crop(input: Tensor, size: Sequence[int]) -> Tensor:
    """The central part of this size of `(N, C, H, W)`: a view, without a copy.

    If the difference is odd, one position more is dropped at the end.
    """
    for axis in (2, 3):
        wanted = size[axis - 2]
        input = input.narrow(axis, (input.shape[axis] - wanted) // 2, wanted)
    return input


class Crop(nn.Module):
    """The central `size` of `(N, C, H, W)`."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, input: Tensor) -> Tensor:
        return center_crop(input, self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class CropLike(nn.Module):
    """The centre of `input`, `(N, C, H, W)`, of the height and width of `like`."""

    def forward(self, input: Tensor, like: Tensor) -> Tensor:
        return center_crop(input, like.shape[2:])


class PadLike(nn.Module):
    """`input`, `(N, C, H, W)`, padded to the height and width of `like`, evenly on both sides.

    If the difference is odd, one position more is added at the end.

    Args:
        mode, value: as of `torch.nn.functional.pad`.
    """

    def __init__(self, mode: str = "constant", value: float = 0.0) -> None:
        super().__init__()
        self.mode = mode
        self.value = value

    def forward(self, input: Tensor, like: Tensor) -> Tensor:
        sides: list[int] = []
        for axis in (2, 3):
            total = like.shape[axis] - input.shape[axis]
            sides = [total // 2, total - total // 2, *sides]
        value = self.value if self.mode == "constant" else None
        return functional.pad(input, sides, self.mode, value)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, value={self.value}"
