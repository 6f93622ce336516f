"""Modules as people write them, to import."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Double(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(),
        )


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.conv = Double(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    """Values that skip most of the network, and modules in lists."""

    def __init__(self) -> None:
        super().__init__()
        widths = [4, 8, 12, 16]
        self.inc = Double(3, widths[0])
        self.down = nn.ModuleList(Double(*pair) for pair in pairwise(widths))
        self.up = nn.ModuleList(Up(inner, outer) for outer, inner in reversed([*pairwise(widths)]))
        self.out = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.inc(x)]
        for down in self.down:
            skips.append(down(functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return self.out(x)


class Block(nn.Module):
    """A residual block whose weights are not stored in the order in which they run."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.scale = nn.Parameter(torch.rand(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 4:  # a branch on a size, which tracing must know
            raise ValueError("too small")
        y = functional.silu(self.norm(self.conv(x))) * self.scale
        return functional.relu(y + self.skip(x))


class Residual(nn.Module):
    """Blocks with parameters, functions in place of modules, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.Sequential(Block(8, 8), Block(8, 8), Block(8, 16, 2), Block(16, 32, 2))
        self.gate = nn.Linear(32, 32)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.stem(x)).mean((2, 3))
        x = x * torch.sigmoid(self.gate(x))
        return self.fc(self.drop(x).view(x.size(0), -1))


class Permuted(nn.Module):
    """Layers over the channels of maps with the channels last, and channel shuffling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.fc1 = nn.Linear(8, 32)
        self.fc2 = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.fc2(functional.gelu(self.fc1(self.norm(x.permute(0, 2, 3, 1)))))
        x = x + y.permute(0, 3, 1, 2)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        left, right = x.reshape(batch, channels, height, width).chunk(2, dim=1)
        return torch.cat([right, left], 1)


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sort(dim=1).values


class BranchesOnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.other = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
