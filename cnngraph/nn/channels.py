"""Parts and reductions of the channels of `(N, C, ...)`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Split(nn.Module):
    """Part `index` of the channels, split into parts of the sizes in `split_size`.

    Raises `RuntimeError` if the sizes do not add up to the number of channels.
    """

    def __init__(self, split_size: Sequence[int], index: int) -> None:
        super().__init__()
        self.split_size = list(split_size)
        self.index = index

    def forward(self, input: Tensor) -> Tensor:
        return input.split(self.split_size, 1)[self.index]

    def extra_repr(self) -> str:
        return f"split_size={self.split_size}, index={self.index}"


class Slice(nn.Module):
    """The channels from `start` up to `end`; negative numbers count from the last one."""

    def __init__(self, start: int = 0, end: int | None = None) -> None:
        super().__init__()
        self.start = start
        self.end = end

    def forward(self, input: Tensor) -> Tensor:
        return input[:, self.start : self.end]

    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}"


class ChannelMean(nn.Module):
    """Mean over the channels at each position: `(N, 1, ...)`."""

    def forward(self, input: Tensor) -> Tensor:
        return input.mean(1, keepdim=True)


class ChannelMax(nn.Module):
    """Largest value over the channels at each position: `(N, 1, ...)`.

    Of equal values the first gets the gradient.
    """

    def forward(self, input: Tensor) -> Tensor:
        return input.max(1, keepdim=True).values


class GroupSoftmax(nn.Module):
    """Softmax across `groups` groups of channels: channel c of each competes with the others'.

    Sources: Li et al., Selective Kernel Networks, https://arxiv.org/abs/1903.06586; Zhang et al.,
    ResNeSt, https://arxiv.org/abs/2004.08955.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(1, (self.groups, -1)).softmax(1).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
