"""Modules that join the results of several blocks, and blocks that are skipped in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Root(nn.Module):
    """Joins the results of the blocks of a tree."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, *children: Tensor) -> Tensor:
        return self.bn(self.conv(torch.cat(children, 1))).relu()


class Tree(nn.Module):
    """Two blocks, or two trees of which the second gets the result of the first for its root."""

    def __init__(self, levels: int, inputs: int, outputs: int, more: int = 0) -> None:
        super().__init__()
        self.levels = levels
        if levels == 1:
            self.tree1 = ConvNorm(inputs, outputs, stride=2 if inputs != outputs else 1)
            self.tree2 = ConvNorm(outputs, outputs)
            self.root = Root(2 * outputs + more, outputs)
        else:
            self.tree1 = Tree(levels - 1, inputs, outputs)
            self.tree2 = Tree(levels - 1, outputs, outputs, more=outputs)

    def forward(self, x: Tensor, children: tuple[Tensor, ...] = ()) -> Tensor:
        first = self.tree1(x)
        if self.levels == 1:
            return self.root(self.tree2(first), first, *children)
        return self.tree2(first, (first, *children))


class Aggregation(nn.Module):
    """As in DLA."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8)
        self.level1 = Tree(1, 8, 16)
        self.level2 = Tree(2, 16, 32)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.level2(self.level1(self.stem(x))).mean((2, 3)))


class OneShot(nn.Module):
    """Convolutions in a chain, whose results are joined once, as in VoVNet."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvNorm(inputs if i == 0 else width, width) for i in range(3))
        self.join = nn.Conv2d(inputs + 3 * width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        results = [x]
        for conv in self.convs:
            results.append(conv(results[-1]))
        return self.join(torch.cat(results, 1))


class OneShots(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, 2)
        self.blocks = nn.Sequential(OneShot(8, 4, 16), nn.MaxPool2d(2), OneShot(16, 8, 16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class DropPath(nn.Module):
    """Stochastic depth, with the name and the attributes that it has in timm."""

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        kept = x.new_empty((len(x), 1, 1, 1)).bernoulli_(1 - self.drop_prob)
        return x * kept.div_(1 - self.drop_prob)


class Skipped(nn.Module):
    def __init__(self, channels: int, drop_prob: float) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels)
        self.drop_path = DropPath(drop_prob)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.conv(x))


class StochasticDepth(nn.Module):
    """Blocks that are skipped ever more often."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, 2)
        self.blocks = nn.Sequential(*(Skipped(8, 0.1 * i) for i in range(3)))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))
